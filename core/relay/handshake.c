/* SPDX-License-Identifier: MIT */
/*
 * Connections to the agent port, until they have said what they are: one line,
 * within one deadline for all of it, not a byte after it taken. There are only
 * so many at a time; the rest wait in the kernel's backlog.
 */
#include <stdlib.h>
#include <string.h>

#include "net/farewell.h"
#include "relay/private.h"

bool relay__handshake_admit(struct listener *listener) {
  struct relay *relay = listener->owner;
  const struct descriptors *fds = &relay->plane.fds;

  /* Data connections of admitted visitors have their descriptors reserved,
     so being at the limit with them counted in is no reason to stop. */
  while (fds->used >= fds->limit)
    if (!relay__hold_trim(&relay->plane))
      return false;
  return relay->stats.unproven < relay->options.max_unproven;
}

static void on_deadline_closed(struct deadline *deadline) {
  free(container_of(deadline, struct handshake, deadline));
}

/* The stream goes its own way. */
static struct stream *release(struct handshake *handshake) {
  struct relay *relay = handshake->relay;
  struct stream *stream = handshake->stream;

  handshake->stream = NULL;
  link_remove(&handshake->link);
  relay->stats.unproven--;
  relay__deadline_close(&handshake->deadline, on_deadline_closed);
  if (relay->listener.paused && relay->open && !relay->closing &&
      !relay->draining)
    relay__listener_resume(&relay->listener);
  return stream;
}

void relay__handshake_end(struct handshake *handshake) {
  relay__stream_close(release(handshake));
}

void relay__refuse(struct relay *relay, struct stream *stream, int error,
                   const char *reason) {
  bool final = error == RELAY_EPROTO || error == RELAY_EVERSION ||
               error == RELAY_EDENIED || error == RELAY_EPORT_REFUSED;
  struct wire_line line;

  relay->stats.refused_total++;
  relay__wire_begin(&line, WIRE_ERR);
  relay__wire_add(&line, "code", relay_error_name(error));
  relay__wire_add(&line, "final", final ? "yes" : "no");
  if (!final)
    relay__wire_add_number(&line, "retry", 1);
  relay__wire_add_text(&line, "reason",
                       reason != NULL ? reason : relay_strerror(error));
  if (relay__wire_end(&line) == 0)
    relay__stream_send(stream, line.text, line.length);
  if (stream->reset)
    relay__stream_close(stream);
  else
    relay__farewell(stream);
}

static void log_bad(struct handshake *handshake, const char *what) {
  relay__log(&handshake->relay->logger, RELAY_LOG_WARN, "connection refused",
             LOG_TEXT("from", handshake->from), LOG_TEXT("reason", what));
}

static void refuse_bad(struct handshake *handshake, int error) {
  const char *what = relay__wire_diagnose(handshake->line, handshake->length);

  log_bad(handshake, what);
  relay__refuse(handshake->relay, release(handshake), error, what);
}

static void join_visitor(struct relay *relay, struct stream *stream,
                         const struct wire_message *accept, const char *from) {
  const char *id = relay__wire_get(accept, "id");
  const char *session_id = relay__wire_get(accept, "session");
  struct session *session =
      session_id != NULL ? relay__session_find(relay, session_id) : NULL;
  struct visitor *visitor = id != NULL ? relay__visitor_find(relay, id) : NULL;

  bool is_joined = visitor != NULL && visitor->phase == VISITOR_JOINED;

  if (session != NULL && visitor != NULL && !is_joined &&
      visitor->agent == session->number) {
    relay__visitor_join(visitor, stream);
    return;
  }
  relay__stream_close(stream);
  /* An id used twice: the pair it aims at stays as it is. */
  if (session != NULL && id != NULL && !is_joined)
    relay__session_gone(session, id, RELAY_EGONE);
  relay__log(&relay->logger, RELAY_LOG_INFO, "data connection refused",
             LOG_TEXT("from", from),
             LOG_TEXT("reason",
                      session == NULL ? "no such session" : "no such visitor"));
}

static void dispatch(struct handshake *handshake,
                     const struct wire_message *message) {
  struct relay *relay = handshake->relay;
  char from[ADDRESS_TEXT_MAX];

  memcpy(from, handshake->from, sizeof(from));
  if (handshake->stream->reset && message->verb != WIRE_ACCEPT) {
    relay__handshake_end(handshake); /* gone; but bytes of data are delivered */
    return;
  }
  switch (message->verb) {
  case WIRE_LISTEN:
    relay__session_start(relay, release(handshake), message, from, NULL);
    break;
  case WIRE_ACCEPT:
    join_visitor(relay, release(handshake), message, from);
    break;
  case WIRE_WAIT:
    relay__waiting_start(relay, release(handshake), message, from);
    break;
  default:
    log_bad(handshake, "a line that does not open a connection");
    relay__refuse(relay, release(handshake), RELAY_EPROTO,
                  "expected LISTEN, ACCEPT or WAIT");
  }
}

static void on_event(struct stream *stream, int events) {
  struct handshake *handshake = stream->owner;
  struct wire_message message;
  int status = relay__stream_read_line(
      stream, handshake->line, &handshake->length, sizeof(handshake->line));

  (void)events;
  if (status == 0) {
    /* What can become no line, whatever follows, is not waited for. */
    status = relay__wire_parse(&message, handshake->line, handshake->length);
    if (status < 0)
      refuse_bad(handshake, status);
  } else if (status == UV_EMSGSIZE) {
    refuse_bad(handshake, RELAY_EPROTO);
  } else if (status < 0) {
    /* A connection that comes and goes is a port check, not a fault. */
    if (handshake->length != 0)
      log_bad(handshake, "it ended before its first line did");
    relay__handshake_end(handshake);
  } else {
    status = relay__wire_parse(&message, handshake->line, handshake->length);
    if (status > 0)
      dispatch(handshake, &message);
    else
      refuse_bad(handshake, status < 0 ? status : RELAY_EPROTO);
  }
}

static void on_deadline(struct deadline *deadline) {
  struct handshake *handshake =
      container_of(deadline, struct handshake, deadline);

  log_bad(handshake,
          handshake->length == 0
              ? "it said nothing in time"
              : relay__wire_diagnose(handshake->line, handshake->length));
  relay__refuse(handshake->relay, release(handshake), RELAY_EHANDSHAKE, NULL);
}

void relay__handshake_start(struct listener *listener, struct stream *stream,
                            const struct sockaddr *from) {
  struct relay *relay = listener->owner;
  struct handshake *handshake = calloc(1, sizeof(*handshake));

  if (handshake == NULL) {
    relay__stream_close(stream);
    return;
  }
  handshake->relay = relay;
  handshake->stream = stream;
  relay__address_text(from, handshake->from, sizeof(handshake->from));
  link_append(&relay->handshakes, &handshake->link);
  relay->stats.unproven++;
  relay__deadline_init(&handshake->deadline, &relay->plane, on_deadline);
  relay__deadline_set(&handshake->deadline, relay->options.handshake_ms);
  relay__stream_own(stream, on_event, handshake);
  if (relay__stream_watch(stream, UV_READABLE) != 0)
    relay__handshake_end(handshake);
}
