/* SPDX-License-Identifier: MIT */
/*
 * The lines of the control connection: LISTEN and what is answered, visitors
 * announced and gone, heartbeats both ways, the goodbye. What the relay sends
 * is taken as a stranger's: bounded, checked, and shown only sanitized.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "agent/private.h"

#define HEARTBEAT_MAX_S 3600
#define RETRY_MAX_S 3600
/* After a stall of this process the PONG may be there, unread. */
#define LAST_CHANCE_MS 200

static bool send_line(struct relay_agent *agent, struct wire_line *line,
                      bool urgent) {
  struct session *session = &agent->session;

  return session->talking &&
         relay__channel_send(&session->channel, line, urgent) == 0;
}

/* ---- what the relay says ----------------------------------------------- */

static void read_reason(const struct wire_message *message, char *out,
                        size_t size, int error) {
  const char *reason = relay__wire_get(message, "reason");

  if (reason == NULL || *reason == '\0')
    reason = relay_strerror(error);
  relay__text_sanitize(out, size, reason);
}

/* The error that a `code` names; `unknown` for one that is not known. */
static int read_code(const struct wire_message *message, int unknown) {
  static const int codes[] = {
#define CODE(number, name, code, text) number,
      RELAY_ERROR_MAP(CODE)
#undef CODE
  };
  const char *code = relay__wire_get(message, "code");

  for (size_t i = 0; code != NULL && i < sizeof(codes) / sizeof(*codes); i++)
    if (strcmp(code, relay_error_name(codes[i])) == 0)
      return codes[i];
  return unknown;
}

/* ---- OK --------------------------------------------------------------- */

/* The times of this session. A relay with a slower heartbeat than ours is
   given more time in proportion. */
static void take_times(struct relay_agent *agent, uint64_t heartbeat_s) {
  const relay_agent_options *options = &agent->options;
  struct session *session = &agent->session;

  session->heartbeat_ms = options->heartbeat_ms;
  session->dead_ms = options->dead_ms;
  if (heartbeat_s != 0)
    session->heartbeat_ms = heartbeat_s * 1000;
  if (session->heartbeat_ms > options->heartbeat_ms)
    session->dead_ms =
        options->dead_ms * session->heartbeat_ms / options->heartbeat_ms;
  session->waiting_pong = false;
  session->last_chance = false;
  relay__deadline_set(&session->beat, session->heartbeat_ms);
}

/* What must be in OK and what may be. 0 or RELAY_EPROTO. */
static int take_ok(struct relay_agent *agent,
                   const struct wire_message *message) {
  struct session *session = &agent->session;
  const char *id = relay__wire_get(message, "session");
  const char *host = relay__wire_get(message, "host");
  const char *ticket = relay__wire_get(message, "resume");
  const char *data = relay__wire_get(message, "data");
  uint64_t port = 0, pool = 0, heartbeat_s = 0;

  if (id == NULL || *id == '\0' || strlen(id) > AGENT_ID_MAX || host == NULL ||
      !relay__address_is_host(host) ||
      relay__wire_get_number(message, "port", 65535, &port) != 1 || port == 0 ||
      relay__wire_get_number(message, "pool", UINT32_MAX, &pool) < 0 ||
      relay__wire_get_number(message, "heartbeat", HEARTBEAT_MAX_S,
                             &heartbeat_s) < 0)
    return RELAY_EPROTO;
  session->fresh = session->port != port || strcmp(session->host, host) != 0;
  session->port = (unsigned)port;
  session->pool =
      pool < agent->options.pool ? (unsigned)pool : agent->options.pool;
  session->plain = agent->tls != NULL && agent->options.plain && data != NULL &&
                   strcmp(data, "plain") == 0;
  session->resumable = true;
  snprintf(session->id, sizeof(session->id), "%s", id);
  snprintf(session->host, sizeof(session->host), "%s", host);
  snprintf(session->ticket, sizeof(session->ticket), "%s",
           ticket != NULL ? ticket : "");
  take_times(agent, heartbeat_s);
  return 0;
}

/* Where data connections go, and then the session is open. */
static int take_dial(struct relay_agent *agent,
                     const struct wire_message *message) {
  const char *dial = relay__wire_get(message, "dial");
  struct sockaddr_storage *address = &agent->session.data_address;
  char host[NI_MAXHOST];
  unsigned port = 0;

  if (dial != NULL) {
    if (relay__address_split(dial, host, sizeof(host), &port) != 0 || port == 0)
      return RELAY_EPROTO;
    if (relay__address_parse_host(host, port, address) != 0)
      return relay__session_name_data(agent, host, port);
  }
  relay__session_open(agent);
  return 0;
}

