#!/usr/bin/env bash
# Runs eva-core's tests under Miri, which finds undefined behaviour and, on targets that it merely
# imitates, what only holds for the word size and the byte order of the machine at hand.
#
#   scripts/miri.sh [TEST...]          all tests, or only these files of tests/
#
# Needs a nightly toolchain with Miri: rustup +nightly component add miri rust-src
#
# eva-core has `forbid(unsafe_code)`, so what can be found is in its dependencies (heapless) and how
# they are used. Miri takes some hundred times longer: property tests run with few cases, and the
# unit tests, which go through all of Unicode, are left out.
#
# Status: 0, 1 if a test failed, 77 if there is no Miri.
set -euo pipefail
cd "$(dirname "$0")/.."

TOOLCHAIN=${MIRI_TOOLCHAIN:-nightly}
# Beside the host, one of 32 bits and one whose byte order is the other.
TARGETS=("$(rustc -vV | sed -n 's/^host: //p')" i686-unknown-linux-gnu s390x-unknown-linux-gnu)
if ! cargo "+$TOOLCHAIN" miri --version >/dev/null 2>&1; then
  echo "miri: skipped: no Miri; rustup +$TOOLCHAIN component add miri rust-src" >&2
  exit 77
fi

tests=("$@")
if ((${#tests[@]} == 0)); then
  for file in eva-core/tests/*.rs; do
    tests+=("$(basename "$file" .rs)")
  done
fi

export PROPTEST_CASES=${PROPTEST_CASES:-4} EVA_PYTHON_BLOCKS=${EVA_PYTHON_BLOCKS:-1}
# Property tests look for the file of earlier failures in the source tree.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"

for target in "${TARGETS[@]}"; do
  echo "-- $target"
  cargo "+$TOOLCHAIN" miri test --locked -p eva-core --features alloc,serde --target "$target" \
    "${tests[@]/#/--test=}"
done
