#!/usr/bin/env bash
# Installs what the build needs and is missing, and says what and why; silent when all is there.
#
#   scripts/setup.sh ask     to build and to run the example `ask`
#   scripts/setup.sh test    the same, and what the tests need besides
#   scripts/setup.sh bench   the same as ask, and what others need that are measured beside eva-gst
#
# EVA_SKIP_SETUP=1 skips it all, for those who provide GStreamer in a way of their own.
set -euo pipefail

usage() {
  echo "usage: scripts/setup.sh ask|test|bench" >&2
  exit 2
}

fail() {
  echo "setup: $*" >&2
  exit 1
}

missing=() # Debian packages to install

# need WHY PACKAGE...: notes those of the packages that are not installed.
need() {
  local why=$1 package absent=()
  shift
  for package in "$@"; do
    # Not through a pipe: `grep -q` would stop reading early, which fails dpkg now and then.
    if [[ $(dpkg -s "$package" 2>/dev/null) != *"Status: "*" ok installed"* ]]; then
      absent+=("$package")
    fi
  done
  if ((${#absent[@]})); then
    echo "setup: missing ${absent[*]}: $why"
    missing+=("${absent[@]}")
  fi
}

install() {
  local get=(env DEBIAN_FRONTEND=noninteractive apt-get) # packages ask no questions
  local options=(-y -qq --no-install-recommends)
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null ||
      fail "not root and no sudo; as root, run: apt-get install ${options[*]} $*"
    get=(sudo "${get[@]}")
  fi
  echo "setup: installing with apt-get"
  # Package lists can be old or, in a fresh container, not there at all.
  "${get[@]}" update -qq || echo "setup: apt-get update failed; going on with the old lists" >&2
  "${get[@]}" install "${options[@]}" "$@" || fail "apt-get could not install: $*"
}

debian_packages() {
  command -v cc >/dev/null || need "a C compiler and linker, for Rust itself" build-essential
  command -v make >/dev/null || need "runs the targets of the Makefile" make
  need "headers and pkg-config, to build against GStreamer" \
    libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev pkg-config
  need "reads and writes video: containers, decoders, the H.264 encoder of the demo" \
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
    gstreamer1.0-plugins-ugly gstreamer1.0-libav
  if [[ $1 == test ]]; then
    need "a Vulkan driver in software, to test the wgpu device without a GPU" \
      libvulkan1 mesa-vulkan-drivers
  fi
  if [[ $1 == bench ]]; then
    need "the peers are Python packages, in an environment of their own" python3-venv
    need "libraries that torchcodec decodes with; makes the synthetic video" ffmpeg
  fi
  if ((${#missing[@]})); then
    install "${missing[@]}"
  fi
}

# Elsewhere: look for the things themselves, and say what to install.
other_system() {
  local absent=() library element
  command -v cc >/dev/null || absent+=("a C compiler")
  for library in gstreamer-1.0 gstreamer-app-1.0 gstreamer-video-1.0; do
    pkg-config --exists "$library" 2>/dev/null || absent+=("$library (development files)")
  done
  for element in x264enc avdec_h264 mp4mux qtdemux videoconvert; do
    gst-inspect-1.0 --exists "$element" 2>/dev/null || absent+=("GStreamer element $element")
  done
  if [[ $1 == bench ]]; then
    local tool
    for tool in python3 ffmpeg ffprobe; do
      command -v "$tool" >/dev/null || absent+=("$tool")
    done
  fi
  if ((${#absent[@]} == 0)); then
    return
  fi
  printf 'setup: missing %s\n' "${absent[@]}" >&2
  cat >&2 <<'END'
setup: this system has no apt-get, so please install a C compiler, pkg-config and GStreamer 1.22
or later: its development files, the plugin sets base, good, bad and ugly, and libav.
  Fedora    gcc pkgconf gstreamer1-devel gstreamer1-plugins-base-devel gstreamer1-plugins-good
            gstreamer1-plugins-bad-free; from RPM Fusion gstreamer1-plugins-ugly gstreamer1-libav
  Arch      base-devel gstreamer gst-plugins-base gst-plugins-good gst-plugins-bad
            gst-plugins-ugly gst-libav
  Homebrew  gstreamer pkgconf
The tests also need a Vulkan driver (in software: Mesa's lavapipe).
END
  fail "then run this again, or skip the check with EVA_SKIP_SETUP=1"
}

rust() {
  command -v cargo >/dev/null || fail "no cargo: install Rust 1.95 or later from https://rustup.rs"
  if [[ $1 == test ]]; then
    local tool absent=()
    for tool in clippy fmt; do
      cargo "$tool" --version >/dev/null 2>&1 || absent+=("${tool/#fmt/rustfmt}")
    done
    if ((${#absent[@]})); then
      echo "setup: missing ${absent[*]}: the tests check lints and formatting"
      command -v rustup >/dev/null || fail "no rustup; install these parts of Rust: ${absent[*]}"
      rustup component add "${absent[@]}"
    fi
  fi
}

[[ $# == 1 && $1 =~ ^(ask|test|bench)$ ]] || usage
[[ -z ${EVA_SKIP_SETUP:-} ]] || exit 0
rust "$1"
if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
  debian_packages "$1"
else
  other_system "$1"
fi
