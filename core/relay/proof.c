/* SPDX-License-Identifier: MIT */
/*
 * Handshakes over TLS: who the other end says it is, the key it has to prove
 * for that, and its line once it has. The identities:
 *
 *   t/ID    an agent with a token. `auth` decides about the key, or the file
 *   v/ID    a data connection for a visitor
 *   w/S/N   a waiting one; both with a key that only their session's ends have
 *
 *   shaking ─identity─► (asked) ─key─► shaking ─proven─► (asked) ─► its line
 *
 * A hook may wait twice: before it has a key to give, and for what it does once
 * that is proven. The handshake's clock stands still meanwhile. Whoever can
 * prove nothing, since nobody knows it or somebody said no, goes on with a key
 * that nobody has: from outside one is as good as the other.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

#define DENIED_LOG_MS 1000

static void go_on(struct proof *proof);

/* ---- what is known of it ---------------------------------------------- */

void relay__proof_info(const struct proof *proof, relay_agent_info *info) {
  memset(info, 0, sizeof(*info));
  info->size = sizeof(*info);
  info->id = proof->number;
  info->name = "";
  info->addr = proof->from_host;
  info->since_ms = relay__now_ms(proof->handshake->relay) - proof->since_ms;
  info->owner = proof->owner;
}

void relay__proof_leave(struct proof *proof) {
  relay__registry_remove(&proof->handshake->relay->registry, &proof->by_number);
}

void relay__proof_end(struct proof *proof) {
  struct relay *relay = proof->handshake->relay;
  relay_agent_info info;

  relay__proof_leave(proof);
  relay__question_drop(relay, &proof->question);
  relay__proof_info(proof, &info);
  if (proof->admitted)
    relay__tell_agent_gone(relay, &info, RELAY_EKEY);
}

/* ---- clocks ----------------------------------------------------------- */

/* From the handshake's clock to the hook's, and back. */
static void start_hook_clock(struct proof *proof) {
  struct handshake *handshake = proof->handshake;
  uint64_t now = relay__now_ms(handshake->relay);

  proof->left_ms = handshake->due_ms > now ? handshake->due_ms - now : 0;
  handshake->due_ms = now + proof->hook_left_ms;
  relay__deadline_set(&handshake->deadline, proof->hook_left_ms);
}

static void stop_hook_clock(struct proof *proof) {
  struct handshake *handshake = proof->handshake;
  uint64_t now = relay__now_ms(handshake->relay);

  proof->hook_left_ms = handshake->due_ms > now ? handshake->due_ms - now : 0;
  handshake->due_ms = now + proof->left_ms;
  relay__deadline_set(&handshake->deadline, proof->left_ms);
}

/* ---- its key ---------------------------------------------------------- */

static void settle(struct proof *proof, const uint8_t *key, const char *fault) {
  if (key == NULL)
    proof->fault = fault;
  if (!proof->handshake->stream->tls->settled)
    relay__tls_settle(proof->handshake->stream, key);
}

/* The one that the tokens file has for it; NULL: none, and why. */
static const uint8_t *find_key(const struct proof *proof, const char **fault) {
  const struct relay *relay = proof->handshake->relay;
  const struct token *token = relay__trust_token(relay, proof->token_id);

  *fault = token != NULL ? relay__trust_refusal(relay, proof->token_id)
                         : "unknown token";
  return *fault == NULL ? token->key : NULL;
}

/* The file decides, also about a key that was given before. */
static void settle_from_file(struct proof *proof) {
  const char *fault;
  const uint8_t *key = find_key(proof, &fault);

  if (key != NULL && proof->keyed && !proof->of_file)
    settle(proof, NULL, "a key that is not its token's");
  else
    settle(proof, key, fault);
}

/* By relay_verify. */
static void take_key(struct proof *proof, const uint8_t key[SECRET_SIZE]) {
  const char *fault;
  const uint8_t *ours = find_key(proof, &fault);

  proof->keyed = true;
  proof->of_file = ours != NULL && relay__secret_equals(ours, key, SECRET_SIZE);
  settle(proof, key, NULL);
}

/* The policy's words, at most once a second: anybody can make it say them. */
static void log_denied(struct proof *proof, const char *reason) {
  struct relay *relay = proof->handshake->relay;
  uint64_t now = relay__now_ms(relay);

  if (now - relay->denied_logged_ms < DENIED_LOG_MS &&
      relay->denied_logged_ms != 0)
    return;
  relay->denied_logged_ms = now;
  relay__log(&relay->logger, RELAY_LOG_WARN, "agent refused",
             LOG_NUMBER("agent", proof->number),
             LOG_TEXT("from", proof->handshake->from),
             LOG_TEXT("token", proof->token_id),
             LOG_TEXT("reason", reason != NULL ? reason : "denied by policy"));
}

