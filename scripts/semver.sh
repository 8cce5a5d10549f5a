#!/usr/bin/env bash
# Checks that the public API of eva-core has changed no more than its version says.
#
#   scripts/semver.sh [REVISION]       against REVISION (default: the last tag v*)
#
# The comparison is with this repository's own history, so no network is needed once cargo-semver-checks
# and the dependencies are there. Before 1.0.0 a change that breaks others asks for a new minor version,
# and CHANGELOG.md says what to write instead.
#
# Status: 0, 1 if the version does not allow a change, 77 if cargo-semver-checks is not installed or
# nothing has been released yet.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "semver: skipped: $*" >&2
  exit 77
}

cargo semver-checks --version >/dev/null 2>&1 ||
  skip "no cargo-semver-checks; install it with: cargo install cargo-semver-checks --locked"

base=${1:-$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null)} ||
  skip "no tag v* here, so nothing to compare with"

for features in "" alloc alloc,serde; do
  echo "-- eva-core, features: ${features:-none}"
  cargo semver-checks --package eva-core --baseline-rev "$base" \
    --only-explicit-features ${features:+--features "$features"}
done
