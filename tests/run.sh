#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs every test of a build directory, or those whose name holds a filter, and
# ends with one line that sums them all up: N passed, N failed[, N skipped].
#
#   tests/run.sh [--lint] [--fuzz SECONDS] BUILD [FILTER ...]
#
# A unit is any command whose last line is such a sum. One that prints none, or
# says 0 failed and exits with another status, counts as one failure.
set -u
cd "$(dirname "$0")/.." || exit 1

lint='' fuzz=''
while :; do
  case ${1:-} in
    --lint) lint=1 && shift ;;
    --fuzz) fuzz=$2 && shift 2 ;;
    *) break ;;
  esac
done
build=$(cd "$1" && pwd) || exit 1
shift
sanitized=$(sed -n 's/^RELAY_SANITIZE:[^=]*=//p' "$build/CMakeCache.txt")
logs=$build/tests/log
rm -rf "$logs"
mkdir -p "$logs"

# Sanitizers cost time; tests ask this factor before they call something late.
slow=1 most=600
[ -z "$sanitized" ] || slow=4
[ -z "${RELAY_TEST_FULL:-}" ] || most=1800
stressed=$(sed -n 's/^RELAY_LUA_STRESS:[^=]*=ON$/1/p' "$build/CMakeCache.txt")
export RELAY_TEST_STRESSED="$stressed"
export RELAY_TEST_BUILD="$build" RELAY_TEST_SLOW="${RELAY_TEST_SLOW:-$slow}"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:exitcode=99}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:exitcode=99}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-exitcode=99}"

passed=0 failed=0 skipped=0 broken=''

# matches NAME FILTER ...
matches() {
  name=$1
  shift
  [ $# -gt 0 ] || return 0
  for filter; do
    case $name in *"$filter"*) return 0 ;; esac
  done
  return 1
}

# Tells sums apart from everything else; sets p, f and s.
read_sum() {
  sum=$(tail -n 1 "$1" |
    sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2 0/p
      s/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
  [ -n "$sum" ] || return 1
  p=${sum%% *} s=${sum##* } f=${sum#* }
  f=${f% *}
}

# unit NAME SECONDS COMMAND ...
unit() {
  name=$1 limit=$2
  shift 2
  log=$logs/$(printf '%s' "$name" | tr '/ ' '__').log
  began=$(date +%s)
  status=0
  timeout --foreground -k 15 "$limit" "$@" >"$log" 2>&1 </dev/null || status=$?
  took=$(($(date +%s) - began))
  if ! read_sum "$log"; then
    p=0 f=1 s=0
    echo "$name: no sum at the end; exit status $status" >>"$log"
  elif [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
    f=1
    echo "$name: exit status $status" >>"$log"
  fi
  [ $((p + f + s)) -gt 0 ] || return 0
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  word=ok
  if [ "$f" -gt 0 ]; then
    word=FAILED
    broken="$broken $name"
    cat "$log"
  elif [ "$s" -gt 0 ]; then
    grep '^skipped' "$log"
  fi
  printf '%-7s %-28s %4d passed, %d failed, %d skipped  (%d s)\n' \
    "$word" "$name" "$p" "$f" "$s" "$took"
}

for test in tests/c/test_*.c; do
  test=${test##*/test_}
  test=${test%.c}
  if matches "c/$test" "$@"; then
    unit "c/$test" $((300 * slow)) "$build/tests/c/test_$test"
  fi
done

for test in tests/fuzz/fuzz_*.c; do
  test=${test##*/fuzz_}
  test=${test%.c}
  if matches "corpus/$test" "$@"; then
    unit "corpus/$test" $((120 * slow)) "$build/tests/fuzz/fuzz_$test" \
      "tests/fuzz/corpus/$test"
  fi
done

# What looks at the sources or the plain build needs no second look.
if [ -z "$sanitized" ]; then
  for test in tests/check_*.sh; do
    [ -x "$test" ] || continue
    name=${test##*/check_}
    name=check/${name%.sh}
    if matches "$name" "$@"; then unit "$name" 300 "$test" "$build"; fi
  done
fi

for test in tests/lua/test_*.lua; do
  [ -f "$test" ] || continue
  name=${test##*/test_}
  name=lua/${name%.lua}
  unit "$name" $((most * slow)) lua5.4 tests/lua/run.lua "$test" "$@"
done

if [ -n "$lint" ]; then unit lint 900 tests/lint.sh "$build"; fi
if [ -n "$fuzz" ]; then unit fuzz $((fuzz * 20 + 300)) tests/fuzz.sh "$fuzz"; fi

[ -z "$broken" ] || echo "failed:$broken (logs in $logs)"
if [ "$skipped" -gt 0 ]; then
  echo "$passed passed, $failed failed, $skipped skipped"
else
  echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
