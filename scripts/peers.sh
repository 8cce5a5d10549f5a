# shellcheck shell=bash
# shellcheck disable=SC2034 # its variable is for those who source it
# PyTorch and transformers in a virtual environment of their own; sourced by the scripts that measure beside
# them.
#
#   peers DIR [PACKAGE...]   installs them and more packages into DIR/venv, once; sets `python`
peers() {
  local out=$1 stamp=$1/venv/installed
  local wanted=(numpy torch==2.15.0 "transformers>=5.17,<6" safetensors pillow "${@:2}")
  python=$out/venv/bin/python
  [[ $(cat "$stamp" 2>/dev/null) != "${wanted[*]}" ]] || return 0
  echo "installing ${wanted[*]} into $out/venv (about 3 GB, once)" >&2
  mkdir -p "$out"
  [[ -x $python ]] || python3 -m venv "$out/venv"
  "$python" -m pip install --quiet --disable-pip-version-check "${wanted[@]}"
  echo "${wanted[*]}" >"$stamp"
}
