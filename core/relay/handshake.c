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
  struct handshake *handshake =
      container_of(deadline, struct handshake, deadline);

  if (handshake->proof != NULL)
    relay__secret_wipe(handshake->proof->key, sizeof(handshake->proof->key));
  relay__secret_wipe(handshake->line, handshake->length); /* a token, perhaps */
  free(handshake->proof);
  free(handshake);
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

/* Its line is not waited for any more. */
static void leave_listened(struct handshake *handshake) {
  if (handshake->listened)
    link_remove(&handshake->source_link);
  handshake->listened = false;
}

/* Out of the count of those that have proven a key. */
static void leave_proven(struct handshake *handshake) {
  if (!handshake->proven)
    return;
  handshake->proven = false;
  handshake->relay->proven_count--;
  leave_listened(handshake);
}

/* Takes it out of sight. The stream goes its own way. */
static struct stream *withdraw(struct handshake *handshake) {
  struct stream *stream = handshake->stream;

  handshake->ended = true;
  handshake->stream = NULL;
  link_remove(&handshake->link);
  leave_source(handshake);
  leave_proven(handshake);
  relay__deadline_close(&handshake->deadline, on_deadline_closed);
  return stream;
}

struct stream *relay__handshake_release(struct handshake *handshake) {
  struct stream *stream = withdraw(handshake);

  if (handshake->proof != NULL)
    relay__proof_end(handshake->proof);
  return stream;
}

void relay__handshake_end(struct handshake *handshake) {
  if (!handshake->ended)
    relay__stream_close(relay__handshake_release(handshake));
}

static void end_proven(struct handshake *handshake) {
  relay__complain(handshake->relay, handshake->from,
                  "too many proved a key and said nothing");
  handshake->relay->stats.refused_total++;
  relay__handshake_end(handshake);
}

void relay__handshake_prove(struct handshake *handshake) {
  struct relay *relay = handshake->relay;

  if (handshake->proven) /* by its certificate, and now its token is, too */
    return;
  if (handshake->source != NULL)
    relay__source_clear(handshake->source);
  leave_source(handshake);
  handshake->proven = true;
  relay->proven_count++;
  if (relay->proven_count <= relay->options.max_unproven)
    return;
  end_proven(
      link_is_empty(&relay->proven)
          ? handshake
          : container_of(relay->proven.next, struct handshake, source_link));
}

static void refuse_bad(struct handshake *handshake, int error) {
  const char *what = relay__wire_diagnose(handshake->line, handshake->length);

  relay__handshake_fail(handshake, error, what, what);
}

/* For a newer one, which is no fault. It may be asked about: then a hook is
   told that it is gone. */
