#!/usr/bin/env bash
# Everything CI checks, in one place that runs anywhere. `make test` installs what it needs first.
#
#   scripts/ci.sh              all phases; stops at the first that fails
#   scripts/ci.sh PHASE...     only these, for example: scripts/ci.sh fmt clippy-core
#
# Everything is built in the profile `ci`, and everything but the two smaller feature sets with
# the features of FULL, so that each dependency is compiled once for checks and once for tests.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

FULL=(--workspace --features "gst,wgpu,remote,hub,data,subtitles") # all that builds without CUDA
DEFAULT=(-p eva -p eva-core -p eva-burn) # what `cargo build` takes: no system libraries
CI=(--profile ci --locked)

wanted=("$@")
known=()
table=()

summary() {
  local code=$?
  ((${#table[@]})) || return
  printf '\n%-14s %8s  %s\n' phase seconds result
  printf '%s\n' "${table[@]}"
  printf '%-14s %8s  %s\n' total "$SECONDS" "$( ((code == 0)) && echo ok || echo FAILED)"
}
trap summary EXIT
trap 'exit 130' INT TERM

# phase NAME COMMAND...: status 77 of the command means that it was skipped, as it says.
phase() {
  local name=$1 from=$SECONDS code result=ok
  shift
  known+=("$name")
  if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $name "* ]]; then
    return
  fi
  echo "== phase: $name"
  "$@"
  code=$?
  case $code in
    0) ;;
    77) result=skipped ;;
    *) result=FAILED ;;
  esac
  table+=("$(printf '%-14s %8s  %s' "$name" "$((SECONDS - from))" "$result")")
  if [[ $result == FAILED ]]; then
    echo "ci: phase $name failed (status $code); again alone: scripts/ci.sh $name" >&2
    exit 1
  fi
}

scripts() {
  if ! command -v shellcheck >/dev/null; then
    echo "shellcheck is not installed: skipped"
    return 77
  fi
  shellcheck scripts/*.sh .ci/run
}

# Licences, banned crates and sources, by deny.toml. (Advisories need the network: not here.)
deny() {
  if ! cargo deny --version >/dev/null 2>&1; then
    echo "cargo-deny is not installed: skipped"
    return 77
  fi
  cargo deny --locked check bans licenses sources
}

# The default build must not need GStreamer. Looking at the graph is enough: building all of it
# once more without the features would take many minutes.
no_gstreamer() {
  local tree
  tree=$(cargo tree --locked "${DEFAULT[@]}" --edges all --prefix none) || return
  if grep '^gstreamer' <<<"$tree"; then
    echo "the default features pull in GStreamer" >&2
    return 1
  fi
}

clippy() {
  cargo clippy "${CI[@]}" --all-targets "$@" -- -D warnings
}

clippy_core() {
  clippy -p eva-core --no-default-features &&
    clippy -p eva-core --features alloc &&
    clippy -p eva-core --features alloc,serde
}

# A workspace of its own: see fuzz/Cargo.toml.
fuzz_replay() {
  cargo fmt --manifest-path fuzz/Cargo.toml --check &&
    cargo test --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz
}

# CUDA can be checked without its toolkit, and without the LLVM that its build script would download:
# DOCS_RS says to leave that out.
clippy_cuda() {
  DOCS_RS=1 cargo clippy "${CI[@]}" -p eva-burn --lib --features wgpu,vulkan,nvrtc,kernel-cache -- -D warnings
}

rustdoc() {
  RUSTDOCFLAGS='-D warnings' cargo doc "${CI[@]}" "${FULL[@]}" --no-deps
}

phase fmt           cargo fmt --all --check
phase scripts       scripts
phase deny          deny
phase no-gstreamer  no_gstreamer
phase clippy-core   clippy_core
phase test-core     cargo test "${CI[@]}" -p eva-core
phase no-std        scripts/no_std.sh
phase fuzz-replay   fuzz_replay
phase semver        scripts/semver.sh
phase clippy        clippy "${DEFAULT[@]}"
phase clippy-full   clippy "${FULL[@]}"
phase clippy-cuda   clippy_cuda
phase rustdoc       rustdoc
phase vocabulary    scripts/qwen_tokenizer.sh
phase build         cargo test "${CI[@]}" "${FULL[@]}" --no-run # tests and examples
phase test          cargo test "${CI[@]}" "${FULL[@]}" --tests --no-fail-fast
phase test-doc      cargo test "${CI[@]}" "${FULL[@]}" --doc --no-fail-fast
phase test-engine   scripts/remote_engine.sh

for name in "$@"; do
  if [[ " ${known[*]} " != *" $name "* ]]; then
    echo "ci: there is no phase $name; there are: ${known[*]}" >&2
    exit 2
  fi
done
