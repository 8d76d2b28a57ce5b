/* SPDX-License-Identifier: MIT */
/*
 * Reaching the relay, and coming back to it: resolve, try every address, ask,
 * and after a loss wait and begin again. There is one way down,
 * drop_connection, from whatever phase, and it leaves nothing of the session:
 * the pool and the visits that are not joined end with it. Joined ones go on.
 */
#include <stdio.h>
#include <string.h>

#include "agent/private.h"

/* A complaint that has not changed is repeated this often. */
#define COMPLAIN_AGAIN_MS (60 * 1000)
/* No relay may send an agent away for less, or for longer. */
#define WAIT_MIN_MS 200
#define WAIT_MAX_MS (3600 * 1000)

static struct relay_agent *timer_agent(struct deadline *timer) {
  return container_of(timer, struct relay_agent, session.timer);
}

/* ---- down ------------------------------------------------------------- */

static void free_list(struct addrinfo **list) {
  if (*list != NULL)
    uv_freeaddrinfo(*list);
  *list = NULL;
}

/* Whatever there is of a connection. Visits that use its addresses have to be
   ended before. */
static void drop_connection(struct relay_agent *agent) {
  struct session *session = &agent->session;

  relay__deadline_clear(&session->timer);
  relay__deadline_clear(&session->beat);
  relay__resolve_cancel(session->resolve);
  session->resolve = NULL;
  relay__dial_cancel(&session->dial);
  if (session->talking)
    relay__channel_close(&session->channel);
  session->talking = false;
  relay__pool_drop(agent);
  relay__parting_end_all(agent);
  free_list(&session->addresses);
  free_list(&session->data_list);
}

static uint64_t next_backoff(struct relay_agent *agent) {
  struct session *session = &agent->session;
  uint64_t ms = session->backoff_ms;

  session->backoff_ms *= 2;
  if (session->backoff_ms > agent->options.backoff_max_ms)
    session->backoff_ms = agent->options.backoff_max_ms;
  return relay__agent_jitter(ms);
}

/* The relay names the wait: never none, never for ever, and not the same for
   all of its agents. */
static uint64_t obeyed_wait(uint64_t ms) {
  if (ms < WAIT_MIN_MS)
    ms = WAIT_MIN_MS;
  if (ms > WAIT_MAX_MS)
    ms = WAIT_MAX_MS;
  return relay__agent_jitter(ms + ms / 3);
}

static const char *describe_loss(enum session_phase phase) {
  switch (phase) {
  case SESSION_NAMING:
  case SESSION_OPEN:
    return "relay lost";
  case SESSION_ASKING:
    return "relay gave no address";
  default:
    return "relay not reachable";
  }
}

/* Says it once, and then once in a while. */
static void complain(struct relay_agent *agent, const char *event,
                     const char *reason, uint64_t wait_ms) {
  struct session *session = &agent->session;
  uint64_t now = uv_now(agent->plane.loop);
  bool again = strcmp(session->complaint, reason) == 0 &&
               now - session->complained_ms < COMPLAIN_AGAIN_MS;
  char relay[AGENT_RELAY_MAX];

  relay__text_relay(agent, relay, sizeof(relay));
  relay__log(&agent->logger, again ? RELAY_LOG_DEBUG : RELAY_LOG_WARN, event,
             LOG_TEXT("relay", relay), LOG_TEXT("reason", reason),
             LOG_NUMBER("retry_in_ms", wait_ms));
  if (again)
    return;
  snprintf(session->complaint, sizeof(session->complaint), "%s", reason);
  session->complained_ms = now;
}

/* The end, told in one sentence. */
static void end_agent(struct relay_agent *agent, const char *event, int error,
                      const char *reason) {
  char relay[AGENT_RELAY_MAX];
  char sentence[sizeof(relay) + AGENT_REASON_MAX + 64];

  relay__text_relay(agent, relay, sizeof(relay));
  snprintf(sentence, sizeof(sentence), "%s: %s: %s", relay, event, reason);
  agent->session.phase = SESSION_OVER;
  relay__agent_end(agent, error, sentence);
}

void relay__session_lost(struct relay_agent *agent, int error,
                         const char *reason, uint64_t wait_ms) {
  struct session *session = &agent->session;
  const char *event = describe_loss(session->phase);
  char why[AGENT_REASON_MAX]; /* `reason` may lie in what is dropped */

  if (session->phase == SESSION_OVER)
    return;
  snprintf(why, sizeof(why), "%s",
           reason != NULL ? reason : relay_strerror(error));
  relay__visit_end_unjoined(agent, error);
  drop_connection(agent);
  if (agent->options.once) {
    end_agent(agent, event, error, why);
    return;
  }
  if (wait_ms == SESSION_BACKOFF)
    wait_ms = next_backoff(agent);
  else
    wait_ms = obeyed_wait(wait_ms);
  session->phase = SESSION_RESTING;
  complain(agent, event, why, wait_ms);
  relay__deadline_set(&session->timer, wait_ms);
}

