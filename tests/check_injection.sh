#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Every call of the library that can fail is one that test_inject makes fail.
# The library's undefined symbols are compared with the list of
# tests/c/test_inject.cmake and with the one below, of calls that cannot fail or
# whose failure nobody can do anything about. A new call has to be put into one
# of the two.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:?usage: tests/check_injection.sh BUILD}

# Pure, or told by their result as often as by an error.
pure='__errno_location _GLOBAL_OFFSET_TABLE_ in6addr_loopback memchr memcmp
  memcpy memmove memset snprintf strchr strcmp strcspn strlen strncmp strrchr
  strstr inet_ntop inet_pton gmtime_r __stack_chk_fail'
# They fail on what is not open or no clock, and so only by our own fault.
sure='clock_gettime close closedir poll readdir'
# libuv's own: without a result, or only wrong if called wrongly.
uv='uv_close uv_cancel uv_freeaddrinfo uv_hrtime uv_is_active uv_now
  uv_poll_stop uv_timer_init uv_timer_start uv_timer_stop uv_update_time'

# The words between the parentheses of set(injected …).
injected=$(sed -n '/^set(injected/,/)/p' tests/c/test_inject.cmake |
  tr '()' '  ')

known=$(printf ' %s ' "$pure" "$sure" "$uv" "$injected" | tr -s '\n ' ' ')

unknown=''
for symbol in $(nm -u "$build/librelay.a" | awk '$1 == "U" { print $2 }' |
  grep -v '^relay_' | sed 's/@.*//' | sort -u); do
  case $known in
    *" $symbol "*) ;;
    *) unknown="$unknown $symbol" ;;
  esac
done

if [ -z "$unknown" ]; then
  echo "1 passed, 0 failed"
else
  echo "not so: test_inject makes these fail, or they cannot:$unknown"
  echo "0 passed, 1 failed"
  exit 1
fi
