#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fuzzes each target for some seconds, from the corpus that is committed and
# what earlier runs found (kept in build/fuzz/corpus). One target is one test.
#
#   tests/fuzz.sh [SECONDS]
set -u
cd "$(dirname "$0")/.." || exit 1
seconds=${1:-60}
mkdir -p build/fuzz
for step in '--preset fuzz' '--build --preset fuzz'; do
  # shellcheck disable=SC2086 # words
  cmake $step >build/fuzz/fuzz.log 2>&1 || {
    cat build/fuzz/fuzz.log
    echo '0 passed, 1 failed'
    exit 1
  }
done

passed=0 failed=0
for source in tests/fuzz/fuzz_*.c; do
  name=${source##*/fuzz_}
  name=${name%.c}
  target=build/fuzz/tests/fuzz/fuzz_$name
  found=build/fuzz/corpus/$name
  mkdir -p "$found" "tests/fuzz/corpus/$name"
  echo "fuzz $name: $seconds s"
  if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -verbosity=1 -artifact_prefix="build/fuzz/$name-" \
    "$found" "tests/fuzz/corpus/$name" >"build/fuzz/$name.log" 2>&1; then
    passed=$((passed + 1))
    grep -E 'DONE|number_of_executed_units' "build/fuzz/$name.log"
  else
    failed=$((failed + 1))
    tail -n 60 "build/fuzz/$name.log"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
