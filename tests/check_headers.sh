#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Each public header compiles alone, as C99 and as C++11, pedantic, without a
# warning. Each compilation is one test.
set -u
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0

compile() {
  header=$1
  shift
  if printf '#include <%s>\n' "$header" |
    "$@" -pedantic -Wall -Wextra -Werror -I core/include -I lua/include \
      -fsyntax-only -; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "$header does not compile: $*"
  fi
}

for path in core/include/relay/*.h lua/include/relay/*.h; do
  header=${path#*/include/}
  compile "$header" cc -x c -std=c99
  compile "$header" c++ -x c++ -std=c++11
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
