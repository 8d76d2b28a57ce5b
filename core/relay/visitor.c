/* SPDX-License-Identifier: MIT */
/*
 * Visitors, from accept to the end of their pair. The phases are drawn in
 * private.h. Nothing is read from a visitor before it is joined, so what
 * it says early waits in the kernel, and its FIN too: only a reset means that
 * it has left.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

/* ---- the end ---------------------------------------------------------- */

static void on_deadline_closed(struct deadline *deadline) {
  struct visitor *visitor = container_of(deadline, struct visitor, deadline);

  free(visitor->why);
  free(visitor);
}

#define TAGS_LOGGED 8

static void log_end(const struct visitor *visitor) {
  const char *reason = visitor->why != NULL ? visitor->why
                       : visitor->reason == 0
                           ? "ended"
                           : relay_error_name(visitor->reason);
  uint64_t ms = relay__now_ms(visitor->relay) - visitor->started_ms;
  relay_log_field fields[7 + TAGS_LOGGED] = {
      LOG_NUMBER("conn", visitor->number),
      LOG_TEXT("from", visitor->from),
      LOG_NUMBER("port", visitor->listen_port),
      LOG_NUMBER("bytes_in", visitor->bytes_in),
      LOG_NUMBER("bytes_out", visitor->bytes_out),
      LOG_NUMBER("duration_ms", ms),
      LOG_TEXT("reason", reason),
  };
  const struct tag *tag = visitor->tags;
  size_t count = 7;

  for (; tag != NULL && count < 7 + TAGS_LOGGED; tag = tag->next)
    fields[count++] = LOG_TEXT(tag->key, tag->value);
  relay__log_fields(&visitor->relay->logger, RELAY_LOG_INFO, "visitor closed",
                    fields, count);
}

static void unreserve(struct visitor *visitor) {
  if (!visitor->reserved)
    return;
  visitor->reserved = false;
  relay__plane_unreserve_descriptor(&visitor->relay->plane);
}

/* Its agent was told of it and is there: it need not wait for it any more. Of a
   joined one the data connection tells. */
static void tell_agent(struct visitor *visitor) {
  struct session *session =
      visitor->lease != NULL ? visitor->lease->session : NULL;

  if (visitor->by_id.listed && visitor->phase != VISITOR_JOINED &&
      session != NULL && session->number == visitor->agent)
    relay__session_gone(session, visitor->id, visitor->reason);
}

void relay__visitor_leave(struct visitor *visitor) {
  struct lease *lease = visitor->lease;

  if (lease == NULL)
    return;
  visitor->lease = NULL;
  lease->conns--;
}

static void leave_gate(struct visitor *visitor) {
  link_remove(&visitor->gate_link);
  if (visitor->gate != NULL)
    visitor->gate->visitor_count--;
}

static void free_tags(struct visitor *visitor) {
  while (visitor->tags != NULL) {
    struct tag *tag = visitor->tags;

    visitor->tags = tag->next;
    free(tag);
  }
}

static void take_counts(struct visitor *visitor) {
  struct relay *relay = visitor->relay;

  if (visitor->pair == NULL)
    return;
  visitor->bytes_in = relay__pair_bytes_in(visitor->pair);
  visitor->bytes_out = relay__pair_bytes_out(visitor->pair);
  relay->stats.bytes_in += visitor->bytes_in;
  relay->stats.bytes_out += visitor->bytes_out;
  relay->stats.pairs--;
  relay__crew_drop(visitor->pair, visitor->reason);
  visitor->pair = NULL;
}

