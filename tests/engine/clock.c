/* SPDX-License-Identifier: MIT */
/*
 * A clock that stands until the test moves it, in the place of libc's: libuv
 * reads it as well. Only CPU time is real.
 */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

#define CLOCK_BEGIN_MS 1000000

uint64_t engine_clock_ms = CLOCK_BEGIN_MS;

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock,
                                                         struct timespec *at) {
  if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE)
    return (int)syscall(SYS_clock_gettime, clock, at);
  at->tv_sec = (time_t)(engine_clock_ms / 1000);
  at->tv_nsec = (long)(engine_clock_ms % 1000 * 1000000);
  return 0;
}
