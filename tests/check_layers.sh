#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Layers point one way. Lower files of core/ know nothing of what stands on
# them; the relay half and the agent half do not know each other; programs,
# bindings and examples know only the public headers; and the library never
# does what its headers promise it will not. Each rule is one test.
set -u
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0

# rule TITLE FINDINGS: holds when there are none.
rule() {
  if [ -z "$2" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'not so: %s\n%s\n' "$1" "$2"
  fi
}

# Folders of core/ and what each may include, itself aside.
below() {
  case $1 in
    wire) echo '' ;;
    net) echo 'wire' ;;
    flow) echo 'wire net' ;;
    relay | agent) echo 'wire net flow' ;;
  esac
}

includes_of() {
  sed -n 's/^# *include *["<]\([^">]*\)[">].*/\1/p' "$1"
}

# The code of a file, without its comments.
code_of() {
  cc -fpreprocessed -dD -E -P "$1" 2>/dev/null
}

# code_with PATTERN FILE ...: lines of code that match.
code_with() {
  pattern=$1
  shift
  for file; do
    [ -f "$file" ] || continue
    code_of "$file" | grep -nE "$pattern" | sed "s|^[0-9]*|$file|"
  done
}

# Every include of one of core/'s own headers, against the table above.
upward() {
  for file in core/*/*.[ch]; do
    folder=${file#core/}
    folder=${folder%/*}
    for include in $(includes_of "$file"); do
      [ -f "core/$include" ] || continue
      case " $folder $(below "$folder") " in
        *" ${include%/*} "*) ;;
        *) echo "$file includes $include" ;;
      esac
    done
  done
}

# The public header of a half is for that half; relay/base.h is for all.
both_halves() {
  for file in core/*/*.[ch]; do
    folder=${file#core/}
    folder=${folder%/*}
    for include in $(includes_of "$file"); do
      case $include in
        relay/relay.h | relay/agent.h)
          [ "relay/$folder.h" = "$include" ] || echo "$file includes $include"
          ;;
      esac
    done
  done
}

# Quoted includes stay in the file's own directory, or programs/.
private_includes() {
  for file in programs/*.[ch] echoserver/*.[ch] lua/*.[ch] examples/*.[ch]; do
    [ -f "$file" ] || continue
    for include in $(includes_of "$file"); do
      case $include in
        relay/lua.h) [ -f "lua/include/$include" ] && continue ;;
        relay/*) [ -f "core/include/$include" ] && continue ;;
        *core/* | *private*) ;;
        *) [ ! -f "core/$include" ] && continue ;;
      esac
      [ -f "${file%/*}/$include" ] || echo "$file includes $include"
    done
  done
}

rule 'lower layers of core/ do not include upper ones' "$(upward)"
rule 'the two halves do not include each other' "$(both_halves)"
rule 'programs and bindings include only public headers' "$(private_includes)"
rule 'echoserver and expose are clients of the agent half alone' \
  "$(grep -n 'relay/relay\.h' echoserver/*.[ch] programs/expose.c 2>/dev/null)"
rule 'public headers do not include uv.h' \
  "$(grep -n '# *include *[<"]uv' core/include/relay/*.h)"
rule 'the library does not end its host' \
  "$(code_with '\<(assert|abort|exit|_exit|quick_exit)[ ]*\(' core/*/*.[ch])"
rule 'the library does not write to standard streams' \
  "$(code_with '\<(printf|vprintf|puts|putchar|perror|stdout|stderr)\>' \
    core/*/*.[ch])"
rule 'the library installs no signal handler' \
  "$(code_with '\<(signal|sigaction|uv_signal_init)\(' core/*/*.[ch])"
rule 'it starts threads in one place, and knows of locks there alone' \
  "$(code_with '\<(uv_thread|uv_mutex|pthread)_[a-z_]+\(' core/*/*.[ch] |
    grep -v '^core/flow/\(crew\|worker\)\.c:')"
rule 'the library uses the loop it is given' \
  "$(code_with 'uv_default_loop' core/*/*.[ch])"
rule 'no call without a bound' \
  "$(code_with '\<(strcpy|strcat|sprintf|vsprintf|gets)[ ]*\(' \
    core/*/*.[ch] programs/*.[ch] echoserver/*.[ch] lua/*.[ch])"
rule 'what parses bytes does not call libuv' \
  "$(code_with '\<uv_[a-z_]+ *\(' core/wire/wire.[ch] \
    core/wire/address.[ch] core/net/container.h)"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
