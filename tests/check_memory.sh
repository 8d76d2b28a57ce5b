#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The programs that embed the libraries, under valgrind: no error, and no block
# of memory left at the end, reachable or not. What sanitizers cannot see: a
# release build, and reads of what was never written. Each program is one test.
set -u
build=${1:?usage: tests/check_memory.sh BUILD}
passed=0 failed=0

if ! command -v valgrind >/dev/null 2>&1; then
  echo "skipped: there is no valgrind"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi

for name in embed reentry lua_embed; do
  if valgrind -q --leak-check=full --show-leak-kinds=all \
    --errors-for-leak-kinds=all --error-exitcode=99 \
    "$build/tests/c/test_$name"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "not so: test_$name is clean under valgrind"
  fi
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
