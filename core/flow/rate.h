/* SPDX-License-Identifier: MIT */
/*
 * A rate limit: a token bucket in bytes, of an eighth of a second. One flow
 * may have its own, and many may share another, whatever loop each is on: no
 * locks, and what several take at the same time beyond what is there is owed,
 * and paid back before anybody reads on.
 */
#ifndef RELAY_RATE_H
#define RELAY_RATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct rate_limit {
  _Atomic uint64_t rate;     /* bytes per second; 0: none */
  _Atomic int64_t allowance; /* bytes that may be read now; below 0: owed */
  _Atomic uint64_t refilled_ms;
};

/* A limit that was none begins with a burst; else what may be read now is what
   it was, or a burst at most. */
void relay__rate_set(struct rate_limit *limit, uint64_t rate, uint64_t now_ms);
/* Credits the time since the last refill. */
void relay__rate_refill(struct rate_limit *limit, uint64_t now_ms);
/* Lowers `size` to what may be read now, never to 0. NULL is no limit. */
uint64_t relay__rate_cap(const struct rate_limit *limit, uint64_t size);
void relay__rate_take(struct rate_limit *limit, uint64_t bytes);
/* Whether nothing may be read now. */
bool relay__rate_is_spent(const struct rate_limit *limit);
/* Milliseconds until it is worth looking again, once it is spent. */
uint64_t relay__rate_wait_ms(const struct rate_limit *limit);

/* The limits of many pairs together. It is made, held and let go on the thread
   of those who own the pairs, and goes with its last holder. */
struct rate_share {
  unsigned holders;
  struct rate_limit in;
  struct rate_limit out;
};

/* Held once, without limits; NULL: no memory. */
struct rate_share *relay__rate_share_new(void);
/* NULL is allowed. */
void relay__rate_share_release(struct rate_share *share);

#endif
