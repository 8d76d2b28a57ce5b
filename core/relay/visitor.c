/* SPDX-License-Identifier: MIT */
/*
 * Visitors, from accept to the end of their pair. The phases are drawn in
 * relay_private.h. Nothing is read from a visitor before it is joined, so what
 * it says early waits in the kernel, and its FIN too: only a reset means that
 * it has left.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

/* ---- the end ---------------------------------------------------------- */

static void on_deadline_closed(struct deadline *deadline) {
  free(container_of(deadline, struct visitor, deadline));
}

static void log_end(const struct visitor *visitor) {
  relay__log(&visitor->relay->logger, RELAY_LOG_INFO, "visitor closed",
             LOG_NUMBER("conn", visitor->number),
             LOG_TEXT("from", visitor->from),
             LOG_NUMBER("port", visitor->listen_port),
             LOG_NUMBER("bytes_in", visitor->bytes_in),
             LOG_NUMBER("bytes_out", visitor->bytes_out),
             LOG_NUMBER("ms", relay__now_ms(visitor->relay) -
                                  visitor->started_ms),
             LOG_TEXT("reason", visitor->reason == 0
                                    ? "ended"
                                    : relay_error_name(visitor->reason)));
}

static void unreserve(struct visitor *visitor) {
  if (!visitor->reserved)
    return;
  visitor->reserved = false;
  visitor->relay->plane.fds.reserved--;
}

static void unpark(struct visitor *visitor) {
  if (visitor->phase != VISITOR_PARKED)
    return;
  visitor->phase = VISITOR_SENT;
  visitor->lease->parked_count--;
  visitor->relay->stats.parked--;
}

/* Its agent was told of it and is there: it need not wait for it any more. Of a
   joined one the data connection tells. */
static void tell_agent(struct visitor *visitor) {
  struct session *session =
      visitor->lease != NULL ? visitor->lease->session : NULL;

  if (visitor->by_id.listed && visitor->phase != VISITOR_JOINED && session != NULL &&
      session->number == visitor->agent)
    relay__session_gone(session, visitor->id, visitor->reason);
}

static void leave_lease(struct visitor *visitor) {
  link_remove(&visitor->lease_link);
  if (visitor->lease != NULL)
    visitor->lease->visitor_count--;
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
  visitor->pair->on_end = NULL;
  relay__pair_close(visitor->pair, visitor->reason);
  visitor->pair = NULL;
}

void relay__visitor_end(struct visitor *visitor, int reason) {
  struct relay *relay = visitor->relay;

  if (visitor->ended)
    return;
  visitor->ended = true;
  visitor->reason = reason;
  relay__question_drop(relay, &visitor->question);
  unpark(visitor);
  tell_agent(visitor);
  relay__registry_remove(&relay->registry, &visitor->by_id);
  relay__registry_remove(&relay->registry, &visitor->by_number);
  link_remove(&visitor->link);
  leave_lease(visitor);
  relay__stream_close(visitor->stream);
  visitor->stream = NULL;
  take_counts(visitor);
  unreserve(visitor);
  relay->stats.visitors--;
  if (visitor->let_in)
    relay__tell_close(visitor);
  else
    relay->stats.refused_total++;
  log_end(visitor);
  relay__deadline_close(&visitor->deadline, on_deadline_closed);
  relay__check_drained(relay);
}

static void on_pair_end(struct pair *pair, int reason) {
  relay__visitor_end(pair->owner, reason);
}

/* ---- waiting for its agent -------------------------------------------- */

static void on_early_event(struct stream *stream, int events) {
  (void)events;
  if (stream->reset)
    relay__visitor_end(stream->owner, stream->error);
}

void relay__visitor_line(struct visitor *visitor, struct wire_line *line) {
  struct sockaddr_storage to;
  socklen_t length = sizeof(to);
  char text[ADDRESS_TEXT_MAX] = "unknown";

  if (getsockname(visitor->stream->fd, (struct sockaddr *)&to, &length) == 0) {
    relay__address_unmap(&to);
    relay__address_text((struct sockaddr *)&to, text, sizeof(text));
  }
  relay__wire_begin(line, WIRE_VISITOR);
  relay__wire_add(line, "id", visitor->id);
  relay__wire_add(line, "from", visitor->from);
  relay__wire_add(line, "to", text);
}

