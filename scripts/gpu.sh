#!/usr/bin/env bash
# What a GPU can be asked here: the fixtures of `transformers`, eva-tiny on held-out worlds, and the speed
# of a model directory, on each device that is named.
#
#   scripts/gpu.sh [DEVICE...]      default: cuda; others: wgpu, vulkan, metal
#
# Each kernel is compiled when it is first needed, on one core and some tenths of a second each with CUDA's compiler:
# so each shape is a process of its own, as many at a time as there are cores. Compiled kernels are kept for later
# processes, and the first prompt of a speed is measured with and without. Output of the tests is in target/bench,
# in a folder of the device's name.
#
# MODEL=DIR measures that model (in each precision) instead of a random one of 0.5B parameters; the random one
# is made by Python with torch, and is left out where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

devices=("${@:-cuda}")
features=$(printf '%s\n' "${devices[@]%%:*}" kernel-cache | sort -u | paste -sd,) # that does nothing for wgpu and metal

cargo test --release --locked -p eva-burn --features "$features" --lib --test parity --test shapes \
  --test quantized --no-run
cargo build --release --locked --example train --features "$features"
bench() { cargo bench --locked -p eva-burn --features "$features" --bench model -- "$@"; }

model=$(realpath -m "${MODEL:-target/bench/0.5b}")
if [[ ! -e $model/config.json ]] && ! python3 scripts/bench_model.py make 0.5b "$model"; then
  echo "gpu: no model to measure: give MODEL=DIR, or install torch and safetensors" >&2
  model=
fi
for device in "${devices[@]}"; do
  echo "== $device: the fixtures"
  export EVA_DEVICE=$device
  logs=target/bench/${device/:/-}
  mkdir -p "$logs"
  gpu_test() { # NAME TARGET FILTER
    local log=$logs/$1.log target=(--test "$2")
    [[ $2 != lib ]] || target=(--lib)
    if cargo test --release --locked -p eva-burn --features "$features" "${target[@]}" -- "$3" --nocapture \
      >"$log" 2>&1 && grep -q '^test result: ok. [1-9]' "$log"; then
      echo "$1: ok"
    else
      echo "$1: FAILED, see $log"
      return 1
    fi
  }
  export -f gpu_test && export features logs
  # shellcheck disable=SC2016 # its words are those of each line
  {
    echo parity parity on_the_gpu
    echo batch shapes a_batch_matches_on_the_gpu
    echo kernels lib gpu::tests
    echo blocks quantized on_the_gpu
    for shape in eva-burn/tests/fixtures/shapes/*/; do
      echo "$(basename "$shape") shapes shapes_match_on_the_gpu"
    done
  } | xargs -P "$(nproc)" -L 1 bash -c 'EVA_SHAPES=$0 gpu_test "$0" "$1" "$2"'
  echo "== $device: eva-tiny"
  rm -rf target/bench/tiny # answers of an earlier build would be taken for this one's
  cargo run --release --locked --example train --features "$features" -- eval --questions 60 \
    --model eva-burn/assets/eva-tiny --out target/bench/tiny --device "$device"
  [[ -n $model ]] || continue
  for precision in f32 bf16 f16 int8 int4; do
    echo "== $device: speed in $precision"
    # Once to compile what this precision needs, then to measure.
    speed=(--model "$model" --device "$device" --precision "$precision")
    if ! { bench "${speed[@]}" --repeats 1 --tokens 4 && bench "${speed[@]}"; }; then
      echo "gpu: $device does not run $precision" >&2
    fi
  done
done