void relay__visitor_end(struct visitor *visitor, int reason) {
  struct relay *relay = visitor->relay;

  if (visitor->ended)
    return;
  visitor->ended = true;
  visitor->reason = reason;
  relay__visitor_unpark(visitor);
  tell_agent(visitor);
  relay__registry_remove(&relay->registry, &visitor->by_id);
  relay__registry_remove(&relay->registry, &visitor->by_number);
  link_remove(&visitor->link);
  relay__visitor_leave(visitor);
  leave_gate(visitor);
  relay__stream_close(visitor->stream);
  visitor->stream = NULL;
  take_counts(visitor);
  unreserve(visitor);
  relay->stats.visitors--;
  /* Hooks come last: they may end everything else, and must not meet it. */
  relay__question_drop(relay, &visitor->question);
  if (visitor->let_in)
    relay__tell_close(visitor);
  else
    relay->stats.refused_total++;
  log_end(visitor);
  free_tags(visitor);
  relay__deadline_close(&visitor->deadline, on_deadline_closed);
  relay__check_drained(relay);
}

static void on_pair_end(struct pair *pair, int reason) {
  relay__visitor_end(pair->owner, reason);
}

/* ---- joined ----------------------------------------------------------- */

void relay__visitor_join(struct visitor *visitor, struct stream *data) {
  struct relay *relay = visitor->relay;
  struct stream *stream = visitor->stream;
  int err;

  relay__visitor_unpark(visitor);
  relay__deadline_clear(&visitor->deadline);
  unreserve(visitor);
  visitor->stream = NULL;
  if (visitor->lease != NULL)
    visitor->limits.share = visitor->lease->share;
  err = relay__crew_start(&visitor->pair, &relay->crew, stream, data,
                          &visitor->limits, on_pair_end, visitor);
  if (err != 0) {
    visitor->pair = NULL;
    relay__visitor_end(visitor, err);
    return;
  }
  visitor->phase = VISITOR_JOINED;
  relay->stats.pairs++;
  relay__log(&relay->logger, RELAY_LOG_DEBUG, "visitor joined",
             LOG_NUMBER("conn", visitor->number),
             LOG_NUMBER("agent", visitor->agent));
  relay__tell_open(visitor);
}

/* ---- coming in -------------------------------------------------------- */

static void on_verdict(struct visitor *visitor, const relay_verdict *verdict) {
  if (verdict->answer != RELAY_ALLOW && verdict->answer != RELAY_PICK) {
    relay__log(&visitor->relay->logger, RELAY_LOG_INFO, "visitor denied",
               LOG_NUMBER("conn", visitor->number),
               LOG_TEXT("from", visitor->from),
               LOG_TEXT("reason", verdict->reason != NULL ? verdict->reason
                                                          : "by policy"));
    relay__visitor_end(visitor, RELAY_EDENIED);
    return;
  }
  visitor->let_in = true;
  visitor->chosen = verdict->answer == RELAY_PICK ? verdict->agent : 0;
  if (visitor->peek_ms != 0)
    relay__peek_start(visitor);
  else
    relay__visitor_place(visitor, NULL);
}

void relay__visitor_decide(struct visitor *visitor,
                           const relay_verdict *verdict) {
  relay__deadline_clear(&visitor->deadline);
  if (visitor->phase == VISITOR_PEEKING)
    relay__peek_decide(visitor, verdict);
  else
    on_verdict(visitor, verdict);
}

static void on_early_event(struct stream *stream, int events) {
  struct visitor *visitor = stream->owner;

  if (stream->reset)
    relay__visitor_end(visitor, stream->error);
  else if (visitor->phase == VISITOR_PEEKING && (events & UV_READABLE) != 0)
    relay__peek_event(visitor);
}

static void on_deadline(struct deadline *deadline) {
  struct visitor *visitor = container_of(deadline, struct visitor, deadline);

  if (visitor->phase == VISITOR_PEEKING && !visitor->question.entry.listed)
    relay__peek_late(visitor);
  else if (visitor->phase <= VISITOR_PEEKING)
    relay__visitor_end(visitor, RELAY_EHOOK);
  else
    relay__visitor_late(visitor);
}