static void wait_parked(struct visitor *visitor) {
  struct lease *lease = visitor->lease;
  const relay_options *options = &visitor->relay->options;

  if (visitor->phase == VISITOR_PARKED)
    return;
  if (lease->parked_count >= options->max_parked) {
    relay__visitor_end(visitor, RELAY_EBUSY);
    return;
  }
  visitor->phase = VISITOR_PARKED;
  lease->parked_count++;
  visitor->relay->stats.parked++;
  relay__deadline_set(&visitor->deadline, options->park_ms);
}

void relay__visitor_park(struct visitor *visitor) {
  if (visitor->phase != VISITOR_SENT && visitor->phase != VISITOR_PARKED)
    return;
  /* What the lost session was told is void. */
  relay__registry_remove(&visitor->relay->registry, &visitor->by_id);
  visitor->agent = 0;
  wait_parked(visitor);
}

static void wait_sent(struct visitor *visitor, const struct session *session) {
  unpark(visitor);
  visitor->phase = VISITOR_SENT;
  visitor->sent_lines = session->heard_lines;
  relay__deadline_set(&visitor->deadline, visitor->relay->options.pairing_ms);
}

void relay__visitor_heard(struct visitor *visitor) {
  const struct session *session = visitor->lease->session;

  if (visitor->phase != VISITOR_PARKED || session == NULL)
    return;
  if (visitor->by_id.listed)
    wait_sent(visitor, session);
  else
    relay__visitor_place(visitor); /* its queue was full */
}

/* A fresh id, listed: good for one ACCEPT from this agent. */
static int issue_id(struct visitor *visitor) {
  struct relay *relay = visitor->relay;
  int err;

  relay__registry_remove(&relay->registry, &visitor->by_id);
  err = relay__id_make(visitor->id);
  if (err == 0)
    err = relay__registry_add(&relay->registry, &visitor->by_id,
                              ENTRY_VISITOR_ID, relay__id_key(visitor->id));
  return err;
}

static void announce(struct visitor *visitor, struct session *session) {
  struct stream *data;
  int err = issue_id(visitor);

  if (err != 0) {
    relay__visitor_end(visitor, err);
    return;
  }
  visitor->agent = session->number;
  data = relay__waiting_take(session, visitor);
  if (data != NULL) {
    relay__visitor_join(visitor, data);
    return;
  }
  if (relay__session_announce(session, visitor) == 0) {
    wait_sent(visitor, session);
    return;
  }
  /* Not told: as good as away, until it is heard again. */
  relay__registry_remove(&visitor->relay->registry, &visitor->by_id);
  visitor->agent = 0;
  wait_parked(visitor);
}

void relay__visitor_place(struct visitor *visitor) {
  struct session *session = visitor->lease->session;

  if (visitor->phase == VISITOR_ASKED && !visitor->let_in)
    return; /* its verdict is still to come */
  if (visitor->phase == VISITOR_JOINED || visitor->ended)
    return;
  if (session != NULL)
    announce(visitor, session);
  else
    wait_parked(visitor);
}

static void on_pairing_late(struct visitor *visitor) {
  struct session *session = visitor->lease->session;

  if (session != NULL && session->heard_lines != visitor->sent_lines)
    relay__visitor_end(visitor, UV_ETIMEDOUT);
  else
    wait_parked(visitor);
}

static void on_deadline(struct deadline *deadline) {
  struct visitor *visitor = container_of(deadline, struct visitor, deadline);

  if (visitor->phase == VISITOR_SENT)
    on_pairing_late(visitor);
  else if (visitor->phase == VISITOR_ASKED)
    relay__visitor_end(visitor, RELAY_EHOOK);
  else if (visitor->phase == VISITOR_PARKED)
    relay__visitor_end(visitor, UV_ETIMEDOUT);
}

