/* SPDX-License-Identifier: MIT */
/*
 * From a visitor that policy let in to the agent that serves it: announced,
 * parked while no agent is there or the one told keeps silent, announced
 * again.
 */
#include <string.h>

#include "relay/private.h"

void relay__visitor_unpark(struct visitor *visitor) {
  if (visitor->phase != VISITOR_PARKED)
    return;
  visitor->phase = VISITOR_SENT;
  visitor->gate->parked_count--;
  visitor->relay->stats.parked--;
}

void relay__visitor_line(struct visitor *visitor, struct wire_line *line) {
  struct sockaddr_storage to;
  socklen_t length = sizeof(to);
  char text[ADDRESS_TEXT_MAX] = "unknown";

  if (*visitor->to != '\0') {
    memcpy(text, visitor->to, sizeof(text));
  } else if (getsockname(visitor->stream->fd, (struct sockaddr *)&to,
                         &length) == 0) {
    relay__address_unmap(&to);
    relay__address_text((struct sockaddr *)&to, text, sizeof(text));
  }
  relay__wire_begin(line, WIRE_VISITOR);
  relay__wire_add(line, "id", visitor->id);
  relay__wire_add(line, "from", visitor->from);
  relay__wire_add(line, "to", text);
}

static void park(struct visitor *visitor) {
  visitor->phase = VISITOR_PARKED;
  visitor->gate->parked_count++;
  visitor->relay->stats.parked++;
  relay__deadline_set(&visitor->deadline, visitor->relay->options.park_ms);
}

static void wait_parked(struct visitor *visitor) {
  if (visitor->phase == VISITOR_PARKED)
    return;
  if (visitor->gate->parked_count >= visitor->relay->options.max_parked)
    relay__visitor_end(visitor, RELAY_EBUSY);
  else
    park(visitor);
}

static void wait_sent(struct visitor *visitor) {
  relay__visitor_unpark(visitor);
  visitor->phase = VISITOR_SENT;
  relay__deadline_set(&visitor->deadline, visitor->relay->options.pairing_ms);
}

/* What an agent was told of it is void from now on. */
static void withdraw_id(struct visitor *visitor) {
  relay__registry_remove(&visitor->relay->registry, &visitor->by_id);
  visitor->agent = 0;
}

/* A fresh id, listed: good for one ACCEPT from this agent. */
static int issue_id(struct visitor *visitor) {
  struct relay *relay = visitor->relay;
  int err;

  withdraw_id(visitor);
  err = relay__id_make(visitor->id);
  if (err == 0)
    err = relay__registry_add(&relay->registry, &visitor->by_id,
                              ENTRY_VISITOR_ID, relay__id_key(visitor->id));
  return err;
}

void relay__visitor_recall(struct visitor *visitor) {
  withdraw_id(visitor);
  if (visitor->phase != VISITOR_PARKED)
    park(visitor);
}

static void announce(struct visitor *visitor, struct lease *lease) {
  struct session *session = lease->session;
  struct stream *data;
  int err = issue_id(visitor);

  if (err != 0) {
    relay__visitor_end(visitor, err);
    return;
  }
  visitor->agent = session->number;
  visitor->lease = lease;
  lease->conns++;
  data = relay__waiting_take(session, visitor);
  if (data != NULL) {
    relay__visitor_join(visitor, data);
  } else if (relay__session_announce(session, visitor) == 0) {
    visitor->sent_lines = session->heard_lines;
    wait_sent(visitor);
  } else {
    /* Not told: as good as away, until it is heard again. */
    relay__visitor_leave(visitor);
    withdraw_id(visitor);
    wait_parked(visitor);
  }
}

void relay__visitor_place(struct visitor *visitor, void *subject) {
  struct lease *lease;

  (void)subject;
  if (!visitor->let_in || visitor->phase == VISITOR_JOINED || visitor->ended ||
      (visitor->phase == VISITOR_PEEKING && visitor->peek_ms != 0))
    return;
  relay__visitor_leave(visitor);
  lease = relay__gate_pick(visitor->gate, visitor->chosen);
  if (lease != NULL) {
    announce(visitor, lease);
  } else {
    withdraw_id(visitor);
    wait_parked(visitor);
  }
}

void relay__visitor_heard(struct visitor *visitor, void *subject) {
  const struct session *session = subject;

  if (visitor->phase != VISITOR_PARKED)
    return;
  if (!visitor->by_id.listed)
    relay__visitor_place(visitor, NULL);
  else if (visitor->agent == session->number)
    wait_sent(visitor);
}

void relay__visitor_late(struct visitor *visitor) {
  struct session *session =
      visitor->lease != NULL ? visitor->lease->session : NULL;

  if (visitor->phase == VISITOR_SENT &&
      (session == NULL || session->heard_lines == visitor->sent_lines))
    wait_parked(visitor);
  else if (visitor->phase != VISITOR_JOINED)
    relay__visitor_end(visitor, UV_ETIMEDOUT);
}