/* There is no coming back. */
static void give_up(struct relay_agent *agent, const char *event, int error,
                    const char *reason) {
  char why[AGENT_REASON_MAX];

  if (agent->session.phase == SESSION_OVER)
    return;
  snprintf(why, sizeof(why), "%s", reason);
  relay__visit_end_unjoined(agent, error);
  drop_connection(agent);
  end_agent(agent, event, error, why);
}

void relay__session_refused(struct relay_agent *agent, int error,
                            const char *reason) {
  give_up(agent, "relay refused", error, reason);
}

/* ---- up --------------------------------------------------------------- */

/* One time may be want of memory, here or there, whatever it looks like. */
void relay__session_disbelieved(struct relay_agent *agent, int verdict) {
  char why[AGENT_REASON_MAX];

  relay__certs_explain(agent, verdict, why, sizeof(why));
  if (++agent->disbeliefs > 1 && agent->session.port == 0)
    give_up(agent, "relay not trusted", RELAY_ECERT, why);
  else
    relay__session_lost(agent, RELAY_ECERT, why, SESSION_BACKOFF);
}

static const char *describe_silence(const struct relay_agent *agent) {
  return agent->relay_name != NULL
             ? "it did not answer in TLS with a certificate"
             : "it did not answer in TLS, which a token needs";
}

/* Nobody vouches for a refusal of the key: only who never had an address is
   kept from trying again by it. */
static void lose_dial(struct relay_agent *agent, int error) {
  if (error == RELAY_ECERT)
    relay__session_disbelieved(agent, agent->session.dial.verdict);
  else if (error == RELAY_EKEY && agent->session.port == 0)
    relay__session_refused(agent, error, "the token was not accepted");
  else
    relay__session_lost(agent, error,
                        error == RELAY_ETLS   ? describe_silence(agent)
                        : error == RELAY_EKEY ? "the token was not accepted"
                                              : NULL,
                        SESSION_BACKOFF);
}

static void on_dialed(struct dial *dial, int status, struct stream *stream) {
  struct relay_agent *agent = dial->owner;
  struct session *session = &agent->session;

  free_list(&session->addresses);
  if (status == 0)
    status = relay__keys_export(agent, stream);
  if (status != 0) {
    relay__stream_close(stream);
    lose_dial(agent, status);
    return;
  }
  session->data_address = dial->address;
  session->phase = SESSION_ASKING;
  relay__deadline_set(&session->timer, agent->options.dead_ms);
  relay__control_start(agent, stream);
}

static void on_relay_resolved(void *owner, int status,
                              struct addrinfo *addresses) {
  struct relay_agent *agent = owner;
  struct session *session = &agent->session;

  session->resolve = NULL;
  if (status == 0) {
    session->addresses = addresses;
    session->phase = SESSION_CONNECTING;
    relay__deadline_set(&session->timer, agent->options.connect_ms);
    status = relay__keys_secure_control(agent, &session->dial);
  }
  if (status == 0)
    status = relay__dial_start(&session->dial, addresses->ai_addr,
                               addresses->ai_addrlen, addresses->ai_next);
  if (status != 0)
    relay__session_lost(agent, status, NULL, SESSION_BACKOFF);
}

static void attempt(struct relay_agent *agent) {
  struct session *session = &agent->session;
  char relay[AGENT_RELAY_MAX];

  relay__text_relay(agent, relay, sizeof(relay));
  relay__log(&agent->logger, RELAY_LOG_DEBUG, "connecting",
             LOG_TEXT("relay", relay));
  session->phase = SESSION_RESOLVING;
  relay__deadline_set(&session->timer, agent->options.connect_ms);
  int err = relay__resolve_start(&session->resolve, &agent->plane,
                                 agent->options.host, agent->options.port,
                                 on_relay_resolved, agent);
  if (err != 0)
    relay__session_lost(agent, err, NULL, SESSION_BACKOFF);
}

static void on_timer(struct deadline *timer) {
  struct relay_agent *agent = timer_agent(timer);
  struct session *session = &agent->session;

  switch (session->phase) {
  case SESSION_RESTING:
    attempt(agent);
    break;
  case SESSION_CONNECTING:
    relay__deadline_set(timer, agent->options.connect_ms);
    relay__dial_next(&session->dial);
    break;
  case SESSION_RESOLVING:
  case SESSION_NAMING:
    relay__session_lost(agent, UV_ETIMEDOUT,
                        "looking the name up took too long", SESSION_BACKOFF);
    break;
  case SESSION_ASKING:
    relay__session_lost(agent, UV_ETIMEDOUT, "no answer", SESSION_BACKOFF);
    break;
  case SESSION_OPEN:
  case SESSION_OVER:
    break;
  }
}

