/* SPDX-License-Identifier: MIT */
/*
 * Handshakes over TLS: who the other end says it is (claim.c), the key it has
 * to prove for that, and its line once it has:
 *
 *   shaking ─identity─► (asked) ─key─► shaking ─proven─► (asked) ─► its line
 *
 * Or it is shown the relay's certificate; then the token comes in the line, and
 * the rest is the same:
 *
 *   shaking ─► shown ─► its line ─token─► (asked) ─key─► proven ─► (asked)
 *
 * A hook may wait twice: before it has a key to give, and for what it does once
 * that is proven. The handshake's clock stands still meanwhile. Whoever can
 * prove nothing, since nobody knows it or somebody said no, goes on with a key
 * that nobody has: from outside one is as good as the other.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "relay/private.h"

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

void relay__proof_settle(struct proof *proof, const uint8_t *key,
                         const char *fault) {
  if (key == NULL)
    proof->fault = fault;
  if (proof->settled)
    return;
  proof->settled = true;
  if (!proof->certified)
    relay__tls_settle(proof->handshake->stream, key);
  else if (key != NULL)
    proof->fits = relay__secret_equals(proof->key, key, SECRET_SIZE);
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
    relay__proof_settle(proof, NULL, "a key that is not its token's");
  else
    relay__proof_settle(proof, key, fault);
}

/* By relay_verify. */
static void take_key(struct proof *proof, const uint8_t key[SECRET_SIZE]) {
  const char *fault;
  const uint8_t *ours = find_key(proof, &fault);

  proof->keyed = true;
  proof->of_file = ours != NULL && relay__secret_equals(ours, key, SECRET_SIZE);
  relay__proof_settle(proof, key, NULL);
}

/* Anybody can make the policy say its words. */
static void log_denied(struct proof *proof, const char *reason) {
  struct relay *relay = proof->handshake->relay;

  if (!relay__denial_is_due(relay))
    return;
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
    relay__proof_settle(proof, NULL, "denied by policy");
  } else {
    proof->admitted = true;
    proof->plain = given->plain != 0;
    take_owner(proof, given->name);
    if (proof->keyed)
      return;
    if (given->key_size != 0)
      relay__proof_settle(proof, given->key, "policy gave a key that is none");
    else
      settle_from_file(proof);
  }
}

/* ---- asking ----------------------------------------------------------- */

/* What of a ClientHello tells that it is one: a header, and its first byte. */
#define HELLO_BEGIN 6
#define TLS_FIRST_BYTE 0x16

#define BROKE_OFF "its TLS handshake broke off"

static void on_waiting_event(struct stream *stream, int events) {
  struct handshake *handshake = stream->owner;

  (void)events;
  if (stream->reset && handshake->proof->proven)
    relay__handshake_end(handshake);
  else if (stream->reset)
    relay__handshake_reject(handshake, BROKE_OFF);
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
  relay__proof_go_on(proof);
}

void relay__proof_decide(struct proof *proof, const relay_verdict *verdict) {
  bool rested = !proof->settled || proof->proven;

  take_verdict(proof, verdict);
  if (rested)
    resume(proof);
}

/* What follows from a token is compared at once; that is told from the loop,
   and not within the policy's own call. */
void relay__proof_verify(struct proof *proof, const uint8_t key[SECRET_SIZE]) {
  take_key(proof, key);
  proof->due = proof->certified;
  if (proof->due)
    relay__deadline_set(&proof->handshake->deadline, 0);
  else
    resume(proof);
}

void relay__proof_due(struct proof *proof) {
  proof->due = false;
  resume(proof);
}

void relay__proof_late(struct handshake *handshake) {
  struct proof *proof = handshake->proof;

  relay__question_drop(handshake->relay, &proof->question);
  if (handshake->ended) /* by cancel */
    return;
  proof->decided = true;
  log_denied(proof, "the policy took too long");
  relay__proof_settle(proof, NULL, "the policy took too long");
  resume(proof);
}

