#!/usr/bin/env bash
# Proves on the artefact that eva-core needs nothing but `core`, and states what it costs on a
# microcontroller.
#
#   scripts/no_std.sh
#
# What is proven:
#   - with the installed toolchain: eva-core is checked against a sysroot that holds `core` and
#     `compiler_builtins` alone, and the same check fails on `extern crate alloc`;
#   - the feature graph of the default features has no `std` and no `alloc`;
#   - the firmware in tests/no_std plays whole episodes on a Cortex-M4 in QEMU, with the very
#     versions of dependencies that the root's lock file has;
#   - no allocator and no avoidable panic is left in its binary; size, stack and instructions.
# What is not: timing (QEMU counts instructions, it has no cycles), any other core than the M4 (three
# more targets are only type-checked), and that the installed toolchain makes the same machine code:
# it has no `core` for bare metal and no way to get one, so the firmware is built by Debian's
# rustc-web from its rust-web-src. That compiler is usually a release away from the installed one.
#
# Debian's packages are unpacked under target/, not installed: several conflict with packages that
# people have. Some 300 MB are loaded the first time; later runs find them unpacked.
#
# Status: 0, 1 if a check failed, 77 if the system has no such rustc-web and only the first two were
# made.
set -euo pipefail
cd "$(dirname "$0")/.."

MAX_FLASH=$((48 * 1024))
MIN_RUST=1.87 # rust-version in eva-core/Cargo.toml
TARGET=thumbv7em-none-eabihf
CHECKED=(thumbv6m-none-eabi riscv32imc-unknown-none-elf wasm32-unknown-unknown)

# Named, because each is used here; what they depend on is found out.
RUST=(rustc-web libstd-rust-web-dev cargo-web rust-web-src binutils-arm-none-eabi)
QEMU=(qemu-system-arm qemu-system-common qemu-system-data)

WORK=$PWD/target/no_std
TOOLS=$WORK/tools
# Ours alone, whatever the caller builds with.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_TARGET_DIR RUSTC RUSTC_BOOTSTRAP

fail() {
  echo "no_std: $*" >&2
  exit 1
}

# Not every system has a compiler of Debian's that is new enough.
skip() {
  echo "no_std: the firmware is skipped: $*" >&2
  exit 77
}

step() {
  echo "-- $*"
}

# --- with the installed toolchain

core_only_check() {
  CARGO_TARGET_DIR=$WORK/core-only \
    cargo check --locked --quiet -p eva-core --no-default-features --target "$1" "${@:2}"
}