static void set_up(struct visitor *visitor, struct gate *gate,
                   const struct sockaddr *from) {
  struct relay *relay = gate->relay;
  const relay_options *options = &relay->options;

  visitor->relay = relay;
  visitor->gate = gate;
  visitor->phase = VISITOR_ASKED;
  visitor->number = ++relay->next_id;
  visitor->started_ms = relay__now_ms(relay);
  visitor->listen_port = gate->port;
  visitor->from_port = relay__address_port(from);
  visitor->limits = (struct pair_limits){
      .rate_in = options->rate_in,
      .rate_out = options->rate_out,
      .idle_ms = options->idle_ms,
      .fin_timeout_ms = options->fin_timeout_ms,
  };
  relay__address_text(from, visitor->from, sizeof(visitor->from));
  relay__address_host(from, visitor->from_host, sizeof(visitor->from_host));
  relay__deadline_init(&visitor->deadline, &relay->plane, on_deadline);
  link_append(&relay->visitors, &visitor->link);
  link_append(&gate->visitors, &visitor->gate_link);
  gate->visitor_count++;
  relay->stats.visitors++;
  relay->stats.visitors_total++;
  visitor->reserved = true;
  relay__plane_reserve_descriptor(&relay->plane);
}

static void turn_away(struct gate *gate, struct stream *stream,
                      const struct sockaddr *from, const char *reason) {
  char text[ADDRESS_TEXT_MAX];

  relay__stream_close(stream);
  gate->relay->stats.refused_total++;
  relay__address_text(from, text, sizeof(text));
  relay__log(&gate->relay->logger, RELAY_LOG_WARN, "visitor turned away",
             LOG_TEXT("from", text), LOG_NUMBER("port", gate->port),
             LOG_TEXT("reason", reason));
}

void relay__visitor_start(struct gate *gate, struct stream *stream,
                          const struct sockaddr *from,
                          const struct sockaddr *to) {
  struct relay *relay = gate->relay;
  struct visitor *visitor;
  struct verdict verdict;
  int err;

  if (gate->visitor_count >= relay__gate_capacity(gate)) {
    turn_away(gate, stream, from, "too many visitors");
    return;
  }
  visitor = calloc(1, sizeof(*visitor));
  if (visitor == NULL) {
    turn_away(gate, stream, from, relay_strerror(UV_ENOMEM));
    return;
  }
  set_up(visitor, gate, from);
  if (to != NULL)
    relay__address_text(to, visitor->to, sizeof(visitor->to));
  visitor->stream = stream;
  relay__stream_own(stream, on_early_event, visitor);
  err = relay__registry_add(&relay->registry, &visitor->by_number, ENTRY_CONN,
                            visitor->number);
  if (err == 0)
    err = relay__stream_watch(stream, 0);
  if (err != 0)
    relay__visitor_end(visitor, err);
  else if (relay__ask_visitor(visitor, &verdict))
    on_verdict(visitor, &verdict.given);
  else if (!visitor->ended)
    relay__deadline_set(&visitor->deadline, relay->options.hook_visitor_ms);
}

/* ---- seen from outside ------------------------------------------------ */

struct visitor *relay__visitor_find(struct relay *relay, const char *id) {
  struct entry *entry = relay__registry_find(&relay->registry, ENTRY_VISITOR_ID,
                                             relay__id_key(id));
  struct visitor *visitor =
      entry != NULL ? container_of(entry, struct visitor, by_id) : NULL;

  return visitor != NULL && relay__id_equals(visitor->id, id) ? visitor : NULL;
}

void relay__visitor_info(const struct visitor *visitor, relay_conn_info *info) {
  memset(info, 0, sizeof(*info));
  info->size = sizeof(*info);
  info->id = visitor->number;
  info->agent = visitor->agent;
  info->addr = visitor->from_host;
  info->port = visitor->from_port;
  info->listen_port = visitor->listen_port;
  info->bytes_in = visitor->pair != NULL ? relay__pair_bytes_in(visitor->pair)
                                         : visitor->bytes_in;
  info->bytes_out = visitor->pair != NULL ? relay__pair_bytes_out(visitor->pair)
                                          : visitor->bytes_out;
  info->duration_ms = relay__now_ms(visitor->relay) - visitor->started_ms;
  info->reason = visitor->reason;
  info->why = visitor->why;
}
