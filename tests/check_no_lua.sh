#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The library stands without Lua: it is configured once where pkg-config cannot
# see any Lua, and once with RELAY_WITH_LUA=OFF where it can. Both build and hold
# no symbol of Lua, and the first passes its C tests. Each of these is a test.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:?usage: tests/check_no_lua.sh BUILD}
work=$build/no-lua
passed=0 failed=0

# expect WHAT COMMAND ...
expect() {
  what=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    cat "$work/log"
    echo "not so: $what"
  fi
}

# All that pkg-config finds, but for Lua.
filter_packages() {
  mkdir -p "$work/pkgconfig"
  for directory in $(pkg-config --variable pc_path pkg-config | tr : ' '); do
    for file in "$directory"/*.pc; do
      case ${file##*/} in
        lua* | '*.pc') ;;
        *) [ -e "$work/pkgconfig/${file##*/}" ] ||
          ln -s "$file" "$work/pkgconfig/" ;;
      esac
    done
  done
}

has_no_lua() {
  ! nm "$1/librelay.a" | grep -E ' U lua(L|_|open)'
}

# Faults are injected by the full run; one place of them will do here.
run_c_tests() {
  for test in "$1"/tests/c/test_*; do
    case ${test##*/} in
      test_inject) "$test" relay_new || return ;;
      *) "$test" || return ;;
    esac
  done
}

# check TITLE DIRECTORY [OPTION ...]
check() {
  title=$1 directory=$2
  shift 2
  expect "$title: it configures" cmake -S . -B "$directory" -G Ninja \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo "$@"
  expect "$title: it builds" cmake --build "$directory"
  expect "$title: it knows nothing of Lua" has_no_lua "$directory"
}

rm -rf "$work"
filter_packages
PKG_CONFIG_LIBDIR=$work/pkgconfig
export PKG_CONFIG_LIBDIR
expect "pkg-config does not see Lua" sh -c '! pkg-config --exists lua5.4'
check "Lua not installed" "$work/absent"
expect "without Lua the C tests pass" run_c_tests "$work/absent"
expect "without Lua the option is off" \
  grep -q '^RELAY_WITH_LUA:BOOL=\(0\|OFF\|\)$' "$work/absent/CMakeCache.txt"
unset PKG_CONFIG_LIBDIR
check "Lua not wanted" "$work/off" -DRELAY_WITH_LUA=OFF -DRELAY_BUILD_TESTS=OFF

rm -rf "$work"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
