/* SPDX-License-Identifier: MIT */
/*
 * An agent's control connection once it has its lease: lines both ways and a
 * heartbeat, until either side ends it. How it got there is in admission.c.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

/* After a stall of this process the PONG may be there, unread. */
#define LAST_CHANCE_MS 200

/* ---- the end ---------------------------------------------------------- */

void relay__session_free(struct deadline *deadline) {
  free(container_of(deadline, struct session, deadline));
}

static void say_bye(struct session *session, int reason, const char *text) {
  bool again = reason != RELAY_EREPLACED && reason != RELAY_EDENIED;
  struct wire_line line;

  relay__wire_begin(&line, WIRE_BYE);
  if (again)
    relay__wire_add_number(&line, "retry", 1);
  else
    relay__wire_add(&line, "retry", "never");
  relay__wire_add_text(&line, "reason",
                       text != NULL ? text : relay_strerror(reason));
  relay__channel_send(&session->channel, &line, true);
}

static void log_end(const struct session *session, int reason,
                    const char *text) {
  relay__log(
      &session->relay->logger, RELAY_LOG_INFO, "agent gone",
      LOG_NUMBER("agent", session->number), LOG_TEXT("from", session->from),
      LOG_NUMBER("port", session->port),
      LOG_TEXT("reason", text != NULL ? text : relay_error_name(reason)));
}

void relay__session_withdraw(struct session *session, int reason) {
  struct relay *relay = session->relay;
  relay_agent_info info;

  session->ended = true;
  link_remove(&session->link);
  relay__registry_remove(&relay->registry, &session->by_number);
  relay__registry_remove(&relay->registry, &session->by_id);
  relay__question_drop(relay, &session->question);
  while (!link_is_empty(&session->waiting))
    relay__waiting_end(
        container_of(session->waiting.next, struct waiting, link));
  relay->stats.agents--;
  relay__secret_wipe(session->key, sizeof(session->key));
  relay__session_info(session, &info);
  if (session->admitted)
    relay__tell_agent_gone(relay, &info, reason);
}

void relay__session_end(struct session *session, int reason, const char *text) {
  struct lease *lease = session->lease;
  /* These are the relay's own ends: the agent is told. */
  bool polite = reason <= RELAY_EPROTO && reason != RELAY_EHEARTBEAT;

  if (session->ended)
    return;
  log_end(session, reason, text);
  relay__session_withdraw(session, reason);
  if (session->stream != NULL)
    relay__stream_close(session->stream);
  else if (polite) {
    say_bye(session, reason, text);
    relay__channel_finish(&session->channel);
  } else if (reason == UV_EOF) {
    relay__channel_finish(&session->channel); /* it ended in order: so do we */
  } else {
    relay__channel_close(&session->channel);
  }
  session->lease = NULL;
  relay__deadline_close(&session->deadline, relay__session_free);
  if (lease == NULL || lease->session != session) /* a hook gave it away */
    return;
  if (reason == RELAY_EDENIED)
    relay__lease_end(lease, reason, false);
  else
    relay__lease_detach(lease);
}

/* ---- lines ------------------------------------------------------------ */

static void on_ping(struct session *session,
                    const struct wire_message *message) {
  struct wire_line line;
  uint64_t n = 0;

  relay__lease_confirm(session->lease); /* it has the new ticket */
  relay__wire_get_number(message, "n", UINT64_MAX, &n);
  relay__wire_begin(&line, WIRE_PONG);
  relay__wire_add_number(&line, "n", n);
  if (relay__channel_send(&session->channel, &line, true) != 0)
    relay__session_end(session, UV_ENOBUFS, NULL);
}

static void on_reject(struct session *session,
                      const struct wire_message *message) {
  const char *id = relay__wire_get(message, "id");
  const char *reason = relay__wire_get(message, "reason");
  struct relay *relay = session->relay;
  struct visitor *visitor = id != NULL ? relay__visitor_find(relay, id) : NULL;

  if (visitor == NULL || visitor->lease != session->lease)
    return; /* it has left meanwhile, or is another's */
  if (visitor->pair != NULL && relay__crew_has_ended(visitor->pair))
    return; /* its agent has heard of that, and answers; why is known here */
  relay__log(&relay->logger, RELAY_LOG_INFO, "visitor rejected by its agent",
             LOG_NUMBER("conn", visitor->number),
             LOG_TEXT("reason", reason != NULL ? reason : ""));
  visitor->agent = 0; /* it need not be told */
  relay__visitor_end(visitor, UV_ECONNREFUSED);
}

