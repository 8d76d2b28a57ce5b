/* SPDX-License-Identifier: MIT */
/*
 * Connections to the agent port, until they have said what they are: one line,
 * within one deadline for all of it, not a byte after it taken. There are only
 * so many at a time; the rest wait in the kernel's backlog. There are only so
 * many from one source, too; then the newcomer takes the place of one that is
 * worth less, in this order: one whose fault is known, one that has said
 * nothing, the oldest if it has had half its time. Else it is turned away.
 */
#include <stdlib.h>
#include <string.h>

#include "net/farewell.h"
#include "relay/private.h"

/* Ends an answer that waits, for the room. */
static bool drop_refusal(struct relay *relay) {
  if (link_is_empty(&relay->refusals))
    return false;
  relay__refusal_end(container_of(relay->refusals.next, struct refusal, link));
  return true;
}

bool relay__handshake_admit(struct listener *listener) {
  struct relay *relay = listener->owner;
  const struct descriptors *fds = &relay->plane.fds;

  /* Data connections of admitted visitors have their descriptors reserved,
     so being at the limit with them counted in is no reason to stop. */
  while (fds->used >= fds->limit)
    if (!relay__hold_trim(&relay->plane) && !drop_refusal(relay))
      return false;
  return relay->stats.unproven < relay->options.max_unproven ||
         drop_refusal(relay);
}

void relay__unproven_left(struct relay *relay) {
  relay->stats.unproven--;
  if (relay->listener.paused && relay->open && !relay->closing &&
      !relay->draining)
    relay__listener_resume(&relay->listener);
}

static void on_deadline_closed(struct deadline *deadline) {
  free(container_of(deadline, struct handshake, deadline));
}

static void leave_source(struct handshake *handshake) {
  struct relay *relay = handshake->relay;

  if (handshake->source == NULL)
    return;
  link_remove(&handshake->source_link);
  relay__source_release(&relay->penalties, handshake->source);
  handshake->source = NULL;
  relay__unproven_left(relay);
}

void relay__handshake_prove(struct handshake *handshake) {
  if (handshake->source != NULL)
    relay__source_clear(handshake->source);
  leave_source(handshake);
}

/* The stream goes its own way. */
static struct stream *release(struct handshake *handshake) {
  struct stream *stream = handshake->stream;

  handshake->stream = NULL;
  link_remove(&handshake->link);
  leave_source(handshake);
  relay__deadline_close(&handshake->deadline, on_deadline_closed);
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

/* ---- faults ----------------------------------------------------------- */

/* The time to the answer, as relay__source_fault says. */
static uint64_t note_fault(struct relay *relay, struct source *source,
                           const char *from, const char *what) {
  uint64_t delay = 0;

  relay__complain(relay, from, what);
  if (source != NULL)
    delay =
        relay__source_fault(&relay->penalties, source, relay__now_ms(relay));
  if (delay == PENALTY_REFUSE && !source->told) {
    source->told = true;
    relay__complain(relay, from,
                    "too many faults: it gets no answer for a while");
  }
  return delay;
}

/* Takes over the stream, and a hold of the source if there is a delay. */
static void answer(struct relay *relay, struct stream *stream,
                   struct source *source, uint64_t delay, int error,
                   const char *reason) {
  if (delay == PENALTY_REFUSE) {
    relay->stats.refused_total++;
    relay__source_release(&relay->penalties, source);
    relay__stream_close(stream);
  } else if (delay != 0) {
    relay__refusal_start(relay, source, stream, delay, error, reason);
  } else {
    relay__refuse(relay, stream, error, reason);
  }
}

void relay__handshake_fail(struct handshake *handshake, int error,
                           const char *reason, const char *what) {
  struct relay *relay = handshake->relay;
  struct source *source = handshake->source;
  uint64_t now = relay__now_ms(relay);
  uint64_t left = handshake->due_ms > now ? handshake->due_ms - now : 0;
  uint64_t delay = note_fault(relay, source, handshake->from, what);

  if (delay != PENALTY_REFUSE && (delay > left || handshake->stream->reset))
    delay = handshake->stream->reset ? 0 : left;
  if (delay != 0)
    source->held++;
  answer(relay, release(handshake), source, delay, error, reason);
}

void relay__refuse_stranger(struct relay *relay, struct stream *stream,
                            const char *from, int error, const char *what) {
  char host[ADDRESS_HOST_MAX] = "";
  struct sockaddr_storage address;
  struct source *source = NULL;
  unsigned port = 0;
  uint64_t delay;

  relay__address_split(from, host, sizeof(host), &port);
  if (relay__address_parse_host(host, port, &address) == 0)
    source = relay__source_hold(&relay->penalties,
                                (const struct sockaddr *)&address);
  delay = note_fault(relay, source, from, what);
  answer(relay, stream, source, delay, error, NULL);
  if (delay == 0 && source != NULL)
    relay__source_release(&relay->penalties, source);
}

static void refuse_bad(struct handshake *handshake, int error) {
  const char *what = relay__wire_diagnose(handshake->line, handshake->length);

  relay__handshake_fail(handshake, error, what, what);
}

static void push_out(struct link *link) {
  struct handshake *handshake =
      container_of(link, struct handshake, source_link);

  note_fault(handshake->relay, handshake->source, handshake->from,
             "it gave way to newer ones from its source");
  handshake->relay->stats.refused_total++;
  relay__handshake_end(handshake);
}

/* For one more from a source that has as many as it may. */
static bool make_room(struct relay *relay, struct source *source) {
  struct handshake *oldest =
      container_of(source->speaking.next, struct handshake, source_link);

  if (!link_is_empty(&source->judged))
    relay__refusal_end(
        container_of(source->judged.next, struct refusal, source_link));
  else if (!link_is_empty(&source->silent))
    push_out(source->silent.next);
  else if (!link_is_empty(&source->speaking) &&
           relay__now_ms(relay) + relay->options.handshake_ms / 2 >=
               oldest->due_ms)
    push_out(source->speaking.next);
  else
    return false;
  return true;
}

/* ---- what it is ------------------------------------------------------- */

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
    relay__handshake_fail(handshake, RELAY_EPROTO,
                          "expected LISTEN, ACCEPT or WAIT",
                          "a line that does not open a connection");
  }
}

