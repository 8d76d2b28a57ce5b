/* SPDX-License-Identifier: MIT */
/*
 * See rate.h. All atomics are relaxed: each is a number of its own, and nothing
 * is told by the order in which they change.
 */
#include "flow/rate.h"

#include <stddef.h>
#include <stdlib.h>

#define CREDIT_MAX_MS 10000
/* Beyond this, which nothing moves, sums would overflow. */
#define RATE_MAX ((uint64_t)1 << 48)

#define LOAD(what) atomic_load_explicit(&(what), memory_order_relaxed)
#define STORE(what, value)                                                     \
  atomic_store_explicit(&(what), value, memory_order_relaxed)

/* Bytes that may go at once, at least one. */
static int64_t burst_of(uint64_t rate) {
  return rate >= 8 ? (int64_t)(rate / 8) : 1;
}

/* Adds what was earned, up to a burst. */
static void credit(struct rate_limit *limit, int64_t earned, int64_t burst) {
  int64_t before = LOAD(limit->allowance);
  int64_t after;

  do
    after = before > burst - earned ? burst : before + earned;
  while (!atomic_compare_exchange_weak_explicit(&limit->allowance, &before,
                                                after, memory_order_relaxed,
                                                memory_order_relaxed));
}

void relay__rate_set(struct rate_limit *limit, uint64_t rate, uint64_t now_ms) {
  uint64_t before = LOAD(limit->rate);

  if (rate > RATE_MAX)
    rate = RATE_MAX;
  if (rate == before)
    return;
  relay__rate_refill(limit, now_ms);
  STORE(limit->rate, rate);
  STORE(limit->refilled_ms, now_ms);
  if (before == 0)
    STORE(limit->allowance, burst_of(rate));
  else
    credit(limit, 0, burst_of(rate));
}

void relay__rate_refill(struct rate_limit *limit, uint64_t now_ms) {
  uint64_t rate = LOAD(limit->rate);
  uint64_t then, elapsed, earned;

  if (rate == 0)
    return;
  then = LOAD(limit->refilled_ms);
  if (now_ms <= then)
    return; /* another loop's clock is ahead of this one's */
  elapsed = now_ms - then < CREDIT_MAX_MS ? now_ms - then : CREDIT_MAX_MS;
  earned = rate / 1000 * elapsed + rate % 1000 * elapsed / 1000;
  if (earned == 0)
    return; /* the time is kept: slow rates must not lose fractions */
  /* Whoever moves the time on credits it, and nobody else. */
  if (atomic_compare_exchange_strong_explicit(&limit->refilled_ms, &then,
                                              now_ms, memory_order_relaxed,
                                              memory_order_relaxed))
    credit(limit, (int64_t)earned, burst_of(rate));
}

/* A read of nothing would look like an end, so one byte is owed where another
   loop was first. */
uint64_t relay__rate_cap(const struct rate_limit *limit, uint64_t size) {
  int64_t allowance;

  if (limit == NULL || LOAD(limit->rate) == 0)
    return size;
  allowance = LOAD(limit->allowance);
  if (allowance < 1)
    return size < 1 ? size : 1;
  return size < (uint64_t)allowance ? size : (uint64_t)allowance;
}

void relay__rate_take(struct rate_limit *limit, uint64_t bytes) {
  if (limit != NULL && LOAD(limit->rate) != 0)
    atomic_fetch_sub_explicit(&limit->allowance, (int64_t)bytes,
                              memory_order_relaxed);
}

bool relay__rate_is_spent(const struct rate_limit *limit) {
  return limit != NULL && LOAD(limit->rate) != 0 && LOAD(limit->allowance) < 1;
}

uint64_t relay__rate_wait_ms(const struct rate_limit *limit) {
  uint64_t rate = limit != NULL ? LOAD(limit->rate) : 0;
  int64_t allowance = rate != 0 ? LOAD(limit->allowance) : 1;

  if (allowance > 0)
    return 0;
  /* Half a burst at a time keeps the wake-ups few. */
  return 1 + (uint64_t)((burst_of(rate) + 1) / 2 - allowance) * 1000 / rate;
}

struct rate_share *relay__rate_share_new(void) {
  struct rate_share *share = calloc(1, sizeof(*share));

  if (share != NULL)
    share->holders = 1;
  return share;
}

void relay__rate_share_release(struct rate_share *share) {
  if (share != NULL && --share->holders == 0)
    free(share);
}