static void on_bye(struct session *session,
                   const struct wire_message *message) {
  const char *reason = relay__wire_get(message, "reason");
  struct lease *lease = session->lease; /* which its end is still told with */

  lease->session = NULL;
  relay__session_end(session, UV_EOF, reason != NULL ? reason : "bye");
  if (lease->session == NULL) /* else a hook has let another take it up */
    relay__lease_end(lease, RELAY_EGONE, true);
}

static void on_line(struct channel *channel,
                    const struct wire_message *message) {
  struct session *session = channel->owner;

  session->heard_lines++;
  session->unanswered_ms = 0;
  session->last_chance = false;
  if (session->lease->gate->parked_count != 0)
    relay__gate_each_visitor(session->lease->gate, relay__visitor_heard,
                             session);
  if (session->ended)
    return;
  switch (message->verb) {
  case WIRE_PING:
    on_ping(session, message);
    break;
  case WIRE_PONG:
    break;
  case WIRE_REJECT:
    on_reject(session, message);
    break;
  case WIRE_BYE:
    on_bye(session, message);
    break;
  default:
    relay__session_end(session, RELAY_EPROTO, NULL);
  }
}

static void on_end(struct channel *channel, int error) {
  relay__session_end(channel->owner, error, NULL);
}

/* Nothing was heard since a PING that is `dead_ms` old. */
static bool is_silent(const struct session *session, uint64_t now) {
  return session->unanswered_ms != 0 &&
         now - session->unanswered_ms >= session->relay->options.dead_ms;
}

static void send_ping(struct session *session, uint64_t now) {
  struct wire_line line;

  relay__wire_begin(&line, WIRE_PING);
  relay__wire_add_number(&line, "n", ++session->pings);
  /* A full queue is no reason to end it: its silence will be. */
  relay__channel_send(&session->channel, &line, true);
  if (session->unanswered_ms == 0)
    session->unanswered_ms = now;
}

/* A PING is due, or a word overdue. The clock runs from the oldest PING since
   which nothing was heard: a link that comes back in time has its chance. */
void relay__session_beat(struct session *session) {
  const relay_options *options = &session->relay->options;
  uint64_t now = relay__now_ms(session->relay);
  uint64_t wait_ms = options->heartbeat_ms;

  if (is_silent(session, now)) {
    if (session->last_chance) {
      relay__session_end(session, RELAY_EHEARTBEAT, NULL);
      return;
    }
    session->last_chance = true;
    relay__deadline_set(&session->deadline, LAST_CHANCE_MS);
    return;
  }
  relay__waiting_retire(session);
  send_ping(session, now);
  if (session->unanswered_ms + options->dead_ms < now + wait_ms)
    wait_ms = session->unanswered_ms + options->dead_ms - now;
  relay__deadline_set(&session->deadline, wait_ms);
}

int relay__session_announce(struct session *session, struct visitor *visitor) {
  struct wire_line line;

  relay__visitor_line(visitor, &line);
  return relay__channel_send(&session->channel, &line, false);
}

void relay__session_gone(struct session *session, const char *id, int error) {
  struct wire_line line;

  if (session->ended || session->stream != NULL)
    return;
  relay__wire_begin(&line, WIRE_GONE);
  relay__wire_add(&line, "id", id);
  relay__wire_add(&line, "code", relay_error_name(error));
  relay__channel_send(&session->channel, &line, true);
}

/* ---- with an address -------------------------------------------------- */

