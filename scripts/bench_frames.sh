#!/usr/bin/env bash
# Puts what eva-gst is measured against into a Python environment under target/, then measures.
# Called by `make bench-frames`; see scripts/bench_frames.py for the options.
#
# pip takes its settings from the environment: where PyTorch's index of CPU builds can be reached,
# PIP_EXTRA_INDEX_URL set to it saves a download of 3 GB.
set -euo pipefail
# A path is meant from where make was called, which is here too.
cd "$(dirname "$0")/.."

peers=(numpy decord==0.6.0 torch==2.15.0 torchcodec==0.17.0 av==18.1.0)
venv=target/bench-frames/venv
stamp=$venv/installed

if [[ $(cat "$stamp" 2>/dev/null) != "${peers[*]}" ]]; then
  echo "bench-frames: installing ${peers[*]} into $venv (about 3 GB, once)"
  mkdir -p target/bench-frames
  [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${peers[@]}"
  echo "${peers[*]}" >"$stamp"
fi
exec "$venv/bin/python" scripts/bench_frames.py "$@"
