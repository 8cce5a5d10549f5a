#!/usr/bin/env bash
# Supervised steps of eva-tiny and rollouts by us and by PyTorch, on the CPU with the same batch and threads.
# Run it on a quiet machine.
#
#   THREADS=2, BATCH=16, STEPS=12 (the first two do not count)
#
# Lines of JSON go to target/bench-train/eva-tiny.jsonl, too.
set -euo pipefail
cd "$(dirname "$0")/.."

threads=${THREADS:-2}
batch=${BATCH:-16}
steps=${STEPS:-12}
out=target/bench-train
# shellcheck source=scripts/peers.sh disable=SC1091
source scripts/peers.sh
peers "$out"

cargo bench --locked -p eva-burn --bench train --bench rollout --no-run
export OMP_NUM_THREADS=$threads
ours=(cargo bench --quiet --locked -p eva-burn --bench train --)
ours+=(--threads "$threads" --batch "$batch" --steps "$steps")
{
  # As few passes as there are threads, and one for each conversation.
  "${ours[@]}" --shards "$threads"
  "${ours[@]}" --shards "$batch"
  "$python" scripts/bench_train.py step eva-burn/assets/eva-tiny --threads "$threads" --batch "$batch" \
    --steps "$steps"
  RAYON_NUM_THREADS=$threads cargo bench --quiet --locked -p eva-burn --bench rollout | tee "$out/rollout.json"
  # Prompts as long as ours.
  prompt=$(sed -n 's/.*"prompt_tokens":\([0-9]*\).*/\1/p' "$out/rollout.json")
  for how in "" --together; do
    # shellcheck disable=SC2086 # nothing or one word
    "$python" scripts/bench_train.py rollout eva-burn/assets/eva-tiny --threads "$threads" \
      --prompt "$prompt" $how
  done
} | tee "$out/eva-tiny.jsonl"