/* The host may close or drain the agent. */
static void tell_ticket(struct relay_agent *agent) {
  if (agent->options.on_ticket != NULL && agent->session.ticket[0] != '\0')
    agent->options.on_ticket(agent->options.data, agent, agent->session.ticket);
}

static void on_ok(struct relay_agent *agent,
                  const struct wire_message *message) {
  int err = take_ok(agent, message);

  if (err == 0)
    tell_ticket(agent);
  if (agent->closing || agent->session.phase != SESSION_ASKING)
    return;
  if (err == 0)
    err = take_dial(agent, message);
  if (err != 0)
    relay__session_lost(agent, err,
                        err == RELAY_EPROTO ? "not a proper OK" : NULL,
                        SESSION_BACKOFF);
}

/* ---- ERR and BYE ------------------------------------------------------ */

/* How long the relay wants this agent to stay away. */
static uint64_t read_retry(const struct wire_message *message) {
  uint64_t seconds = 0;

  if (relay__wire_get_number(message, "retry", RETRY_MAX_S, &seconds) != 1)
    return SESSION_BACKOFF;
  return seconds * 1000;
}

static void on_err(struct relay_agent *agent,
                   const struct wire_message *message) {
  struct session *session = &agent->session;
  int error = read_code(message, RELAY_EDENIED);
  const char *final = relay__wire_get(message, "final");
  char reason[AGENT_REASON_MAX];

  read_reason(message, reason, sizeof(reason), error);
  /* The port was ours before, and nobody's wish: any other will do. */
  if ((error == RELAY_EPORT_TAKEN || error == RELAY_EPORT_REFUSED) &&
      agent->options.want_port == 0 && session->resumable) {
    session->resumable = false;
    relay__session_lost(agent, error, reason,
                        relay__agent_jitter(agent->options.backoff_min_ms));
    return;
  }
  if (final != NULL && strcmp(final, "yes") == 0)
    relay__session_refused(agent, error, reason);
  else
    relay__session_lost(agent, error, reason, read_retry(message));
}

static void on_bye(struct relay_agent *agent,
                   const struct wire_message *message) {
  const char *retry = relay__wire_get(message, "retry");
  char reason[AGENT_REASON_MAX];

  read_reason(message, reason, sizeof(reason), RELAY_EDRAINING);
  if (retry != NULL && strcmp(retry, "never") == 0)
    relay__session_refused(agent, read_code(message, RELAY_EDENIED), reason);
  else
    relay__session_lost(agent, RELAY_EDRAINING, reason, read_retry(message));
}

/* ---- heartbeat -------------------------------------------------------- */

static void on_ping(struct relay_agent *agent,
                    const struct wire_message *message) {
  struct wire_line line;
  const char *n = relay__wire_get(message, "n");

  relay__wire_begin(&line, WIRE_PONG);
  if (n != NULL)
    relay__wire_add(&line, "n", n);
  send_line(agent, &line, true);
}

static void on_pong(struct relay_agent *agent,
                    const struct wire_message *message) {
  struct session *session = &agent->session;
  uint64_t n = session->pings;

  (void)relay__wire_get_number(message, "n", UINT64_MAX, &n);
  session->waiting_pong = n < session->pings;
  session->unanswered_ms = uv_now(agent->plane.loop);
  session->last_chance = false;
  /* A session that answers is sound: the next loss starts from the shortest
     wait. One that is lost at once, each time, does not get here. */
  session->backoff_ms = agent->options.backoff_min_ms;
}

static void send_ping(struct relay_agent *agent) {
  struct session *session = &agent->session;
  struct wire_line line;

  relay__wire_begin(&line, WIRE_PING);
  relay__wire_add_number(&line, "n", ++session->pings);
  send_line(agent, &line, true);
  if (!session->waiting_pong)
    session->unanswered_ms = uv_now(agent->plane.loop);
  session->waiting_pong = true;
}

/* A PING is due, or a PONG overdue. The clock runs from the oldest PING that
   has no answer: a link that comes back in time has its chance. */
void relay__control_beat(struct relay_agent *agent) {
  struct session *session = &agent->session;
  uint64_t now = uv_now(agent->plane.loop);
  uint64_t wait_ms = session->heartbeat_ms;

  if (session->waiting_pong &&
      now - session->unanswered_ms >= session->dead_ms) {
    if (session->last_chance) {
      relay__session_lost(agent, RELAY_EHEARTBEAT, NULL, SESSION_BACKOFF);
      return;
    }
    session->last_chance = true;
    relay__deadline_set(&session->beat, LAST_CHANCE_MS);
    return;
  }
  send_ping(agent);
  if (session->unanswered_ms + session->dead_ms < now + wait_ms)
    wait_ms = session->unanswered_ms + session->dead_ms - now;
  relay__deadline_set(&session->beat, wait_ms);
}

