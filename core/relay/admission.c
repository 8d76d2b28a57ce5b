/* SPDX-License-Identifier: MIT */
/*
 * From LISTEN to an address:
 *
 *   LISTEN ─► auth ─► resume ───────────────────────► established
 *                └──► allocate ─► bind ─► (taken: again) ─┘
 *
 * A hook may wait; then the stream is only watched for a reset, and what the
 * agent says meanwhile stays in the kernel.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

static void ask_allocate(struct session *session);

/* Where penalties are in force, who has proven nothing fills no log. */
static void log_refusal(const struct session *session, const char *why) {
  struct relay *relay = session->relay;

  if (relay->penalties.on && session->token_id == NULL &&
      !relay__denial_is_due(relay))
    return;
  relay__log(&relay->logger, RELAY_LOG_WARN, "agent refused",
             LOG_NUMBER("agent", session->number),
             LOG_TEXT("from", session->from), LOG_TEXT("name", session->name),
             LOG_TEXT("reason", why));
}

/* Ends one that never got an address, with an ERR. */
static void refuse(struct session *session, int error, const char *text) {
  struct relay *relay = session->relay;
  struct stream *stream = session->stream;

  log_refusal(session, text != NULL ? text : relay_strerror(error));
  relay__session_withdraw(session, error);
  relay__deadline_close(&session->deadline, relay__session_free);
  /* Why a policy would not let somebody in is for the log only. */
  relay__refuse(relay, stream, error, error == RELAY_EDENIED ? NULL : text);
}

/* One who is at fault: `why` is for the log only. */
static void refuse_stranger(struct session *session, int error,
                            const char *why) {
  struct relay *relay = session->relay;
  struct stream *stream = session->stream;

  relay__session_withdraw(session, error);
  relay__deadline_close(&session->deadline, relay__session_free);
  relay__refuse_stranger(relay, stream, session->from, error, why);
}

static void on_deadline(struct deadline *deadline) {
  struct session *session = container_of(deadline, struct session, deadline);

  if (session->stream == NULL) {
    relay__session_beat(session);
    return;
  }
  relay__question_drop(session->relay, &session->question);
  if (session->ended) /* by cancel */
    return;
  /* In auth that is a no; one that was let in may try again. */
  refuse(session, session->admitted ? RELAY_EHOOK : RELAY_EDENIED,
         "the policy took too long");
}

static int allowed_port(const struct session *session, unsigned port) {
  const struct relay *relay = session->relay;
  const struct token *token = relay__trust_token(relay, session->token_id);

  if (token != NULL && token->ports_count != 0)
    return relay__token_allows_port(token, port) ? 0 : RELAY_EPORT_REFUSED;
  if (relay->options.port_lo != 0)
    return port >= relay->options.port_lo && port <= relay->options.port_hi
               ? 0
               : RELAY_EPORT_REFUSED;
  return port >= 1024 ? 0 : RELAY_EPORT_REFUSED;
}

static bool has_room(const struct session *session) {
  const struct relay *relay = session->relay;
  const struct token *token = relay__trust_token(relay, session->token_id);
  unsigned limit = token != NULL && token->leases != 0
                       ? token->leases
                       : relay->options.max_leases_per_owner;
  unsigned count = relay__lease_count(session);

  /* One that this one is to replace does not count. */
  return count < limit ||
         (count == limit && relay__lease_owned(session) != NULL);
}

static void open_lease(struct session *session, const struct verdict *verdict) {
  const relay_verdict *given = &verdict->given;
  unsigned port = given->port != 0 ? given->port : session->want_port;
  int err = 0;

  if (given->host != NULL && *given->host != '\0' &&
      !relay__address_is_host(given->host)) {
    refuse(session, RELAY_EHOOK, "the policy's host cannot be one");
    return;
  }
  if (port > 65535)
    err = RELAY_EPORT_REFUSED;
  else if (port != 0 && given->port == 0)
    err = allowed_port(session, port);
  if (err == 0 && !has_room(session)) /* others came while a hook was asked */
    err = RELAY_EQUOTA;
  if (err == 0)
    err = relay__lease_open(session, port, given->port != 0, given->host,
                            given->share != 0);
  if (err == 0)
    relay__lease_supersede(session);
  if (session->ended) /* by agent_gone of the former */
    return;
  if (err == 0)
    relay__session_establish(session, false);
  else if (err == UV_EADDRINUSE && session->relay->policy.allocate != NULL &&
           session->attempt < ALLOCATE_ATTEMPTS)
    ask_allocate(session);
  else if (err == UV_EADDRINUSE)
    refuse(session, RELAY_EPORT_TAKEN, NULL);
  else if (err == UV_EACCES)
    refuse(session, RELAY_EPORT_REFUSED, NULL);
  else
    refuse(session, err > RELAY_EPROTO ? RELAY_EBUSY : err,
           relay_strerror(err));
}

