/* SPDX-License-Identifier: MIT */
/*
 * When a pair has been silent for too long: both of its peers, by its limits,
 * or one that bytes are on their way to. See pair.h.
 */
#include "flow/pair.h"

static uint64_t now_ms(const struct pair *pair) {
  return uv_now(pair->plane->loop);
}

/* One half has ended and the other is open, with nothing held up in it. */
static bool is_half_closed(const struct pair *pair) {
  const struct flow *a = &pair->flows[0];
  const struct flow *b = &pair->flows[1];
  bool is_shut = a->phase == FLOW_SHUT;

  if (pair->flow_count < 2 || is_shut == (b->phase == FLOW_SHUT))
    return false;
  return is_shut ? !b->blocked : !a->blocked;
}

uint64_t relay__pair_silence_due(const struct pair *pair) {
  const struct pair_limits *limits = &pair->limits;
  uint64_t most_ms = limits->idle_ms;

  if (limits->fin_timeout_ms != 0 && is_half_closed(pair) &&
      (most_ms == 0 || limits->fin_timeout_ms < most_ms))
    most_ms = limits->fin_timeout_ms;
  return most_ms != 0 ? pair->active_ms + most_ms : UINT64_MAX;
}

/* How long keepalive lets a peer be silent. It asks at rest only: with bytes on
   their way the kernel tries for a quarter of an hour. So the pair looks for
   itself, as long as there are some. */
static uint64_t keepalive_ms(const struct pair *pair) {
  const struct keepalive *keepalive = &pair->plane->keepalive;

  return ((uint64_t)keepalive->idle_s +
          (uint64_t)keepalive->interval_s * (uint64_t)keepalive->count) *
         1000;
}

void relay__pair_note_moved(struct pair *pair) {
  pair->active_ms = now_ms(pair);
  if (pair->deaf_ms == 0)
    pair->deaf_ms = pair->active_ms + keepalive_ms(pair);
}

bool relay__pair_has_vanished(struct pair *pair) {
  uint64_t now = now_ms(pair);
  unsigned i;

  if (pair->deaf_ms == 0 || pair->deaf_ms > now)
    return false;
  pair->deaf_ms = 0;
  for (i = 0; i < pair->flow_count; i++) {
    if (relay__stream_unsent(pair->streams[i]) == 0)
      continue;
    pair->deaf_ms = now + (uint64_t)pair->plane->keepalive.interval_s * 1000;
    if (relay__stream_is_deaf(pair->streams[i], keepalive_ms(pair)))
      return true;
  }
  return false;
}