void relay__visitor_join(struct visitor *visitor, struct stream *data) {
  struct relay *relay = visitor->relay;
  struct stream *stream = visitor->stream;
  int err;

  unpark(visitor);
  relay__deadline_clear(&visitor->deadline);
  unreserve(visitor);
  visitor->stream = NULL;
  err = relay__pair_start(&visitor->pair, &relay->plane, stream, data,
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
  if (verdict->answer == RELAY_DENY || verdict->answer == RELAY_NEED) {
    relay__log(&visitor->relay->logger, RELAY_LOG_INFO, "visitor denied",
               LOG_NUMBER("conn", visitor->number),
               LOG_TEXT("from", visitor->from),
               LOG_TEXT("reason", verdict->reason != NULL ? verdict->reason
                                                          : "by policy"));
    relay__visitor_end(visitor, RELAY_EDENIED);
    return;
  }
  visitor->let_in = true;
  relay__visitor_place(visitor);
}

void relay__visitor_decide(struct visitor *visitor,
                           const relay_verdict *verdict) {
  relay__deadline_clear(&visitor->deadline);
  on_verdict(visitor, verdict);
}

static void set_up(struct visitor *visitor, struct lease *lease,
                   const struct sockaddr *from) {
  struct relay *relay = lease->relay;
  const relay_options *options = &relay->options;

  visitor->relay = relay;
  visitor->lease = lease;
  visitor->phase = VISITOR_ASKED;
  visitor->number = ++relay->next_id;
  visitor->started_ms = relay__now_ms(relay);
  visitor->listen_port = lease->port;
  visitor->from_port = relay__address_port(from);
  visitor->agent = 0;
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
  link_append(&lease->visitors, &visitor->lease_link);
  lease->visitor_count++;
  relay->stats.visitors++;
  relay->stats.visitors_total++;
  visitor->reserved = true;
  relay->plane.fds.reserved++;
}

static void turn_away(struct lease *lease, struct stream *stream,
                      const struct sockaddr *from, const char *reason) {
  char text[ADDRESS_TEXT_MAX];

  relay__stream_close(stream);
  lease->relay->stats.refused_total++;
  relay__address_text(from, text, sizeof(text));
  relay__log(&lease->relay->logger, RELAY_LOG_WARN, "visitor turned away",
             LOG_TEXT("from", text), LOG_NUMBER("port", lease->port),
             LOG_TEXT("reason", reason));
}

void relay__visitor_start(struct listener *listener, struct stream *stream,
                          const struct sockaddr *from) {
  struct lease *lease = listener->owner;
  struct relay *relay = lease->relay;
  struct visitor *visitor;
  struct verdict verdict;
  int err;

  if (lease->visitor_count >= relay->options.max_visitors) {
    turn_away(lease, stream, from, "too many visitors");
    return;
  }
  visitor = calloc(1, sizeof(*visitor));
  if (visitor == NULL) {
    turn_away(lease, stream, from, relay_strerror(UV_ENOMEM));
    return;
  }
  set_up(visitor, lease, from);
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
  else
    relay__deadline_set(&visitor->deadline, relay->options.hook_visitor_ms);
}

/* ---- seen from outside ------------------------------------------------ */

struct visitor *relay__visitor_find(struct relay *relay, const char *id) {
  struct entry *entry = relay__registry_find(
      &relay->registry, ENTRY_VISITOR_ID, relay__id_key(id));
  struct visitor *visitor =
      entry != NULL ? container_of(entry, struct visitor, by_id) : NULL;

  return visitor != NULL && relay__id_equals(visitor->id, id) ? visitor : NULL;
}

void relay__visitor_info(const struct visitor *visitor,
                         relay_conn_info *info) {
  memset(info, 0, sizeof(*info));
  info->size = sizeof(*info);
  info->id = visitor->number;
  info->agent = visitor->agent;
  info->addr = visitor->from_host;
  info->port = visitor->from_port;
  info->listen_port = visitor->listen_port;
  info->bytes_in = visitor->pair != NULL ? relay__pair_bytes_in(visitor->pair)
                                         : visitor->bytes_in;
  info->bytes_out = visitor->pair != NULL
                        ? relay__pair_bytes_out(visitor->pair)
                        : visitor->bytes_out;
  info->duration_ms = relay__now_ms(visitor->relay) - visitor->started_ms;
  info->reason = visitor->reason;
}