static void take_owner(struct proof *proof, const char *name) {
  size_t length = name != NULL ? strlen(name) : 0;

  if (length == 0 || length >= sizeof(proof->owner))
    return;
  memcpy(proof->owner, name, length + 1);
}

static void take_verdict(struct proof *proof, const relay_verdict *given) {
  proof->decided = true;
  if (given->answer == RELAY_ABSTAIN) {
    settle_from_file(proof);
  } else if (given->answer != RELAY_ALLOW) {
    log_denied(proof, given->reason);
    settle(proof, NULL, "denied by policy");
  } else {
    proof->admitted = true;
    proof->plain = given->plain != 0;
    take_owner(proof, given->name);
    if (proof->keyed)
      return;
    if (given->key_size != 0)
      settle(proof, given->key, "policy gave a key that is none");
    else
      settle_from_file(proof);
  }
}

/* ---- asking ----------------------------------------------------------- */

static void on_waiting_event(struct stream *stream, int events) {
  (void)events;
  if (stream->reset)
    relay__handshake_end(stream->owner);
}

/* A hook waits; of the stream only a reset is heard. */
static void rest(struct proof *proof) {
  struct handshake *handshake = proof->handshake;

  start_hook_clock(proof);
  relay__stream_own(handshake->stream, on_waiting_event, handshake);
  if (relay__stream_watch(handshake->stream, 0) != 0)
    relay__handshake_end(handshake);
}

static void resume(struct proof *proof) {
  stop_hook_clock(proof);
  go_on(proof);
}

void relay__proof_decide(struct proof *proof, const relay_verdict *verdict) {
  bool rested = !proof->handshake->stream->tls->settled || proof->proven;

  take_verdict(proof, verdict);
  if (rested)
    resume(proof);
}

void relay__proof_verify(struct proof *proof, const uint8_t key[SECRET_SIZE]) {
  take_key(proof, key);
  resume(proof);
}

void relay__proof_late(struct handshake *handshake) {
  struct proof *proof = handshake->proof;

  relay__question_drop(handshake->relay, &proof->question);
  if (handshake->ended) /* by cancel */
    return;
  proof->decided = true;
  log_denied(proof, "the policy took too long");
  settle(proof, NULL, "the policy took too long");
  resume(proof);
}

static void ask(struct proof *proof) {
  struct relay *relay = proof->handshake->relay;
  struct handshake *handshake = proof->handshake;
  uint8_t key[SECRET_SIZE];
  struct verdict verdict;
  bool decided, keyed;

  take_owner(proof, proof->token_id);
  proof->number = ++relay->next_id;
  proof->hook_left_ms = relay->options.hook_agent_ms;
  if (relay__registry_add(&relay->registry, &proof->by_number, ENTRY_PROVING,
                          proof->number) != 0) {
    relay__handshake_end(handshake);
    return;
  }
  decided = relay__ask_proof(proof, &verdict, &keyed, key);
  if (!handshake->ended && keyed)
    take_key(proof, key);
  relay__secret_wipe(key, sizeof(key));
  if (!handshake->ended && decided)
    take_verdict(proof, &verdict.given);
  relay__verdict_wipe(&verdict);
  if (handshake->ended)
    return;
  if (decided || keyed)
    go_on(proof);
  else
    rest(proof);
}

/* ---- who it says it is ------------------------------------------------ */

static struct session *session_of_visitor(struct relay *relay, const char *id) {
  struct visitor *visitor = relay__visitor_find(relay, id);
  struct entry *entry =
      visitor != NULL
          ? relay__registry_find(&relay->registry, ENTRY_AGENT, visitor->agent)
          : NULL;

  return entry != NULL ? container_of(entry, struct session, by_number) : NULL;
}

static struct session *session_of_waiting(struct relay *relay,
                                          const char *rest) {
  const char *end = strchr(rest, '/');
  char id[WIRE_ID_LENGTH + 1];

  if (end == NULL || end - rest != WIRE_ID_LENGTH)
    return NULL;
  memcpy(id, rest, WIRE_ID_LENGTH);
  id[WIRE_ID_LENGTH] = '\0';
  return relay__session_find(relay, id);
}

static void settle_data(struct proof *proof, const struct session *session,
                        const char *identity, const char *fault) {
  uint8_t key[SECRET_SIZE];
  bool has_key = session != NULL && session->bound &&
                 relay__binding_secret(session->key, identity, key) == 0;

  proof->decided = true;
  settle(proof, has_key ? key : NULL, fault);
  relay__secret_wipe(key, sizeof(key));
}

