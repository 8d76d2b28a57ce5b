/* SPDX-License-Identifier: MIT */
/*
 * A crew runs the pairs of one half: on the loop of the half itself, or on
 * worker threads, each with a loop and a plane of its own. This is the border
 * between threads, and the only one. The laws:
 *
 * 1. A pair belongs to one thread at a time: to the owner's until crew_start
 *    has given it away, to its worker's until it has ended, to the owner's
 *    again when on_end runs. Between the two stands the worker's lock.
 * 2. Towards a worker go orders: run this pair, these are its limits now, close
 *    it, go. Towards the owner goes one thing: a pair that has ended.
 * 3. An order is written into its pair, under the lock. A pair that was handed
 *    back takes none, so what comes too late finds nothing; and no pair is
 *    handed back with an order under way, so none is freed under a worker.
 * 4. Bytes are counted by the worker and read by anybody, with atomics. No lock
 *    is taken for a byte, and none for a count.
 *
 * With no workers all of it is a call of pair.h: no thread, lock or message.
 * Every function here is called on the thread of the owner's loop.
 */
#ifndef RELAY_CREW_H
#define RELAY_CREW_H

#include "flow/pair.h"
#include "net/container.h"

#define CREW_WORKERS_MAX 64

struct worker {
  struct crew *crew;
  uv_thread_t thread;
  unsigned pairs; /* it has, as the owner's thread knows */
  bool joined;

  /* The worker's thread alone. */
  uv_loop_t loop;
  struct plane plane;
  bool leaving;

  uv_async_t mail;    /* wakes the worker */
  uv_mutex_t lock;    /* of all below, and of orders within pairs */
  struct link orders; /* pairs that have some */
  struct link ended;  /* pairs on their way back */
  bool dismissed;
  bool gone; /* nothing of it runs any more */
};

struct crew {
  struct plane *plane; /* the owner's */
  unsigned count;
  struct worker *workers;
  uv_async_t news;  /* wakes the owner */
  unsigned next;    /* where the search for a place begins */
  unsigned at_work; /* threads not joined yet */
  bool closing;
};

/*
 * `count` threads, at most CREW_WORKERS_MAX; 0: none. All signals are blocked
 * in them. 0, or a negative code; close it all the same.
 */
int relay__crew_init(struct crew *crew, struct plane *plane, unsigned count);

/* All of its pairs have ended or were dropped. Sends the threads home; the
   plane has a handle less when the last of them is. */
void relay__crew_close(struct crew *crew);

/*
 * As relay__pair_start, on the loop of the worker that has the fewest pairs. An
 * end at the very start is told by on_end, like any other. on_end runs on the
 * owner's loop; the pair is freed after it returns.
 */
int relay__crew_start(struct pair **out, struct crew *crew,
                      struct stream *visitor, struct stream *agent,
                      const struct pair_limits *limits, pair_end_fn on_end,
                      void *owner);

/* Lets go of a pair: both its legs are reset, soon, and on_end does not run any
   more. From within on_end it does nothing. */
void relay__crew_drop(struct pair *pair, int reason);

/* Whether it has ended, and on_end is on its way. */
bool relay__crew_has_ended(struct pair *pair);

void relay__crew_limit(struct pair *pair, const struct pair_limits *limits);

#endif
