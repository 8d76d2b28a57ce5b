/* SPDX-License-Identifier: MIT */
/*
 * A flow moves bytes one way, from a source stream to a sink stream, which may
 * be the same (an echo). Its phases:
 *
 *   OPEN ──end of source──► DRAINING ──hold empty──► SHUT      (FIN passed on)
 *     │ └─────reset of source──► LOST ──hold empty──► CUT      (no FIN, ever)
 *     └──sink is dead──► CUT
 */
#ifndef RELAY_FLOW_H
#define RELAY_FLOW_H

#include <stdatomic.h>

#include "flow/rate.h"
#include "net/stream.h"

enum flow_phase { FLOW_OPEN, FLOW_DRAINING, FLOW_SHUT, FLOW_LOST, FLOW_CUT };

struct flow {
  struct stream *source;
  struct stream *sink;
  struct hold *hold; /* borrowed while it holds bytes */
  enum flow_phase phase;
  bool blocked;     /* the sink took less than there was */
  bool wide;        /* there is much to read: it is spliced */
  bool bulk;        /* the last read was so large that a larger one may pay */
  bool copying;     /* these streams do not splice */
  int error;        /* out of memory, say: the pair must end */
  unsigned segment; /* bytes in one of the sink's; known once there is bulk */
  struct rate_limit rate;
  struct rate_limit *shared_rate; /* with other flows, or NULL */
  _Atomic uint64_t bytes;         /* taken by the sink's socket */
};

void relay__flow_init(struct flow *flow, struct stream *source,
                      struct stream *sink);
/* Moves what can be moved now, up to the fairness budget. Returns the bytes
   the sink took. `readable`: the source was just reported so; then an empty
   splice is looked into (an urgent byte stops splice, but not poll). */
size_t relay__flow_pump(struct flow *flow, bool readable);
/* The events this flow waits for, on its source and on its sink. */
int relay__flow_source_events(const struct flow *flow);
int relay__flow_sink_events(const struct flow *flow);
/* Nothing more will move. */
bool relay__flow_done(const struct flow *flow);
/* Milliseconds until the rate limit lets bytes through; 0: it does now, or
   something else is being waited for. */
uint64_t relay__flow_wait_ms(const struct flow *flow);
void relay__flow_set_rate(struct flow *flow, uint64_t rate);
/* Gives the hold back. */
void relay__flow_close(struct flow *flow);

#endif