/* Decides about the key, or asks. */
static void identify(struct proof *proof) {
  struct relay *relay = proof->handshake->relay;
  const char *identity = relay__tls_identity(proof->handshake->stream);
  const char *name =
      identity[0] != '\0' && identity[1] == '/' ? identity + 2 : "";

  if (identity[0] == 't' && relay__token_id_is_valid(name)) {
    proof->claim = CLAIM_TOKEN;
    memcpy(proof->token_id, name, strlen(name) + 1);
    ask(proof);
    return;
  }
  if (identity[0] == 'v' && name[0] != '\0') {
    proof->claim = CLAIM_VISITOR;
    settle_data(proof, session_of_visitor(relay, name), identity,
                "no such visitor");
  } else if (identity[0] == 'w' && name[0] != '\0') {
    proof->claim = CLAIM_WAITING;
    settle_data(proof, session_of_waiting(relay, name), identity,
                "no such session");
  } else {
    proof->decided = true;
    settle(proof, NULL, "a TLS handshake that names no key of ours");
  }
  go_on(proof);
}

bool relay__proof_fits(const struct proof *proof,
                       const struct wire_message *message) {
  const char *identity = relay__tls_identity(proof->handshake->stream);
  const char *session = relay__wire_get(message, "session");
  const char *id = relay__wire_get(message, "id");
  const char *n = relay__wire_get(message, "n");
  char named[BINDING_IDENTITY_SIZE] = "";

  switch (message->verb) {
  case WIRE_LISTEN:
    return proof->claim == CLAIM_TOKEN;
  case WIRE_ACCEPT:
    return proof->claim == CLAIM_VISITOR && id != NULL &&
           relay__binding_accept(named, sizeof(named), id) == 0 &&
           relay__id_equals(named, identity);
  case WIRE_WAIT:
    return proof->claim == CLAIM_WAITING && session != NULL && n != NULL &&
           relay__binding_wait(named, sizeof(named), session, n) == 0 &&
           relay__id_equals(named, identity);
  default:
    return false;
  }
}

/* ---- shaking ---------------------------------------------------------- */

static void on_proven(struct proof *proof) {
  struct handshake *handshake = proof->handshake;

  proof->proven = true;
  relay__handshake_prove(handshake);
  if (proof->decided && proof->fault == NULL) {
    relay__handshake_listen(handshake);
  } else if (proof->decided) {
    relay__handshake_fail(handshake, RELAY_EDENIED, NULL, proof->fault);
  } else {
    rest(proof); /* first: the hook may settle, and more, at once */
    if (!handshake->ended)
      relay__tell_proven(handshake->relay, proof->question.call);
  }
}

static const char *describe(const struct proof *proof, int error) {
  if (error != RELAY_EKEY)
    return error == RELAY_ETLS ? "a TLS handshake that is not ours"
                               : "its TLS handshake broke off";
  return proof->fault != NULL ? proof->fault : "wrong key";
}

static void shake(struct proof *proof) {
  struct handshake *handshake = proof->handshake;
  int status = relay__tls_handshake(handshake->stream);

  if (status == 0)
    status = relay__stream_watch(handshake->stream, UV_READABLE);
  if (status == TLS_IDENTIFIED)
    identify(proof);
  else if (status == TLS_DONE)
    on_proven(proof);
  else if (status < 0 && handshake->stream->reset)
    relay__handshake_end(handshake);
  else if (status < 0)
    relay__handshake_fail(handshake, RELAY_EKEY, NULL, describe(proof, status));
}

static void on_event(struct stream *stream, int events) {
  struct handshake *handshake = stream->owner;

  (void)events;
  shake(handshake->proof);
}

/* With its key settled, or proven already. */
static void go_on(struct proof *proof) {
  relay__stream_own(proof->handshake->stream, on_event, proof->handshake);
  if (proof->proven)
    on_proven(proof);
  else
    shake(proof);
}

void relay__proof_start(struct handshake *handshake) {
  struct proof *proof = calloc(1, sizeof(*proof));
  unsigned port;

  if (proof == NULL ||
      relay__tls_accept(handshake->stream, handshake->relay->tls) != 0) {
    free(proof);
    relay__handshake_end(handshake);
    return;
  }
  handshake->proof = proof;
  proof->handshake = handshake;
  proof->since_ms = relay__now_ms(handshake->relay);
  relay__address_split(handshake->from, proof->from_host,
                       sizeof(proof->from_host), &port);
  go_on(proof);
}