static void on_allocated(struct session *session,
                         const struct verdict *verdict) {
  if (verdict->given.answer != RELAY_ALLOW &&
      verdict->given.answer != RELAY_PICK)
    refuse(session, RELAY_EPORT_REFUSED,
           verdict->given.reason != NULL ? verdict->given.reason
                                         : "denied by policy");
  else
    open_lease(session, verdict);
}

static void ask_allocate(struct session *session) {
  struct verdict verdict;

  session->attempt++;
  if (relay__ask_allocate(session, &verdict))
    on_allocated(session, &verdict);
  else if (!session->ended)
    relay__deadline_set(&session->deadline,
                        session->relay->options.hook_agent_ms);
}

/* A ticket is worth nothing to whom it was not given. */
static bool is_owner(const struct session *session, const struct lease *lease) {
  const char *id = session->token_id != NULL ? session->token_id : "";

  return strcmp(lease->token_id, id) == 0;
}

/* The one it comes back to: by its ticket, or by its key and the name, unless
   it wants another port than it has there. */
static struct lease *find_lease(const struct session *session) {
  struct lease *lease = relay__lease_find(session->relay, session->resume);

  if (lease != NULL && is_owner(session, lease))
    return lease;
  lease = relay__lease_owned(session);
  return lease != NULL && (session->want_port == 0 ||
                           session->want_port == lease->gate->port)
             ? lease
             : NULL;
}

static void on_authenticated(struct session *session,
                             const struct verdict *verdict) {
  struct relay *relay = session->relay;
  struct lease *lease;

  if (verdict->given.answer == RELAY_ABSTAIN) {
    const char *refusal = relay__trust_refusal(
        relay, session->by_token ? session->token_id : NULL);

    if (refusal != NULL) {
      refuse_stranger(session, RELAY_EDENIED, refusal);
      return;
    }
  } else if (verdict->given.answer != RELAY_ALLOW) { /* or an answer to what
                                                 nobody asked: that is no yes */
    refuse(session, RELAY_EDENIED, verdict->given.reason);
    return;
  }
  session->admitted = true;
  lease = find_lease(session);
  if (lease != NULL) {
    relay__lease_attach(lease, session);
    if (!session->ended)
      relay__session_establish(session, true);
  } else if (!has_room(session)) {
    refuse(session, RELAY_EQUOTA, relay_strerror(RELAY_EQUOTA));
  } else {
    ask_allocate(session);
  }
}

void relay__session_decide(struct session *session,
                           const relay_verdict *given) {
  struct verdict verdict;

  memset(&verdict, 0, sizeof(verdict));
  verdict.given = *given;
  relay__deadline_clear(&session->deadline);
  if (session->admitted)
    on_allocated(session, &verdict);
  else
    on_authenticated(session, &verdict);
}

/* While a hook waits, all there is to hear is that the agent left. */
static void on_early_event(struct stream *stream, int events) {
  struct session *session = stream->owner;

  (void)events;
  if (stream->reset)
    relay__session_end(session, stream->error, NULL);
}

static void copy_value(const struct wire_message *message, const char *key,
                       char *to, size_t size) {
  const char *value = relay__wire_get(message, key);
  size_t length = value != NULL ? strlen(value) : 0;

  if (length >= size)
    length = 0; /* longer than any we would give out or could keep */
  if (length != 0)
    memcpy(to, value, length);
  to[length] = '\0';
}

static bool asks_for_plain(const struct wire_message *listen) {
  const char *data = relay__wire_get(listen, "data");

  return data != NULL && strcmp(data, "plain") == 0;
}

static int read_listen(struct session *session,
                       const struct wire_message *listen) {
  uint64_t port = 0;
  uint64_t pool = 0;

  if (relay__wire_get_number(listen, "port", 65535, &port) < 0 ||
      relay__wire_get_number(listen, "pool", UINT32_MAX, &pool) < 0)
    return RELAY_EPROTO;
  session->want_port = (unsigned)port;
  session->want_plain = asks_for_plain(listen);
  session->pool = pool < session->relay->options.max_pool
                      ? (unsigned)pool
                      : session->relay->options.max_pool;
  copy_value(listen, "name", session->name, sizeof(session->name));
  copy_value(listen, "host", session->dialed, sizeof(session->dialed));
  copy_value(listen, "resume", session->resume, sizeof(session->resume));
  return 0;
}

