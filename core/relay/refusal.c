/* SPDX-License-Identifier: MIT */
/*
 * Answers that wait: a fault is told of late, so that faults come slowly. What
 * the peer says meanwhile stays in the kernel. Such a connection is worth
 * nothing to anybody honest, so it is the first to go where room is needed.
 */
#include <stdlib.h>

#include "relay/private.h"

static void on_deadline_closed(struct deadline *deadline) {
  free(container_of(deadline, struct refusal, deadline));
}

/* The stream goes its own way. */
static struct stream *release(struct refusal *refusal) {
  struct relay *relay = refusal->relay;
  struct stream *stream = refusal->stream;

  link_remove(&refusal->link);
  link_remove(&refusal->source_link);
  relay__source_release(&relay->penalties, refusal->source);
  relay__deadline_close(&refusal->deadline, on_deadline_closed);
  relay__unproven_left(relay);
  return stream;
}

void relay__refusal_end(struct refusal *refusal) {
  refusal->relay->stats.refused_total++;
  relay__stream_close(release(refusal));
}

static void on_event(struct stream *stream, int events) {
  (void)events;
  if (stream->reset)
    relay__refusal_end(stream->owner);
}

static void on_deadline(struct deadline *deadline) {
  struct refusal *refusal = container_of(deadline, struct refusal, deadline);
  int error = refusal->error;
  const char *reason = refusal->reason;

  relay__refuse(refusal->relay, release(refusal), error, reason);
}

void relay__refusal_start(struct relay *relay, struct source *source,
                          struct stream *stream, uint64_t ms, int error,
                          const char *reason) {
  struct refusal *refusal = calloc(1, sizeof(*refusal));

  if (refusal == NULL) {
    relay->stats.refused_total++;
    relay__source_release(&relay->penalties, source);
    relay__stream_close(stream);
    return;
  }
  refusal->relay = relay;
  refusal->source = source;
  refusal->stream = stream;
  refusal->error = error;
  refusal->reason = reason;
  relay->stats.unproven++;
  link_append(&relay->refusals, &refusal->link);
  link_append(&source->judged, &refusal->source_link);
  relay__deadline_init(&refusal->deadline, &relay->plane, on_deadline);
  relay__deadline_set(&refusal->deadline, ms);
  relay__stream_own(stream, on_event, refusal);
  if (relay__stream_watch(stream, 0) != 0)
    relay__refusal_end(refusal);
}