/* ---- lines in --------------------------------------------------------- */

static void on_gone(struct relay_agent *agent,
                    const struct wire_message *message) {
  const char *id = relay__wire_get(message, "id");
  struct visit *visit = id != NULL ? relay__visit_find(agent, id) : NULL;

  /* A joined one has its end on its data connection. An ACCEPT that was said
     in plain may have been said again, by whoever heard it. */
  if (visit != NULL && visit->phase != VISIT_JOINED)
    relay__visit_end(visit, read_code(message, RELAY_EGONE), NULL);
}

static void on_stray(struct relay_agent *agent,
                     const struct wire_message *message) {
  char reason[AGENT_REASON_MAX];

  snprintf(reason, sizeof(reason), "%s out of place",
           relay__wire_verb(message->verb));
  relay__session_lost(agent, RELAY_EPROTO, reason, SESSION_BACKOFF);
}

static void on_line(struct channel *channel,
                    const struct wire_message *message) {
  struct relay_agent *agent = channel->owner;
  bool asking = agent->session.phase == SESSION_ASKING;

  switch (message->verb) {
  case WIRE_ERR:
    on_err(agent, message);
    return;
  case WIRE_BYE:
    on_bye(agent, message);
    return;
  case WIRE_PING:
    on_ping(agent, message);
    return;
  case WIRE_PONG:
    on_pong(agent, message);
    return;
  default:
    break;
  }
  if (message->verb == WIRE_OK && asking)
    on_ok(agent, message);
  else if (message->verb == WIRE_VISITOR && !asking)
    relay__visit_arrive(agent, message, NULL);
  else if (message->verb == WIRE_GONE && !asking)
    on_gone(agent, message);
  else
    on_stray(agent, message);
}

static void on_end(struct channel *channel, int error) {
  if (error == RELAY_ECERT) /* the relay's verdict on ours comes late */
    relay__session_disbelieved(channel->owner, X509_V_OK);
  else
    relay__session_lost(channel->owner, error,
                        error == UV_EOF ? "closed by the relay" : NULL,
                        SESSION_BACKOFF);
}

/* ---- lines out -------------------------------------------------------- */

static void send_listen(struct relay_agent *agent, bool with_ticket) {
  const relay_agent_options *options = &agent->options;
  struct session *session = &agent->session;
  unsigned port = options->want_port;
  struct wire_line line;

  if (port == 0 && session->resumable)
    port = session->port;
  relay__wire_begin(&line, WIRE_LISTEN);
  if (port != 0)
    relay__wire_add_number(&line, "port", port);
  if (options->name != NULL)
    relay__wire_add(&line, "name", options->name);
  relay__wire_add(&line, "host", options->host);
  if (options->pool != 0)
    relay__wire_add_number(&line, "pool", options->pool);
  if (agent->tls != NULL && options->plain)
    relay__wire_add(&line, "data", "plain");
  if (with_ticket)
    relay__wire_add(&line, "resume", session->ticket);
  if (agent->token[0] != '\0') /* it is kept for this, and this is TLS */
    relay__wire_add(&line, "token", agent->token);
  int err = relay__channel_send(&session->channel, &line, true);
  relay__secret_wipe(&line, sizeof(line));
  if (err == RELAY_EPROTO && with_ticket) /* too long a ticket */
    send_listen(agent, false);
  else if (err != 0)
    relay__session_lost(agent, err, NULL, SESSION_BACKOFF);
}

void relay__control_start(struct relay_agent *agent, struct stream *stream) {
  struct session *session = &agent->session;
  int user_timeout_ms = (int)agent->options.dead_ms;
  int err =
      relay__channel_start(&session->channel, stream, on_line, on_end, agent);

  if (err != 0) {
    relay__stream_close(stream);
    relay__session_lost(agent, err, NULL, SESSION_BACKOFF);
    return;
  }
  session->talking = true;
#ifdef TCP_USER_TIMEOUT
  /* Keepalive does not notice a peer that vanished with lines on the way. */
  (void)setsockopt(stream->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms,
                   sizeof(user_timeout_ms));
#else
  (void)user_timeout_ms;
#endif
  send_listen(agent, session->resumable && session->ticket[0] != '\0');
}

void relay__control_reject(struct relay_agent *agent, const char *id,
                           const char *reason) {
  struct wire_line line;

  relay__wire_begin(&line, WIRE_REJECT);
  relay__wire_add(&line, "id", id);
  relay__wire_add_text(&line, "reason", reason);
  send_line(agent, &line, false);
}

void relay__control_bye(struct relay_agent *agent) {
  struct wire_line line;

  relay__wire_begin(&line, WIRE_BYE);
  send_line(agent, &line, true);
}