void relay__proof_ask(struct proof *proof) {
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
    relay__proof_go_on(proof);
  else
    rest(proof);
}

/* ---- shaking ---------------------------------------------------------- */

static void on_proven(struct proof *proof) {
  struct handshake *handshake = proof->handshake;

  if (!proof->proven) {
    proof->proven = true;
    relay__handshake_prove(handshake);
  }
  if (handshake->ended)
    return;
  if (proof->decided && proof->fault == NULL) {
    if (proof->certified)
      relay__handshake_go_on(handshake);
    else
      relay__handshake_listen(handshake);
  } else if (proof->decided) {
    relay__handshake_fail(handshake, RELAY_EDENIED,
                          proof->certified ? TOKEN_REFUSAL : NULL,
                          proof->fault);
  } else {
    rest(proof); /* first: the hook may settle, and more, at once */
    if (!handshake->ended)
      relay__tell_proven(handshake->relay, proof->question.call);
  }
}

static void shake(struct proof *proof) {
  struct handshake *handshake = proof->handshake;
  int status = relay__tls_handshake(handshake->stream);

  if (status == 0)
    status = relay__stream_watch(handshake->stream, UV_READABLE);
  if (status == TLS_IDENTIFIED)
    relay__claim_read(proof);
  else if (status == TLS_DONE && proof->certified)
    relay__claim_show(proof);
  else if (status == TLS_DONE)
    on_proven(proof);
  else if (status < 0 && handshake->stream->reset)
    relay__handshake_reject(handshake, BROKE_OFF);
  else if (status < 0)
    relay__handshake_fail(handshake, RELAY_EKEY, NULL,
                          relay__claim_fault(proof, status));
}

static void on_event(struct stream *stream, int events) {
  struct handshake *handshake = stream->owner;

  (void)events;
  shake(handshake->proof);
}

/* With its key settled, or proven already. */
void relay__proof_go_on(struct proof *proof) {
  relay__stream_own(proof->handshake->stream, on_event, proof->handshake);
  if (proof->proven || (proof->certified && proof->settled && proof->fits))
    on_proven(proof);
  else if (proof->certified && proof->settled)
    relay__handshake_fail(proof->handshake, RELAY_EDENIED, TOKEN_REFUSAL,
                          proof->fault != NULL ? proof->fault : "wrong key");
  else
    shake(proof);
}

/* ---- its first bytes -------------------------------------------------- */

/* A record of TLS, and in it a ClientHello. */
static bool begins_hello(const uint8_t *bytes, ssize_t count) {
  return count > 0 && bytes[0] == TLS_FIRST_BYTE &&
         (count < 2 || bytes[1] == 3) && (count < HELLO_BEGIN || bytes[5] == 1);
}

/* So that poll is silent until there are so many; or the end, which it tells
   without end. */
static void wake_at(const struct handshake *handshake, int count) {
  setsockopt(handshake->stream->fd, SOL_SOCKET, SO_RCVLOWAT, &count,
             sizeof(count));
}

enum proof_look relay__proof_look(struct handshake *handshake) {
  uint8_t bytes[HELLO_BEGIN];
  bool was_begun = handshake->begun;
  ssize_t count;

  if (handshake->relay->tls == NULL || handshake->proof != NULL ||
      handshake->length != 0)
    return PROOF_NONE;
  count = relay__stream_peek(handshake->stream, bytes, sizeof(bytes));
  if (count == UV_EAGAIN)
    return PROOF_UNSEEN;
  if (count < HELLO_BEGIN && !was_begun && begins_hello(bytes, count)) {
    handshake->begun = true;
    wake_at(handshake, HELLO_BEGIN);
    return PROOF_BEGUN;
  }
  if (was_begun)
    wake_at(handshake, 1);
  return count == HELLO_BEGIN && begins_hello(bytes, count) ? PROOF_THERE
                                                            : PROOF_NONE;
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
  relay__proof_go_on(proof);
}