static void push_out(struct link *link) {
  struct handshake *handshake =
      container_of(link, struct handshake, source_link);

  relay__complain(handshake->relay, handshake->from,
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

/* What it has proven goes with it. */
static void start_session(struct handshake *handshake,
                          const struct wire_message *message) {
  if (handshake->proof != NULL)
    relay__proof_leave(handshake->proof);
  relay__session_start(handshake->relay, withdraw(handshake), message,
                       handshake->from, handshake->proof);
}

static void take_listen(struct handshake *handshake,
                        const struct wire_message *message) {
  if (handshake->proof == NULL && handshake->relay->options.tls_cert != NULL)
    relay__handshake_fail(handshake, RELAY_EDENIED, "it takes TLS only",
                          "LISTEN without TLS");
  else if (handshake->proof == NULL ||
           !relay__claim_takes(handshake->proof, message))
    start_session(handshake, message);
}

void relay__handshake_reject(struct handshake *handshake, const char *what) {
  relay__fault_note(handshake->relay, handshake->source, handshake->from, what);
  handshake->relay->stats.refused_total++;
  relay__handshake_end(handshake);
}

static void dispatch(struct handshake *handshake,
                     const struct wire_message *message) {
  struct relay *relay = handshake->relay;
  const char *fault = relay__data_fault(relay, handshake->stream, message);
  char from[ADDRESS_TEXT_MAX];

  memcpy(from, handshake->from, sizeof(from));
  if (handshake->stream->reset && message->verb != WIRE_ACCEPT) {
    relay__handshake_end(handshake); /* gone; but bytes of data are delivered */
    return;
  }
  if (handshake->proof != NULL &&
      !relay__claim_fits(handshake->proof, message)) {
    relay__handshake_fail(handshake, RELAY_EPROTO,
                          "not what the key was proven for",
                          "a line that is not what its key is for");
    return;
  }
  switch (message->verb) {
  case WIRE_LISTEN:
    take_listen(handshake, message);
    break;
  case WIRE_ACCEPT:
    if (fault != NULL)
      relay__handshake_reject(handshake, fault);
    else
      relay__data_join(relay, relay__handshake_release(handshake), message,
                       from);
    break;
  case WIRE_WAIT:
    if (fault != NULL)
      relay__handshake_reject(handshake, fault);
    else
      relay__waiting_start(relay, relay__handshake_release(handshake), message,
                           from);
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

  (void)events;
  switch (relay__proof_look(handshake)) {
  case PROOF_UNSEEN:
    break;
  case PROOF_BEGUN:
    note_speech(handshake);
    break;
  case PROOF_THERE:
    note_speech(handshake);
    relay__proof_start(handshake);
    break;
  case PROOF_NONE:
    relay__handshake_listen(handshake);
  }
}

/* The line may hold a token. */
void relay__handshake_go_on(struct handshake *handshake) {
  struct wire_message message;
  int status = relay__wire_parse(&message, handshake->line, handshake->length);

  leave_listened(handshake);
  if (status > 0)
    dispatch(handshake, &message);
  else
    refuse_bad(handshake, status < 0 ? status : RELAY_EPROTO);
  relay__secret_wipe(&message, sizeof(message));
}

static void on_line_event(struct stream *stream, int events) {
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
      relay__fault_note(handshake->relay, handshake->source, handshake->from,
                        "it ended before its first line did");
    relay__handshake_end(handshake);
  } else {
    relay__handshake_go_on(handshake);
  }
}

void relay__handshake_listen(struct handshake *handshake) {
  if (handshake->proven && !handshake->listened) {
    handshake->listened = true;
    link_append(&handshake->relay->proven, &handshake->source_link);
  }
  relay__stream_own(handshake->stream, on_line_event, handshake);
  if (relay__stream_watch(handshake->stream, UV_READABLE) != 0)
    relay__handshake_end(handshake);
  else
    on_line_event(handshake->stream, 0);
}

/* After a stall of this process all of it may be there, unread. */
static bool has_come(struct handshake *handshake) {
  handshake->stream->on_event(handshake->stream, UV_READABLE);
  return handshake->ended || relay__deadline_is_set(&handshake->deadline);
}

static void on_deadline(struct deadline *deadline) {
  struct handshake *handshake =
      container_of(deadline, struct handshake, deadline);
  struct proof *proof = handshake->proof;
  const char *what = "it said nothing in time";

  if (proof != NULL && proof->due) {
    relay__proof_due(proof);
    return;
  }
  if (proof != NULL && proof->question.entry.listed &&
      (proof->proven || !proof->settled)) {
    relay__proof_late(handshake);
    return;
  }
  if (has_come(handshake))
    return;
  proof = handshake->proof;
  if (proof != NULL && handshake->stream->tls->phase != TLS_OPEN)
    what = "its TLS handshake did not end in time";
  else if (handshake->length != 0)
    what = relay__wire_diagnose(handshake->line, handshake->length);
  if (relay__claim_is_data(handshake))
    relay__handshake_reject(handshake, what);
  else
    relay__handshake_fail(handshake, RELAY_EHANDSHAKE, NULL, what);
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

void relay__handshake_start(struct relay *relay, struct stream *stream,
                            const struct sockaddr *from) {
  struct source *source = enter_source(relay, stream, from);
  struct handshake *handshake;

  if (source == NULL)
    return;
  /* A hook may have closed the relay, to make room for it. */
  handshake =
      relay->closing || relay->draining ? NULL : calloc(1, sizeof(*handshake));
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