static int enroll(struct session *session) {
  struct relay *relay = session->relay;
  int err = relay__id_make(session->id);

  if (err == 0)
    err = relay__registry_add(&relay->registry, &session->by_number,
                              ENTRY_AGENT, session->number);
  if (err == 0)
    err = relay__registry_add(&relay->registry, &session->by_id,
                              ENTRY_SESSION_ID, relay__id_key(session->id));
  return err;
}

/* Whether one more agent finds room: the connection is here already, its
   listener is to come. */
static int find_room(struct relay *relay) {
  if (relay->draining || relay->closing)
    return RELAY_EDRAINING;
  if (relay->stats.agents >= relay->options.max_agents ||
      !relay__plane_has_descriptors(&relay->plane, 1))
    return RELAY_EBUSY;
  return 0;
}

/* Over TLS, its data connections are bound to it. */
static int bind_data(struct session *session, const struct proof *proof) {
  const struct relay *relay = session->relay;
  const struct token *token = relay__trust_token(relay, session->token_id);

  if (session->stream->tls == NULL)
    return 0;
  session->bound = true;
  session->plain = relay->options.plain && session->want_plain &&
                   (proof->plain || (token != NULL && token->plain));
  return relay__binding_export(session->stream, session->key);
}

static void take_proof(struct session *session, const struct proof *proof) {
  if (proof == NULL)
    return;
  session->by_token = proof->claim == CLAIM_TOKEN;
  session->subject = proof->subject;
  if (session->by_token) {
    memcpy(session->token_text, proof->token_id, sizeof(proof->token_id));
    memcpy(session->owner, proof->owner, sizeof(session->owner));
  } else if (proof->subject.name[0] != '\0') {
    snprintf(session->token_text, sizeof(session->token_text),
             CERTIFICATE_PREFIX "%s", proof->subject.name);
    memcpy(session->owner, proof->subject.name, sizeof(session->owner));
  }
  if (session->token_text[0] != '\0')
    session->token_id = session->token_text;
  session->admitted = proof->admitted;
  if (proof->number != 0)
    session->number = proof->number;
}

static struct session *make_session(struct relay *relay, struct stream *stream,
                                    const char *from) {
  struct session *session = calloc(1, sizeof(*session));
  unsigned from_port;

  if (session == NULL)
    return NULL;
  session->relay = relay;
  session->stream = stream;
  session->started_ms = relay__now_ms(relay);
  memcpy(session->from, from, strlen(from) + 1);
  relay__address_split(from, session->from_host, sizeof(session->from_host),
                       &from_port);
  link_init(&session->waiting);
  link_append(&relay->sessions, &session->link);
  relay->stats.agents++;
  relay->stats.agents_total++;
  relay__deadline_init(&session->deadline, &relay->plane, on_deadline);
  relay__stream_own(stream, on_early_event, session);
  return session;
}

/* What was decided while its key was proven is not asked again. */
static void decide(struct session *session) {
  struct verdict verdict;

  memset(&verdict, 0, sizeof(verdict));
  verdict.given.answer = session->admitted ? RELAY_ALLOW : RELAY_ABSTAIN;
  if (session->by_token || relay__ask_auth(session, &verdict))
    on_authenticated(session, &verdict);
  else if (!session->ended)
    relay__deadline_set(&session->deadline,
                        session->relay->options.hook_agent_ms);
}

/* There is no memory for its session. */
static void tell_gone(struct relay *relay, const struct proof *proof) {
  relay_agent_info info;

  if (proof == NULL || !proof->admitted)
    return;
  relay__proof_info(proof, &info);
  relay__tell_agent_gone(relay, &info, UV_ENOMEM);
}

void relay__session_start(struct relay *relay, struct stream *stream,
                          const struct wire_message *listen, const char *from,
                          const struct proof *proof) {
  int err = find_room(relay);
  struct session *session = make_session(relay, stream, from);

  if (session == NULL) {
    relay__stream_close(stream);
    tell_gone(relay, proof);
    return;
  }
  take_proof(session, proof);
  if (session->number == 0)
    session->number = ++relay->next_id;
  if (err == 0)
    err = read_listen(session, listen);
  if (err == 0)
    err = enroll(session);
  if (err == 0)
    err = bind_data(session, proof);
  if (err == 0)
    err = relay__stream_watch(stream, 0);
  if (err == RELAY_EPROTO && session->token_id == NULL)
    refuse_stranger(session, err, "a LISTEN with a number that is none");
  else if (err != 0)
    refuse(session, err > RELAY_EPROTO ? RELAY_EBUSY : err, NULL);
  else
    decide(session);
}
