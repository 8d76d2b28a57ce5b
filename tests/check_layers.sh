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

# Lower layers, from the ground up; files of one line may know each other.
layers='container error wire address log registry
plane hold
stream
flow listener channel dial farewell resolve
pair'

# The number of a file's layer, 9 for what is in none of them.
layer_of() {
  name=${1##*/}
  printf '%s\n' "$layers" | awk -v name="${name%.[ch]}" '
    { for (i = 1; i <= NF; i++) if ($i == name) layer = NR }
    END { print layer ? layer : 9 }'
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

upward() {
  for file in core/*.[ch]; do
    layer=$(layer_of "$file")
    [ "$layer" -lt 9 ] || continue
    for include in $(includes_of "$file"); do
      case $include in
        relay/base.h) ;;
        relay/*) echo "$file includes $include" ;;
        *.h)
          [ -f "core/$include" ] || continue
          [ "$(layer_of "$include")" -le "$layer" ] ||
            echo "$file includes $include"
          ;;
      esac
    done
  done
}

# half_of FILE: what of the two halves an upper file belongs to.
halves_of() {
  includes_of "$1" | sed -n \
    -e 's/^relay_private\.h$/relay/p' -e 's|^relay/relay\.h$|relay|p' \
    -e 's/^agent_private\.h$/agent/p' -e 's|^relay/agent\.h$|agent|p' |
    sort -u
}

both_halves() {
  for file in core/*.[ch]; do
    [ "$(layer_of "$file")" -eq 9 ] || continue
    case $(halves_of "$file" | tr '\n' ' ') in
      'relay ' | 'agent ') ;;
      '') echo "$file: in no layer; name it in tests/check_layers.sh" ;;
      *) echo "$file: in both halves" ;;
    esac
  done
}

# Quoted includes stay in the file's own directory, or programs/.
private_includes() {
  for file in programs/*.[ch] echoserver/*.[ch] lua/*.[ch] examples/*.[ch]; do
    [ -f "$file" ] || continue
    for include in $(includes_of "$file"); do
      case $include in
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
  "$(code_with '\<(assert|abort|exit|_exit|quick_exit)[ ]*\(' core/*.[ch])"
rule 'the library does not write to standard streams' \
  "$(code_with '\<(printf|vprintf|puts|putchar|perror|stdout|stderr)\>' \
    core/*.[ch])"
rule 'the library installs no signal handler and starts no thread' \
  "$(code_with \
    '\<(signal|sigaction|uv_signal_init|uv_thread_create|pthread_create)\(' \
    core/*.[ch])"
rule 'the library uses the loop it is given' \
  "$(code_with 'uv_default_loop' core/*.[ch])"
rule 'no call without a bound' \
  "$(code_with '\<(strcpy|strcat|sprintf|vsprintf|gets)[ ]*\(' \
    core/*.[ch] programs/*.[ch] echoserver/*.[ch] lua/*.[ch])"
rule 'what parses bytes does not call libuv' \
  "$(code_with '\<uv_[a-z_]+ *\(' core/wire.[ch] core/address.[ch] \
    core/container.h)"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
