/* SPDX-License-Identifier: MIT */
/*
 * A rate limit: a token bucket in bytes, of an eighth of a second. One flow
 * may have its own, and many of one loop may share another.
 */
#ifndef RELAY_RATE_H
#define RELAY_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rate_limit {
  uint64_t rate;      /* bytes per second; 0: none */
  uint64_t allowance; /* bytes that may be read now */
  uint64_t refilled_ms;
};

/* A limit that was none begins with a burst; else what may be read now is what
   it was, or a burst at most. */
void relay__rate_set(struct rate_limit *limit, uint64_t rate, uint64_t now_ms);
/* Credits the time since the last refill. */
void relay__rate_refill(struct rate_limit *limit, uint64_t now_ms);
/* Lowers `size` to what may be read now. NULL is no limit. */
uint64_t relay__rate_cap(const struct rate_limit *limit, uint64_t size);
void relay__rate_take(struct rate_limit *limit, uint64_t bytes);
/* Whether nothing may be read now. */
bool relay__rate_is_spent(const struct rate_limit *limit);
/* Milliseconds until it is worth looking again, once it is spent. */
uint64_t relay__rate_wait_ms(const struct rate_limit *limit);

#endif
