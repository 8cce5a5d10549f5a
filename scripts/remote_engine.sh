#!/usr/bin/env bash
# Evaluates eva-tiny twice on the same items, behind `transformers serve` and in this process, and
# compares what each item came to: answers, rounds, frames and tokens have to be the same.
#
#   scripts/remote_engine.sh [ITEMS]     ITEMS: world:1:6 if not given
#
# It is skipped (status 77) where the engine is not installed. To install it:
#
#   python3 -m venv VENV && VENV/bin/pip install 'transformers[serving]' torch torchvision pillow
#   PATH=VENV/bin:$PATH scripts/remote_engine.sh
set -euo pipefail
cd "$(dirname "$0")/.."

items=${1:-world:1:6}
if ! transformers serve --help >/dev/null 2>&1; then
  echo "\`transformers serve\` is not installed: skipped"
  exit 77
fi
# The features of scripts/ci.sh, so that nothing is compiled twice.
cargo build --profile ci --locked --workspace --features gst,wgpu,remote,hub,data,subtitles --example evaluate
evaluate=target/ci/examples/evaluate

work=$(mktemp -d)
server=
cleanup() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

# The server would take <tool_call> blocks out of the text and expects Qwen's form of them, which the
# protocol does not use. A template that knows of text alone leaves replies as they are.
cp -r eva-burn/assets/eva-tiny "$work/model"
python3 - "$work/model/tokenizer_config.json" <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))
config["response_template"] = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {"content": {"close_pattern": r"<\|im_end\|>|<\|endoftext\|>", "content": "text"}},
}
json.dump(config, open(sys.argv[1], "w"))
PYTHON

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
transformers serve "$work/model" --host 127.0.0.1 --port "$port" --device cpu \
  >"$work/server.log" 2>&1 &
server=$!
for ((second = 0; ; second++)); do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    break
  fi
  if ((second >= 300)) || ! kill -0 "$server" 2>/dev/null; then
    echo "the server does not start; it says:" >&2
    tail -n 20 "$work/server.log" >&2
    exit 1
  fi
  sleep 1
done

"$evaluate" --items "$items" --policy tiny --out "$work/here"
for role in tool user; do
  "$evaluate" --items "$items" --policy "http://127.0.0.1:$port/v1" --tool-role "$role" \
    --concurrency 2 --out "$work/$role"
done

python3 - "$work" <<'PYTHON'
import json, sys
def run(name):
    lines = open(f"{sys.argv[1]}/{name}/results.jsonl")
    records = [json.loads(line) for line in lines]
    return {record["index"]: record for record in records}
here, there, user = run("here"), run("tool"), run("user")
fields = ["answer", "stop_reason", "num_rounds", "total_tokens", "estimated_visual_tokens",
          "frames", "prompt_tokens", "completion_tokens", "error"]
differences = [
    f"item {index}, {field}: {here[index][field]!r} here, {there[index][field]!r} on the server"
    for index in here for field in fields if here[index][field] != there[index][field]
]
print("\n".join(differences) or f"{len(here)} items: the same answers, rounds, frames and tokens")
failed = [record["error"] for record in user.values() if record["error"]]
print("\n".join(failed) or f"{len(user)} items with role `user`: no error")
sys.exit(bool(differences or failed or not here or len(here) != len(there)))
PYTHON
