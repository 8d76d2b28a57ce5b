#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Every linter over every source; each is one test.
#
#   tests/lint.sh [BUILD]   BUILD has compile_commands.json
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
passed=0 failed=0 skipped=0

# linter NAME COMMAND ...: fails when the command does.
linter() {
  name=$1
  shift
  if ! command -v "$name" >/dev/null 2>&1; then
    echo "skipped: $name is not installed"
    skipped=$((skipped + 1))
  elif "$@"; then
    passed=$((passed + 1))
  else
    echo "lint: $name is not content"
    failed=$((failed + 1))
  fi
}

sources() {
  for directory in core programs echoserver lua tests bench examples; do
    [ -d "$directory" ] && find "$directory" -name "$1" -type f
  done | sort
}

run_clang_format() {
  sources '*.[ch]' | xargs clang-format --dry-run -Werror
}

run_clang_tidy() {
  compiled=$(sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' \
    "$build/compile_commands.json" | sort -u)
  printf '%s\n' "$compiled" | xargs -n 1 -P "$(getconf _NPROCESSORS_ONLN)" \
    clang-tidy -p "$build" --quiet 2>&1 |
    grep -v 'warnings generated\|warnings treated\|^$' >"$build/tidy.log"
  cat "$build/tidy.log"
  ! grep -q 'warning:\|error:' "$build/tidy.log"
}

run_cppcheck() {
  cppcheck --quiet --std=c11 --error-exitcode=1 --inline-suppr \
    --enable=warning,performance,portability -j 2 \
    --suppress=missingIncludeSystem --suppress=preprocessorErrorDirective \
    --suppress=autoVariables \
    -D__GNUC__ -I core -I core/include -I programs \
    core programs echoserver
}

run_luacheck() {
  luacheck --quiet --no-cache . >"$build/luacheck.log" 2>&1 && return
  cat "$build/luacheck.log"
  return 1
}

run_shellcheck() {
  # shellcheck disable=SC2046 # names without spaces
  shellcheck dev .ci/run $(sources '*.sh')
}

run_mandoc() {
  set -- docs/man/*.1
  [ -f "$1" ] || return 0
  mandoc -T lint -W warning "$@"
}

linter clang-format run_clang_format
linter clang-tidy run_clang_tidy
linter cppcheck run_cppcheck
linter luacheck run_luacheck
linter shellcheck run_shellcheck
linter mandoc run_mandoc

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