static int welcome(struct session *session) {
  struct relay *relay = session->relay;
  uint64_t seconds = (relay->options.heartbeat_ms + 999) / 1000;
  struct wire_line line;

  relay__wire_begin(&line, WIRE_OK);
  relay__wire_add(&line, "host", session->lease->host);
  relay__wire_add_number(&line, "port", session->lease->gate->port);
  relay__wire_add(&line, "session", session->id);
  relay__wire_add(&line, "resume", session->lease->ticket);
  relay__wire_add_number(&line, "heartbeat", seconds);
  if (session->pool != 0)
    relay__wire_add_number(&line, "pool", session->pool);
  if (relay->dial[0] != '\0')
    relay__wire_add(&line, "dial", relay->dial);
  if (session->bound)
    relay__wire_add(&line, "data", session->plain ? "plain" : "tls");
  return relay__channel_send(&session->channel, &line, true);
}

static void limit_silence(const struct session *session) {
#ifdef TCP_USER_TIMEOUT
  /* Keepalive alone misses a peer that vanished with bytes on the way. */
  unsigned ms = (unsigned)session->relay->options.dead_ms;

  setsockopt(session->stream->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms,
             sizeof(ms));
#else
  (void)session;
#endif
}

#define PROVED_MAX                                                             \
  (sizeof("token , certificate ") + TOKEN_ID_MAX + TLS_NAME_MAX)

/* What it proved itself by. */
static void describe_proof(const struct session *session,
                           char text[PROVED_MAX]) {
  const char *token = session->by_token ? session->token_id : "";
  const char *name = session->subject.name;

  if (*token == '\0' && *name == '\0')
    snprintf(text, PROVED_MAX, "nothing");
  else
    snprintf(text, PROVED_MAX, "%s%s%s%s%s", *token != '\0' ? "token " : "",
             token, *token != '\0' && *name != '\0' ? ", " : "",
             *name != '\0' ? "certificate " : "", name);
}

/* It was never told its address. Of a new one nobody has the ticket: nobody can
   come back to it. */
static void give_up(struct session *session, int error, bool resumed) {
  struct lease *lease = session->lease;

  relay__session_end(session, error, NULL);
  if (!resumed)
    relay__lease_end(lease, error, false);
}

void relay__session_establish(struct session *session, bool resumed) {
  struct relay *relay = session->relay;
  struct lease *lease = session->lease;
  struct stream *stream = session->stream;
  char proved[PROVED_MAX];

  session->port = lease->gate->port;
  limit_silence(session);
  if (relay__channel_start(&session->channel, stream, on_line, on_end,
                           session) != 0) {
    give_up(session, UV_ENOMEM, resumed);
    return;
  }
  session->stream = NULL;
  relay__deadline_set(&session->deadline, relay->options.heartbeat_ms);
  describe_proof(session, proved);
  relay__log(&relay->logger, RELAY_LOG_INFO,
             resumed ? "agent is back" : "address established",
             LOG_NUMBER("agent", session->number),
             LOG_TEXT("from", session->from), LOG_TEXT("name", session->name),
             LOG_TEXT("host", lease->host),
             LOG_NUMBER("port", lease->gate->port), LOG_TEXT("proved", proved));
  if (welcome(session) != 0) {
    give_up(session, UV_ENOBUFS, resumed);
  } else {
    relay__gate_each_visitor(lease->gate, relay__visitor_heard, session);
  }
}

/* ---- seen from outside ------------------------------------------------ */

struct session *relay__session_find(struct relay *relay, const char *id) {
  struct entry *entry = relay__registry_find(&relay->registry, ENTRY_SESSION_ID,
                                             relay__id_key(id));
  struct session *session =
      entry != NULL ? container_of(entry, struct session, by_id) : NULL;

  return session != NULL && relay__id_equals(session->id, id) &&
                 session->stream == NULL
             ? session
             : NULL;
}

void relay__session_info(const struct session *session,
                         relay_agent_info *info) {
  const struct lease *lease = session->lease;

  memset(info, 0, sizeof(*info));
  info->size = sizeof(*info);
  info->id = session->number;
  info->name = session->name;
  info->addr = session->from_host;
  info->port = lease != NULL ? lease->gate->port : 0;
  info->conns = lease != NULL ? lease->conns : 0;
  info->since_ms = relay__now_ms(session->relay) - session->started_ms;
  info->owner = session->owner;
}
