/* SPDX-License-Identifier: MIT */
/*
 * A plane is what one loop needs to move bytes: the loop, a budget of
 * descriptors, and the pools that flows borrow from. It also counts the open
 * handles of everything built on it, so that its owner learns, once, when
 * nothing is left on the loop. No globals, no locks.
 */
#ifndef RELAY_PLANE_H
#define RELAY_PLANE_H

#include <relay/base.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

#include "net/hold.h"

/* Descriptors this half may use, and does, all its planes together: any of
   their threads takes and gives. `reserved` ones are promised to connections
   that are still to come. */
struct descriptors {
  int limit;
  atomic_int used;
  atomic_int reserved;
  atomic_int pipes;  /* kernel pipes, in use and kept; two descriptors each */
  atomic_int wanted; /* so many are waited for: no plane is to keep pipes */
};

/* How a peer that vanished is noticed: after so many seconds of silence it is
   asked, so often, that far apart. */
struct keepalive {
  int idle_s;
  int interval_s;
  int count;
};

struct plane {
  uv_loop_t *loop;
  relay_mode mode;
  int rcvbuf_bytes; /* 0: the kernel's */
  struct keepalive keepalive;
  unsigned spread; /* of when peers are asked: relay__stream_keep_alive */
  struct descriptors
      *budget; /* `fds`, or those of the plane it stands beside */
  struct descriptors fds;
  struct hold_pool pool;
  char *batch;      /* where TLS gathers records; NULL until it first does */
  unsigned handles; /* open, closing ones included */

  /* Host's callbacks: the last handle has closed; a descriptor was freed; a
     connection could not be accepted, and waits. And a crew's: descriptors are
     wanted that its planes might keep as pipes. */
  void (*on_empty)(struct plane *plane);
  void (*on_descriptor)(struct plane *plane);
  void (*on_short)(struct plane *plane, int error);
  void (*on_wanted)(struct plane *plane);
  void *owner;
  struct crew *crew;
};

/* `fd_limit` 0: what RLIMIT_NOFILE leaves beside what is open now. Also makes
   the loop's own table large enough for the limit, since libuv 1.44 aborts
   when it cannot grow it later. 0, or a negative libuv code. */
int relay__plane_init(struct plane *plane, uv_loop_t *loop, relay_mode mode,
                      unsigned fd_limit);

/* The same for one more loop of the half that `first` belongs to: settings are
   its, and descriptors come out of its budget. Called on the thread of `first`;
   from then on the plane belongs to the thread of its own loop. */
int relay__plane_init_beside(struct plane *plane, uv_loop_t *loop,
                             struct plane *first);

/* Frees the pools. Handles may still be closing: on_empty tells the end; it is
   called at once when none is open. */
void relay__plane_close(struct plane *plane);

/* A handle was opened, or its close callback runs. */
void relay__plane_retain(struct plane *plane);
void relay__plane_release(struct plane *plane);

/* Whether `count` more descriptors are to be had beside the reserved ones.
   Kept pipes are given up for them first. Where other planes may keep some,
   these are told, and on_descriptor tells when they gave them up. */
bool relay__plane_has_descriptors(struct plane *plane, int count);
void relay__plane_take_descriptors(struct plane *plane, int count);
void relay__plane_give_descriptors(struct plane *plane, int count);
/* One more is promised; a promise was kept or is void. */
void relay__plane_reserve_descriptor(struct plane *plane);
void relay__plane_unreserve_descriptor(struct plane *plane);
/* Descriptors fell free, or could be made to: those who wait for some hear of
   it. */
void relay__plane_note_descriptors(struct plane *plane);

/*
 * A deadline is a one-shot timer embedded in its owner. on_expire runs once for
 * each set. After close, on_closed is where the owner frees itself.
 */
struct deadline {
  uv_timer_t timer;
  struct plane *plane;
  void (*on_expire)(struct deadline *deadline);
  void (*on_closed)(struct deadline *deadline);
};

void relay__deadline_init(struct deadline *deadline, struct plane *plane,
                          void (*on_expire)(struct deadline *deadline));
/* Expires once, `ms` from now; replaces what was set before. */
void relay__deadline_set(struct deadline *deadline, uint64_t ms);
void relay__deadline_clear(struct deadline *deadline);
bool relay__deadline_is_set(const struct deadline *deadline);
/* on_closed may be NULL; it runs later, from the loop. */
void relay__deadline_close(struct deadline *deadline,
                           void (*on_closed)(struct deadline *deadline));

#endif
