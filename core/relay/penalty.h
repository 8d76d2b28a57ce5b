/* SPDX-License-Identifier: MIT */
/*
 * What is kept of those who have proven nothing yet, by where they come from.
 * A source is what one party has to itself: an IPv4 address, or the first 64
 * bits of an IPv6 one.
 *
 * Each fault, a line that is none or a key that is wrong, adds to the score of
 * its source, which halves with every half-life. A few faults are free; each
 * one after them doubles the time until the next is answered, up to a longest
 * one; and beyond a limit there is no answer. So it is the answer to a fault
 * that waits, never the question: whoever proves a key behind the same address
 * is let in at once, and clears the score.
 *
 * The clock is the caller's. Memory is bounded: of sources that have no
 * connection, the least recently seen are forgotten.
 */
#ifndef RELAY_PENALTY_H
#define RELAY_PENALTY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "net/container.h"
#include "relay/registry.h"

/* Faults without a delay; the first delay is the longest divided by this; and
   from so many on there is no answer. */
#define PENALTY_FREE 4
#define PENALTY_FIRST_SHARE 32
#define PENALTY_LIMIT 16
/* Sources that are kept without a connection. */
#define PENALTY_SOURCES_MAX 4096

/* A delay: none at all, there is no answer. */
#define PENALTY_REFUSE UINT64_MAX

struct source {
  struct source_key {
    uint64_t prefix;
    uint64_t family;
  } key;
  bool failed; /* uthash's */
  bool told;   /* that it is over the limit */
  UT_hash_handle hh;
  struct link seen; /* among those without a connection */
  unsigned held;    /* its connections that have proven nothing */
  uint64_t score;   /* in thousandths of a fault, at the time below */
  uint64_t scored_ms;
  /* The caller's: those connections, oldest first. */
  struct link silent;
  struct link speaking;
  struct link judged;
};

struct penalties {
  bool on;
  uint64_t longest_ms;
  uint64_t half_life_ms; /* 0: nothing is forgotten */
  struct source *sources;
  struct link seen; /* oldest first */
  unsigned idle;    /* how many are in `seen` */
};

void relay__penalties_init(struct penalties *penalties, bool on,
                           uint64_t longest_ms, uint64_t half_life_ms);
/* No source may be held. */
void relay__penalties_free(struct penalties *penalties);

/* The source of an address that was unmapped, held until it is released as
   often; NULL where memory is short. */
struct source *relay__source_hold(struct penalties *penalties,
                                  const struct sockaddr *from);
void relay__source_release(struct penalties *penalties, struct source *source);

/* A fault. The time to its answer, in ms, or PENALTY_REFUSE. 0 while penalties
   are off. */
uint64_t relay__source_fault(struct penalties *penalties, struct source *source,
                             uint64_t now_ms);
/* It has proven a key. */
void relay__source_clear(struct source *source);
/* The score in whole faults. */
unsigned relay__source_score(const struct penalties *penalties,
                             const struct source *source, uint64_t now_ms);

#endif
