#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The man pages say what the programs do: each option of --help is in its page,
# and no other; each page passes mandoc.
#
#   tests/check_man.sh BUILD
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1
passed=0 failed=0 skipped=0

# rule TITLE FINDINGS: holds when there are none.
rule() {
  if [ -z "$2" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'not so: %s\n%s\n' "$1" "$2"
  fi
}

# The page of a program, or of a command of one: `relay token new`.
page_of() {
  echo "$1" | sed 's/^\([^ ]*\) \([^ ]*\).*/\1-\2/'
}

options_of_help() {
  # shellcheck disable=SC2086 # a program and its command
  "$build"/$1 --help | sed -n 's/^  --\([a-z-]*\).*/\1/p' | sort
}

options_of_page() {
  sed -n 's/^\.It Fl \\-\([a-z-]*\).*/\1/p' "docs/man/$(page_of "$1").1" | sort
}

# Where the two lists differ.
differences() {
  options_of_help "$1" | while read -r option; do
    options_of_page "$1" | grep -qx -e "$option" || echo "not in page: $option"
  done
  options_of_page "$1" | while read -r option; do
    options_of_help "$1" | grep -qx -e "$option" || echo "no option: $option"
  done
}

for program in relay echoserver expose 'relay token new'; do
  page=docs/man/$(page_of "$program").1
  rule "the page of $program lists its options" "$(differences "$program")"
  if command -v mandoc >/dev/null 2>&1; then
    rule "mandoc is content with the page of $program" \
      "$(mandoc -T lint -W style "$page" 2>&1 |
        grep -v 'mandoc\.db\|referenced manual not found')"
  else
    echo "skipped: mandoc is not installed"
    skipped=$((skipped + 1))
  fi
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