static void note_speech(struct handshake *handshake) {
  if (handshake->source == NULL)
    return;
  link_remove(&handshake->source_link);
  link_append(&handshake->source->speaking, &handshake->source_link);
}

static void on_event(struct stream *stream, int events) {
  struct handshake *handshake = stream->owner;
  bool was_silent = handshake->length == 0;
  struct wire_message message;
  int status = relay__stream_read_line(
      stream, handshake->line, &handshake->length, sizeof(handshake->line));

  (void)events;
  if (was_silent && handshake->length != 0)
    note_speech(handshake);
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
      note_fault(handshake->relay, handshake->source, handshake->from,
                 "it ended before its first line did");
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

  relay__handshake_fail(
      handshake, RELAY_EHANDSHAKE, NULL,
      handshake->length == 0
          ? "it said nothing in time"
          : relay__wire_diagnose(handshake->line, handshake->length));
}

/* Where it comes from; NULL: it cannot come in, and was told so. */
static struct source *enter_source(struct relay *relay, struct stream *stream,
                                   const struct sockaddr *from) {
  struct source *source = relay__source_hold(&relay->penalties, from);
  char text[ADDRESS_TEXT_MAX];

  if (source != NULL &&
      (source->held <= relay->options.max_unproven_per_source ||
       make_room(relay, source)))
    return source;
  relay__stream_close(stream);
  relay->stats.refused_total++;
  relay__address_text(from, text, sizeof(text));
  relay__complain(relay, text,
                  source == NULL ? relay_strerror(UV_ENOMEM)
                                 : "too many from its source at a time");
  if (source != NULL)
    relay__source_release(&relay->penalties, source);
  return NULL;
}

void relay__handshake_start(struct listener *listener, struct stream *stream,
                            const struct sockaddr *from) {
  struct relay *relay = listener->owner;
  struct source *source = enter_source(relay, stream, from);
  struct handshake *handshake;

  if (source == NULL)
    return;
  handshake = calloc(1, sizeof(*handshake));
  if (handshake == NULL) {
    relay__source_release(&relay->penalties, source);
    relay__stream_close(stream);
    return;
  }
  handshake->relay = relay;
  handshake->source = source;
  handshake->due_ms = relay__now_ms(relay) + relay->options.handshake_ms;
  link_append(&source->silent, &handshake->source_link);
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
