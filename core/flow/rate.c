/* SPDX-License-Identifier: MIT */
/*
 * See rate.h.
 */
#include "flow/rate.h"

#include <stddef.h>

#define CREDIT_MAX_MS 10000

/* Bytes that may go at once, at least one. */
static uint64_t burst_of(const struct rate_limit *limit) {
  return limit->rate >= 8 ? limit->rate / 8 : 1;
}

void relay__rate_set(struct rate_limit *limit, uint64_t rate, uint64_t now_ms) {
  bool was_none = limit->rate == 0;

  if (rate == limit->rate)
    return;
  relay__rate_refill(limit, now_ms);
  limit->rate = rate;
  limit->refilled_ms = now_ms;
  if (was_none || limit->allowance > burst_of(limit))
    limit->allowance = burst_of(limit);
}

void relay__rate_refill(struct rate_limit *limit, uint64_t now_ms) {
  uint64_t elapsed = now_ms - limit->refilled_ms;
  uint64_t earned;

  if (limit->rate == 0)
    return;
  if (elapsed > CREDIT_MAX_MS)
    elapsed = CREDIT_MAX_MS;
  earned = limit->rate / 1000 * elapsed + limit->rate % 1000 * elapsed / 1000;
  if (earned == 0)
    return; /* the time is kept: slow rates must not lose fractions */
  limit->refilled_ms = now_ms;
  limit->allowance += earned;
  if (limit->allowance > burst_of(limit))
    limit->allowance = burst_of(limit);
}

uint64_t relay__rate_cap(const struct rate_limit *limit, uint64_t size) {
  return limit != NULL && limit->rate != 0 && size > limit->allowance
             ? limit->allowance
             : size;
}

void relay__rate_take(struct rate_limit *limit, uint64_t bytes) {
  if (limit != NULL && limit->rate != 0)
    limit->allowance -= bytes < limit->allowance ? bytes : limit->allowance;
}

bool relay__rate_is_spent(const struct rate_limit *limit) {
  return limit != NULL && limit->rate != 0 && limit->allowance == 0;
}

uint64_t relay__rate_wait_ms(const struct rate_limit *limit) {
  /* Half a burst at a time keeps the wake-ups few. */
  return relay__rate_is_spent(limit)
             ? 1 + (burst_of(limit) + 1) / 2 * 1000 / limit->rate
             : 0;
}
