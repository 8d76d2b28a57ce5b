#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Installs into an empty prefix, looks where things are, then builds and runs
# tests/package/ against it, by find_package and by pkg-config, with the
# library static and shared.
#
#   tests/check_package.sh BUILD
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/relay-package.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# step TITLE COMMAND ...
step() {
  title=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "not so: $title: $*"
    cat "$work/log"
  fi
}

# is_there PREFIX FILE ...
is_there() {
  prefix=$1
  shift
  for file; do
    found=$(find "$prefix" -path "$prefix/$file" | head -n 1)
    step "$file is installed" test -n "$found"
  done
}

by_cmake() {
  cmake -S tests/package -B "$work/$2" -G Ninja \
    -DCMAKE_PREFIX_PATH="$1" -DCMAKE_COMPILE_WARNING_AS_ERROR=ON &&
    cmake --build "$work/$2"
}

by_pkg_config() {
  PKG_CONFIG_PATH=$(dirname "$(find "$1" -name relay.pc)")
  export PKG_CONFIG_PATH
  # shellcheck disable=SC2046 # words
  cc -Werror -o "$work/$2" tests/package/consumer.c \
    $(pkg-config --cflags --libs relay)
}

run_shared() {
  LD_LIBRARY_PATH=$(dirname "$(find "$1" -name 'librelay.so')") "$work/$2"
}

# ---- static -----------------------------------------------------------------

static=$work/static
step 'cmake --install' cmake --install "$build" --prefix "$static"
is_there "$static" 'include/relay/relay.h' 'include/relay/agent.h' \
  'include/relay/base.h' 'lib*/librelay.a' 'lib*/cmake/relay/relayConfig.cmake' \
  'lib*/cmake/relay/relayConfigVersion.cmake' 'lib*/pkgconfig/relay.pc' \
  bin/relay bin/expose bin/echoserver share/man/man1/relay.1 \
  share/man/man1/expose.1 share/man/man1/echoserver.1 \
  share/man/man1/relay-token.1
step 'bin/relay runs' "$static/bin/relay" --version
step 'find_package(relay) builds' by_cmake "$static" found
step 'and runs' "$work/found/consumer"
step 'pkg-config builds' by_pkg_config "$static" configured
step 'and runs' "$work/configured"

# ---- shared -----------------------------------------------------------------

shared=$work/shared
step 'a shared library builds' sh -c "
  cmake -S . -B '$work/build' -G Ninja -DBUILD_SHARED_LIBS=ON \
    -DRELAY_BUILD_TESTS=OFF -DRELAY_BUILD_PROGRAMS=OFF &&
  cmake --build '$work/build' &&
  cmake --install '$work/build' --prefix '$shared'"
is_there "$shared" 'lib*/librelay.so'
step 'find_package(relay) builds with it' by_cmake "$shared" found-shared
step 'and runs' "$work/found-shared/consumer"
step 'pkg-config builds with it' by_pkg_config "$shared" configured-shared
step 'and runs' run_shared "$shared" configured-shared
step 'it exports relay_ names only' sh -c "
  nm -D --defined-only \"\$(find '$shared' -name librelay.so)\" |
  awk '\$3 !~ /^relay_[a-z]/ && \$2 != \"A\" { print; bad = 1 }
    END { exit bad }'"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