/* ---- where data connections go ---------------------------------------- */

static void on_data_resolved(void *owner, int status,
                             struct addrinfo *addresses) {
  struct relay_agent *agent = owner;
  char why[AGENT_REASON_MAX];

  snprintf(why, sizeof(why), "data connections go to %s: %s",
           relay__resolve_name(agent->session.resolve), relay_strerror(status));
  agent->session.resolve = NULL;
  if (status != 0) {
    relay__session_lost(agent, status, why, SESSION_BACKOFF);
    return;
  }
  agent->session.data_list = addresses;
  relay__session_open(agent);
}

int relay__session_name_data(struct relay_agent *agent, const char *host,
                             unsigned port) {
  struct session *session = &agent->session;
  int err = relay__resolve_start(&session->resolve, &agent->plane, host, port,
                                 on_data_resolved, agent);
  if (err == 0) {
    session->phase = SESSION_NAMING;
    relay__deadline_set(&session->timer, agent->options.connect_ms);
  }
  return err;
}

/* Control is there, so it is for a firewall or the relay's --dial: of many in a
   row the first is told. */
void relay__session_note_data(struct relay_agent *agent, int error) {
  struct session *session = &agent->session;
  const struct sockaddr *address =
      session->data_list != NULL
          ? session->data_list->ai_addr
          : (const struct sockaddr *)&session->data_address;
  char text[ADDRESS_TEXT_MAX];

  if (error == 0)
    session->is_dataless = false;
  if (error == 0 || session->is_dataless || session->phase != SESSION_OPEN ||
      !relay__agent_may_tell(agent, &session->dataless_told_ms))
    return;
  session->is_dataless = true;
  relay__address_text(address, text, sizeof(text));
  relay__log(&agent->logger, RELAY_LOG_WARN, "data connection not made",
             LOG_TEXT("to", text), LOG_TEXT("reason", relay_strerror(error)));
}

int relay__session_dial(struct relay_agent *agent, struct dial *dial) {
  const struct session *session = &agent->session;
  const struct sockaddr *address =
      (const struct sockaddr *)&session->data_address;
  const struct addrinfo *list = session->data_list;

  if (list != NULL)
    return relay__dial_start(dial, list->ai_addr, list->ai_addrlen,
                             list->ai_next);
  return relay__dial_start(dial, address, relay__address_length(address), NULL);
}

/* ---- there, and gone -------------------------------------------------- */

void relay__session_open(struct relay_agent *agent) {
  struct session *session = &agent->session;
  bool fresh = session->fresh;
  char relay[AGENT_RELAY_MAX];

  session->phase = SESSION_OPEN;
  session->complaint[0] = '\0';
  session->fresh = false;
  agent->disbeliefs = 0;
  relay__deadline_clear(&session->timer);
  relay__text_relay(agent, relay, sizeof(relay));
  relay__log(&agent->logger, RELAY_LOG_INFO, "address established",
             LOG_TEXT("relay", relay), LOG_TEXT("host", session->host),
             LOG_NUMBER("port", session->port),
             LOG_NUMBER("pool", session->pool));
  relay__visit_resume(agent);
  relay__pool_fill(agent);
  if (agent->options.on_established != NULL)
    agent->options.on_established(agent->options.data, agent, session->host,
                                  session->port, fresh);
}

static void on_beat(struct deadline *beat) {
  relay__control_beat(container_of(beat, struct relay_agent, session.beat));
}

void relay__session_init(struct relay_agent *agent, const char *ticket) {
  struct session *session = &agent->session;
  size_t length = ticket != NULL ? strlen(ticket) : 0;

  if (length != 0 && length < sizeof(session->ticket)) {
    memcpy(session->ticket, ticket, length + 1);
    session->resumable = true;
  }

  session->phase = SESSION_RESTING;
  session->backoff_ms = agent->options.backoff_min_ms;
  relay__dial_init(&session->dial, &agent->plane, on_dialed, agent);
  relay__deadline_init(&session->timer, &agent->plane, on_timer);
  relay__deadline_init(&session->beat, &agent->plane, on_beat);
  /* Even the first attempt starts from the loop: it may fail at once. */
  relay__deadline_set(&session->timer, 0);
}

void relay__session_leave(struct relay_agent *agent) {
  struct session *session = &agent->session;

  if (session->phase == SESSION_OVER)
    return;
  session->phase = SESSION_OVER;
  if (session->talking) {
    relay__control_bye(agent);
    relay__channel_finish(&session->channel);
    session->talking = false;
  }
  drop_connection(agent);
}

void relay__session_close(struct relay_agent *agent) {
  struct session *session = &agent->session;

  relay__deadline_close(&session->timer, NULL);
  relay__deadline_close(&session->beat, NULL);
}
