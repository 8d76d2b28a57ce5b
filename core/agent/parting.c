/* SPDX-License-Identifier: MIT */
/*
 * Data connections of rejected visitors. REJECT goes on the control connection,
 * and a reset of the data connection could be there first: the relay would then
 * hear of a reset, not of the reason. So the relay, which closes it when it
 * reads the line, is waited for.
 */
#include <stdlib.h>

#include "agent/private.h"

/* Far more than a line and a reset take, but not for ever. */
#define PARTING_MS 5000

struct parting {
  struct link link; /* of the agent */
  struct stream *stream;
  struct deadline deadline; /* its closing frees this */
};

static void on_parting_closed(struct deadline *deadline) {
  free(container_of(deadline, struct parting, deadline));
}

static void end(struct parting *parting) {
  link_remove(&parting->link);
  relay__stream_close(parting->stream);
  relay__deadline_close(&parting->deadline, on_parting_closed);
}

static void on_parting_event(struct stream *stream, int events) {
  (void)events; /* it is watched for its end alone */
  end(stream->owner);
}

static void on_deadline(struct deadline *deadline) {
  end(container_of(deadline, struct parting, deadline));
}

void relay__parting_begin(struct relay_agent *agent, struct stream *stream) {
  struct parting *parting = NULL;

  if (stream != NULL && !stream->reset && agent->session.phase == SESSION_OPEN)
    parting = calloc(1, sizeof(*parting));
  if (parting == NULL) {
    relay__stream_close(stream);
    return;
  }
  parting->stream = stream;
  link_append(&agent->partings, &parting->link);
  relay__deadline_init(&parting->deadline, &agent->plane, on_deadline);
  relay__deadline_set(&parting->deadline, PARTING_MS);
  relay__stream_own(stream, on_parting_event, parting);
  if (relay__stream_watch(stream, 0) != 0)
    end(parting);
}

void relay__parting_end_all(struct relay_agent *agent) {
  while (!link_is_empty(&agent->partings))
    end(container_of(agent->partings.next, struct parting, link));
}