core_only() {
  local host library sysroot=$WORK/sysroot
  host=$(rustc -vV | sed -n 's/^host: //p')
  library=lib/rustlib/$host/lib
  rm -rf "$sysroot"
  mkdir -p "$sysroot/$library"
  ln -s "$(rustc --print sysroot)/$library"/lib{core,compiler_builtins}-*.{rlib,rmeta} \
    "$sysroot/$library"
  # For this target only: macros and build scripts are the host's and have all of std.
  local flags=${host//-/_}
  flags=CARGO_TARGET_${flags^^}_RUSTFLAGS
  export "$flags=--sysroot $sysroot"

  step "eva-core against a sysroot of core alone"
  core_only_check "$host" || fail "eva-core needs more than core"

  step "the same with \`extern crate alloc\`, which has to fail"
  local said
  if said=$(core_only_check "$host" --features alloc 2>&1); then
    fail "\`extern crate alloc\` passes: the check against core alone proves nothing"
  elif [[ $said != *"can't find crate for \`alloc\`"* ]]; then
    fail "the check fails, but not for want of alloc: $said"
  fi
  unset "$flags"
}

features() {
  step "features of eva-core and of what it depends on"
  local graph
  # `normal`: what runs on the host while building may use all of std.
  graph=$(cargo tree --locked -p eva-core -e normal,features --no-default-features --prefix none)
  if grep -E 'feature "(std|alloc)"' <<<"$graph"; then
    fail "the default features ask for std or alloc"
  fi
}

# Features and versions are those of the root: else the firmware would prove another crate.
same_dependencies() {
  step "the firmware's dependencies of eva-core against the root's"
  local tree=(cargo tree --locked -p eva-core -e normal --prefix none) root firmware
  root=$("${tree[@]}" | sort -u)
  firmware=$("${tree[@]}" --manifest-path tests/no_std/Cargo.toml | sort -u)
  diff <(echo "$root") <(echo "$firmware") ||
    fail "versions differ: cargo update -p CRATE --precise VERSION in tests/no_std"
}

# --- with Debian's, unpacked

# All packages that would be installed along with these, and these.
with_dependencies() {
  printf '%s\n' "$@"
  apt-get install --simulate --no-install-recommends "$@" | sed -n 's/^Inst \([^ ]*\).*/\1/p'
}

download() {
  local packages
  packages=$({ with_dependencies "${RUST[@]}" && with_dependencies "${QEMU[@]}"; } | sort -u) ||
    return 1
  # shellcheck disable=SC2086 # one word a package
  (cd "$WORK/packages" && apt-get download -qq $packages)
}

tools_work() {
  [[ -e $TOOLS/complete ]] || return 1
  local tool
  for tool in rustc cargo arm-none-eabi-ld arm-none-eabi-objdump qemu-system-arm; do
    tool "$tool" --version >/dev/null 2>&1 || return 1
  done
}

# tool NAME ARGUMENT...: runs an unpacked program with the unpacked libraries.
tool() {
  LD_LIBRARY_PATH=$(libraries) "$TOOLS/usr/bin/$1" "${@:2}"
}

libraries() {
  echo "$TOOLS"/{usr/,}lib/*-linux-gnu | tr ' ' :
}

unpack_tools() {
  if tools_work; then
    return
  fi
  step "loading and unpacking Debian's packages: ${RUST[*]} ${QEMU[0]}"
  rm -rf "$TOOLS" "$WORK/packages"
  mkdir -p "$TOOLS" "$WORK/packages"
  if ! download 2>"$WORK/apt.log"; then
    # The lists are old or, in a fresh container, not there at all.
    local update=(apt-get update -qq)
    [[ $(id -u) == 0 ]] || update=(sudo "${update[@]}")
    "${update[@]}" || echo "no_std: apt-get update failed; going on with the old lists" >&2
    download 2>"$WORK/apt.log" || {
      apt-cache show "${RUST[0]}" >/dev/null 2>&1 || skip "this system has no package ${RUST[0]}"
      cat "$WORK/apt.log" >&2
      fail "could not load Debian's packages (above is why); needed: ${RUST[*]} ${QEMU[*]}"
    }
  fi
  local package
  for package in "$WORK"/packages/*.deb; do
    dpkg -x "$package" "$TOOLS"
  done
  rm -rf "$WORK/packages"
  touch "$TOOLS/complete"
  tools_work || fail "the unpacked programs do not run: see $TOOLS"
  local version
  version=$(tool rustc --version | cut -d' ' -f2)
  if [[ $(printf '%s\n' "$MIN_RUST" "$version" | sort -V | head -n1) != "$MIN_RUST" ]]; then
    rm "$TOOLS/complete"
    skip "rustc-web is $version here, eva-core needs $MIN_RUST: are the security updates enabled?"
  fi
}

# The nightly flag that builds core is open to a stable compiler under this variable.
debian_cargo() {
  RUSTC=$TOOLS/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$WORK \
    CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER=$TOOLS/usr/bin/arm-none-eabi-ld \
    CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUSTFLAGS="-C linker-flavor=ld -C link-arg=-Tlink.x" \
    tool cargo "$1" --locked --quiet -Zbuild-std=core "${@:2}"
}

build() {
  step "the firmware with $(tool rustc --version)"
  # Not by --manifest-path: the linker looks for memory.x where cargo runs.
  (cd tests/no_std && debian_cargo build --release --target "$TARGET")
}

check_others() {
  local target
  for target in "${CHECKED[@]}"; do
    step "checking for $target"
    (cd tests/no_std && debian_cargo check -p eva-core --target "$target")
  done
}

no_heap() {
  step "no allocator in $1"
  if tool arm-none-eabi-nm -C "$WORK/$TARGET/release/$1" |
    grep -E '__(rust|rdl|rg)_alloc| <?alloc::| (malloc|calloc|realloc|free|_?sbrk)$'; then
    fail "$1 has an allocator"
  fi
}

# Looks at each call of a function that panics, and asks the debug information in whose code it is,
# inlined or not. Those that remain can't be removed from outside and can't happen:
#   core/src/num/  Rust's own reading of a decimal number checks the bounds of its own tables;
#   core/src/fmt/  and so does its writing of a whole number.
# The panicking functions call one another besides.
no_panics() {
  step "no panics of eva-core in $1"
  local elf=$WORK/$TARGET/release/$1 calls found
  calls=$(tool arm-none-eabi-objdump -dC --no-show-raw-insn "$elf" |
    sed -nE 's/^ *([0-9a-f]+):\tb[a-z.]*\t.*<(core::panicking::|.*_fail(ed)?(_rt)?>).*/0x\1/p')
  [[ -n $calls ]] || fail "no call of a panic at all: they are looked for under wrong names"
  # One paragraph a call: the lines that say what is inlined where belong to the address above.
  # shellcheck disable=SC2086 # one word a call
  found=$(tool arm-none-eabi-addr2line -Cafip -e "$elf" $calls | sed 's/^0x/\n&/' |
    awk -v RS= '!/\/core\/src\/(num|fmt)\// && !/\/core\/src\/panic(king)?\.rs/ { print }')
  if [[ -n $found ]]; then
    echo "$found"
    fail "$1 can panic there"
  fi
}

flash() {
  step "flash of the agent alone"
  local sizes text rodata
  sizes=$(tool arm-none-eabi-size -A "$WORK/$TARGET/release/bare")
  text=$(awk '$1 == ".text" { print $2 }' <<<"$sizes")
  rodata=$(awk '$1 == ".rodata" { print $2 }' <<<"$sizes")
  echo ".text $text + .rodata $rodata = $((text + rodata)) bytes, of $MAX_FLASH"
  ((text + rodata <= MAX_FLASH)) || fail "the agent takes too much flash"
}

# Each instruction takes 64 ns of QEMU's clock, with which the firmware counts them.
play() {
  step "the episodes in $(tool qemu-system-arm --version | head -n1)"
  LD_LIBRARY_PATH=$(libraries) \
    timeout 120 "$TOOLS/usr/bin/qemu-system-arm" -L "$TOOLS/usr/share/qemu" \
    -cpu cortex-m4 -machine mps2-an386 -nographic -icount shift=6,align=off \
    -semihosting-config enable=on,target=native \
    -kernel "$WORK/$TARGET/release/firmware" </dev/null ||
    fail "the firmware ended with status $?"
}

core_only
features
same_dependencies
cargo fmt --manifest-path tests/no_std/Cargo.toml --check
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  skip "no apt-get here, and Debian's packages build it"
fi
unpack_tools
build
for elf in firmware bare; do
  no_heap "$elf"
  no_panics "$elf"
done
flash
play
check_others
