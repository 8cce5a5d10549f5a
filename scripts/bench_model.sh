#!/usr/bin/env bash
# A model of random weights, prompted and decoded by us in each precision, by PyTorch and by llama.cpp, on
# the CPU with the same threads. Called by `make bench-model`.
#
#   SHAPE=0.3b (0.5b, 3b, 7b: see bench_model.py), THREADS=2, REPEATS=3 (the best counts)
#
# Lines of JSON go to target/bench-model/SHAPE.jsonl, too. llama.cpp is built from source by pip; where
# that fails it is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

shape=${SHAPE:-0.3b}
threads=${THREADS:-2}
repeats=${REPEATS:-3}
out=target/bench-model
# shellcheck source=scripts/peers.sh disable=SC1091
source scripts/peers.sh
peers "$out" gguf
"$python" -c 'import llama_cpp' 2>/dev/null ||
  "$python" -m pip install --quiet --disable-pip-version-check llama-cpp-python ||
  echo "bench-model: llama-cpp-python could not be built: left out" >&2
[[ -e $out/$shape/config.json ]] || "$python" scripts/bench_model.py make "$shape" "$out/$shape"

cargo bench --locked -p eva-burn --bench model --no-run
export RAYON_NUM_THREADS=$threads OMP_NUM_THREADS=$threads
{
  for precision in f32 f16 bf16 int8 int4; do
    cargo bench --quiet --locked -p eva-burn --bench model -- --model "$PWD/$out/$shape" \
      --precision "$precision" --repeats "$repeats"
  done
  "$python" scripts/bench_model.py torch "$out/$shape" --threads "$threads" --repeats "$repeats"
  # The decoder alone, without pictures, which is what llama.cpp is given.
  for precision in f32 f16 bf16 int8 int4; do
    cargo bench --quiet --locked -p eva-burn --bench model -- --model "$PWD/$out/$shape" \
      --precision "$precision" --pictures 0 --repeats "$repeats"
  done
  if "$python" -c 'import llama_cpp' 2>/dev/null; then
    for type in f16 q8_0 q4_0; do
      file=$out/$shape-$type.gguf
      [[ -e $file ]] || "$python" scripts/bench_model.py gguf "$out/$shape" "$file" --type "$type"
      "$python" scripts/bench_model.py llama "$file" --threads "$threads" --repeats "$repeats"
    done
  fi
} | tee "$out/$shape.jsonl"
