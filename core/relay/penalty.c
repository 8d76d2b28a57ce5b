/* SPDX-License-Identifier: MIT */
/* See penalty.h. */
#include "relay/penalty.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define FAULT 1000 /* a score is in thousandths */
/* A score is bounded, or a flood would be remembered for days. */
#define SCORE_MAX ((uint64_t)4 * PENALTY_LIMIT * FAULT)

void relay__penalties_init(struct penalties *penalties, bool on,
                           uint64_t longest_ms, uint64_t half_life_ms) {
  memset(penalties, 0, sizeof(*penalties));
  penalties->on = on;
  penalties->longest_ms = longest_ms;
  penalties->half_life_ms = half_life_ms;
  link_init(&penalties->seen);
}

static void forget(struct penalties *penalties, struct source *source) {
  HASH_DELETE(hh, penalties->sources, source);
  link_remove(&source->seen);
  penalties->idle--;
  free(source);
}

void relay__penalties_free(struct penalties *penalties) {
  while (penalties->sources != NULL)
    forget(penalties, penalties->sources);
}

/* ---- sources ---------------------------------------------------------- */

static struct source_key key_of(const struct sockaddr *from) {
  struct source_key key = {0, (uint64_t)from->sa_family};

  if (from->sa_family == AF_INET)
    memcpy(&key.prefix, &((const struct sockaddr_in *)from)->sin_addr,
           sizeof(struct in_addr));
  else if (from->sa_family == AF_INET6)
    memcpy(&key.prefix, &((const struct sockaddr_in6 *)from)->sin6_addr,
           sizeof(key.prefix));
  return key;
}

static struct source *add(struct penalties *penalties,
                          const struct source_key *key) {
  struct source *source = calloc(1, sizeof(*source));

  if (source == NULL)
    return NULL;
  source->key = *key;
  HASH_ADD(hh, penalties->sources, key, sizeof(source->key), source);
  if (source->failed) {
    free(source);
    return NULL;
  }
  link_init(&source->seen);
  link_init(&source->silent);
  link_init(&source->speaking);
  link_init(&source->judged);
  return source;
}

struct source *relay__source_hold(struct penalties *penalties,
                                  const struct sockaddr *from) {
  struct source_key key = key_of(from);
  struct source *source;

  HASH_FIND(hh, penalties->sources, &key, sizeof(key), source);
  if (source == NULL)
    source = add(penalties, &key);
  else if (source->held == 0) {
    link_remove(&source->seen);
    penalties->idle--;
  }
  if (source != NULL)
    source->held++;
  return source;
}

void relay__source_release(struct penalties *penalties, struct source *source) {
  if (--source->held != 0)
    return;
  link_append(&penalties->seen, &source->seen);
  penalties->idle++;
  if (source->score == 0) /* there is nothing to remember */
    forget(penalties, source);
  else if (penalties->idle > PENALTY_SOURCES_MAX)
    forget(penalties, container_of(penalties->seen.next, struct source, seen));
}

/* ---- scores ----------------------------------------------------------- */

/* Halved for each half-life, and by a straight line between two of them. */
static uint64_t score_at(const struct penalties *penalties,
                         const struct source *source, uint64_t now_ms) {
  uint64_t life = penalties->half_life_ms;
  uint64_t age = now_ms - source->scored_ms;
  uint64_t score = source->score;

  if (life == 0 || now_ms <= source->scored_ms)
    return score;
  if (age / life >= 32)
    return 0;
  score >>= age / life;
  return score - score * (age % life) / (2 * life);
}

static uint64_t delay_of(const struct penalties *penalties, uint64_t score) {
  uint64_t faults = (score + FAULT / 2) / FAULT;
  uint64_t delay = penalties->longest_ms / PENALTY_FIRST_SHARE;

  if (faults <= PENALTY_FREE)
    return 0;
  if (faults >= PENALTY_LIMIT)
    return PENALTY_REFUSE;
  for (faults -= PENALTY_FREE + 1; faults > 0; faults--)
    delay *= 2;
  return delay < penalties->longest_ms ? delay : penalties->longest_ms;
}

uint64_t relay__source_fault(struct penalties *penalties, struct source *source,
                             uint64_t now_ms) {
  uint64_t score, delay;

  if (!penalties->on)
    return 0;
  score = score_at(penalties, source, now_ms) + FAULT;
  source->score = score < SCORE_MAX ? score : SCORE_MAX;
  source->scored_ms = now_ms;
  delay = delay_of(penalties, source->score);
  source->told = source->told && delay == PENALTY_REFUSE;
  return delay;
}

void relay__source_clear(struct source *source) {
  source->score = 0;
  source->told = false;
}

unsigned relay__source_score(const struct penalties *penalties,
                             const struct source *source, uint64_t now_ms) {
  return (unsigned)((score_at(penalties, source, now_ms) + FAULT / 2) / FAULT);
}
