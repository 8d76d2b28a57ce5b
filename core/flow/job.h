/* SPDX-License-Identifier: MIT */
/*
 * What crew.c, on the owner's thread, and worker.c, on the others, share.
 */
#ifndef RELAY_JOB_H
#define RELAY_JOB_H

#include "flow/crew.h"

/* What a worker is to do with a pair; all of it, in this order. */
struct orders {
  bool run;
  bool limit;
  bool close;
  int reason;
  struct pair_limits limits;
};

/* A pair that was given to a worker. */
struct job {
  struct pair pair;   /* the first, since pair_free frees it */
  pair_end_fn on_end; /* the owner's; NULL: it has let go */

  /* Under the worker's lock. */
  struct link link; /* of its orders, or of its ended */
  bool ended;       /* handed back: no order is for it any more */
  struct orders orders;
};

static inline struct job *job_of(struct pair *pair) {
  return container_of(pair, struct job, pair);
}

/* Makes a worker's loop and its thread. 0, or a negative code, and then nothing
   of it is left. On the owner's thread. */
int relay__worker_start(struct crew *crew, struct worker *worker);

/* The on_end of a job's pair: hands it back. On the worker's thread. */
void relay__worker_return(struct pair *pair, int reason);

#endif
