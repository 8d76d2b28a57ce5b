/* SPDX-License-Identifier: MIT */
/*
 * A pair is two streams joined: flow `in` from the visitor's side to the
 * agent's, flow `out` back. An echo is a pair of one stream and one flow, from
 * the stream to itself. A pair knows nothing of agents, leases or policy: it
 * is given streams, limits and a completion callback. All of it happens on the
 * loop of its plane, whichever that is; crew.h says who may call from another.
 *
 * Every end but both peers' own FINs is a reset on both legs.
 */
#ifndef RELAY_PAIR_H
#define RELAY_PAIR_H

#include "flow/flow.h"
#include "net/plane.h"
#include "net/stream.h"

struct pair;
struct worker;

struct pair_limits {
  uint64_t rate_in; /* bytes per second; 0: none */
  uint64_t rate_out;
  uint64_t idle_ms;         /* silence both ways; 0: never */
  uint64_t fin_timeout_ms;  /* silence of the open half; 0: never */
  struct rate_share *share; /* with other pairs, for the pair's whole life;
                               NULL: none */
};

/* What a pair leaves behind. reason: 0 after an orderly end; UV_ECONNRESET
   when a peer reset; UV_ETIMEDOUT; or what relay__pair_close was given. */
typedef void (*pair_end_fn)(struct pair *pair, int reason);

struct pair {
  struct plane *plane;
  struct stream *streams[2]; /* visitor's side, agent's side; echo: [0] only */
  struct flow flows[2];      /* in, out; echo: [0] only */
  unsigned flow_count;       /* that of the streams as well */
  struct pair_limits limits;
  struct deadline deadline;
  uint64_t due_ms;      /* when it expires, on the loop's clock like the rest */
  uint64_t active_ms;   /* the last byte or end was passed on */
  uint64_t young_ms;    /* until then it needs no keepalive; 0: it has it */
  uint64_t deaf_ms;     /* when to look for a peer that vanished; 0: at rest */
  bool held;            /* a reset is held back for the bytes before it */
  size_t held_length;   /* the least that was left of them */
  uint64_t progress_ms; /* when it last became less */
  uint64_t look_ms;
  bool ended;
  int reason;
  pair_end_fn on_end;
  void *owner;
  struct worker *worker; /* it is a crew's, as is its memory; NULL: it is not */
};

/*
 * Joins two connected streams and starts to move bytes. `agent` NULL: an echo.
 * Takes the streams over, also on failure (then they are closed). `on_end` runs
 * once, never from within this call or relay__pair_close; the pair is freed
 * after it returns.
 */
int relay__pair_start(struct pair **out, struct plane *plane,
                      struct stream *visitor, struct stream *agent,
                      const struct pair_limits *limits, pair_end_fn on_end,
                      void *owner);

/* Resets both legs. on_end still runs, later, with `reason` (negative). To let
   go at once, set pair->on_end to NULL before. */
void relay__pair_close(struct pair *pair, int reason);

void relay__pair_limit(struct pair *pair, const struct pair_limits *limits);

/* ---- in two steps, for crew.c ----------------------------------------- */

/* All of it that needs no loop, on zeroed memory. It cannot fail. */
void relay__pair_init(struct pair *pair, struct stream *visitor,
                      struct stream *agent, const struct pair_limits *limits,
                      pair_end_fn on_end, void *owner);
/* Starts to move bytes, on the thread of `plane`, which is that of the streams.
   They are attached there, if they are not; what fails ends the pair. */
void relay__pair_run(struct pair *pair, struct plane *plane);
/* The memory, once it has ended, on the thread of those who own it. */
void relay__pair_free(struct pair *pair);

/* Bytes delivered so far; may be read from another thread. */
uint64_t relay__pair_bytes_in(const struct pair *pair);
uint64_t relay__pair_bytes_out(const struct pair *pair);

/* ---- silence.c, for pair.c -------------------------------------------- */

/* When it is too long by the limits, on the loop's clock; UINT64_MAX: never. */
uint64_t relay__pair_silence_due(const struct pair *pair);
/* Bytes, or an end, were passed on. */
void relay__pair_note_moved(struct pair *pair);
/* Whether a peer that bytes are on their way to is gone. Looks if it is time
   to, and sets deaf_ms to when to look next. */
bool relay__pair_has_vanished(struct pair *pair);

#endif
