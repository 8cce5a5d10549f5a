#!/usr/bin/env bash
# Mutation testing of eva-core: cargo-mutants changes the code in one place at a time, and a test has
# to notice. The survivors are printed; at least 90% of the changes that compile have to be caught.
#
#   scripts/mutants.sh [ARGUMENT...]   for cargo mutants, for example: --file eva-core/src/json.rs
#                                      or --shard 0/4, --list, --jobs 8
#
# Needs cargo-mutants: cargo install cargo-mutants --locked
#
# One change takes some seconds, all of them an hour or more on one core: this is not part of CI. Lists
# and logs are in target/mutants.out.
#
# Status: that of cargo mutants, 77 if it is not installed, 1 if fewer than 90% are caught.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

OUT=target/mutants.out
MIN_CAUGHT=90 # per cent

if ! cargo mutants --version >/dev/null 2>&1; then
  echo "mutants: skipped: no cargo-mutants; install it with: cargo install cargo-mutants --locked" >&2
  exit 77
fi

# Fast to compile rather than fast to run: each change compiles eva-core and its tests once more.
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=false CARGO_INCREMENTAL=1
export PROPTEST_CASES=${PROPTEST_CASES:-32} EVA_PYTHON_BLOCKS=${EVA_PYTHON_BLOCKS:-4}
mkdir -p target

# Without the doc tests: each is a program of its own to compile.
cargo mutants --package eva-core --features alloc,serde --output target \
  --timeout 60 --cap-lints true '--cargo-arg=--config=profile.dev.package."*".opt-level=2' "$@" \
  -- --lib --tests
code=$?
case " $* " in *" --list"*) exit "$code" ;; esac

count() { wc -l <"$OUT/$1.txt" 2>/dev/null || echo 0; }
caught=$(($(count caught) + $(count timeout)))
missed=$(count missed)
echo "mutants: $caught caught, $missed survive, $(count unviable) do not compile"
((caught + missed > 0)) || exit "$code"
if ((100 * caught < MIN_CAUGHT * (caught + missed))); then
  exit 1
fi
# 2: some survive; 3: some ran out of time. Both are within what is allowed here.
case $code in 2 | 3) exit 0 ;; *) exit "$code" ;; esac
