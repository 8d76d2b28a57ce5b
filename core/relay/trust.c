/* SPDX-License-Identifier: MIT */
/*
 * Tokens in use. What a token may have is looked up by its id whenever that is
 * asked, so what the file says now is what counts. Whoever uses one that is no
 * longer good, since a newer file says so or its time is over, is ended there
 * and then: its session, its lease, and everything on it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "relay/private.h"

/* The clock of the wall may be set: it is looked at this often. */
#define LOOK_MS 30000
#define ERROR_MAX 1024

static int64_t wall_seconds(void) {
  return (int64_t)time(NULL);
}

const struct token *relay__trust_token(const struct relay *relay,
                                       const char *id) {
  return relay__tokens_find(relay->tokens, id);
}

const char *relay__trust_refusal(const struct relay *relay, const char *id) {
  if (relay->tokens == NULL)
    return NULL;
  if (id == NULL)
    return "no token";
  return relay__token_refusal(relay__trust_token(relay, id), wall_seconds());
}

/* ---- no longer good --------------------------------------------------- */

/* Why a token in use has to go; `former` is the file before, NULL: the same. */
static const char *judge(const struct relay *relay, const struct tokens *former,
                         const char *id) {
  const struct token *before = relay__tokens_find(former, id);
  const struct token *now = relay__trust_token(relay, id);
  const char *refusal = relay__trust_refusal(relay, id);

  if (before == NULL && now == NULL)
    return NULL; /* it never was of the file: a policy let it in */
  if (refusal == NULL && before != NULL &&
      !relay__secret_equals(before->key, now->key, sizeof(now->key)))
    return "token has another key now";
  return refusal;
}

static void end_session(struct session *session, const struct tokens *former) {
  const char *reason = judge(session->relay, former, session->token_id);

  if (reason == NULL)
    return;
  relay__log(&session->relay->logger, RELAY_LOG_WARN, "token withdrawn",
             LOG_TEXT("token", session->token_id),
             LOG_NUMBER("agent", session->number),
             LOG_NUMBER("port", session->port), LOG_TEXT("reason", reason));
  relay__session_end(session, RELAY_EDENIED, reason);
}

/* One whose agent is away. */
static void end_lease(struct lease *lease, const struct tokens *former) {
  const char *reason = judge(lease->relay, former, lease->token_id);

  if (reason == NULL || lease->session != NULL)
    return;
  relay__log(&lease->relay->logger, RELAY_LOG_WARN, "token withdrawn",
             LOG_TEXT("token", lease->token_id),
             LOG_NUMBER("port", lease->gate->port), LOG_TEXT("reason", reason));
  relay__lease_end(lease, RELAY_EDENIED, false);
}

/* A hook that is told of one may end any other, so the lists are turned round,
   one at a time. */
/* Those that prove a key, or have, and have not said what they want. */
static void sweep_handshakes(struct relay *relay, const struct tokens *former) {
  uint64_t count = 0;

  link_each(&relay->handshakes, link, next) {
    count++;
  }
  while (count-- > 0 && !link_is_empty(&relay->handshakes)) {
    struct handshake *handshake =
        container_of(relay->handshakes.next, struct handshake, link);
    const struct proof *proof = handshake->proof;

    link_remove(&handshake->link);
    link_append(&relay->handshakes, &handshake->link);
    if (proof != NULL && proof->claim == CLAIM_TOKEN &&
        judge(relay, former, proof->token_id) != NULL)
      relay__handshake_end(handshake);
  }
}

static void sweep(struct relay *relay, const struct tokens *former) {
  uint64_t count = relay->stats.agents;

  sweep_handshakes(relay, former);

  while (count-- > 0 && !link_is_empty(&relay->sessions)) {
    struct session *session =
        container_of(relay->sessions.next, struct session, link);

    link_remove(&session->link);
    link_append(&relay->sessions, &session->link);
    if (session->token_id != NULL)
      end_session(session, former);
  }
  count = relay->stats.leases;
  while (count-- > 0 && !link_is_empty(&relay->leases)) {
    struct lease *lease = container_of(relay->leases.next, struct lease, link);

    link_remove(&lease->link);
    link_append(&relay->leases, &lease->link);
    if (lease->token_id[0] != '\0')
      end_lease(lease, former);
  }
}

/* ---- time ------------------------------------------------------------- */

static void await_expiry(struct relay *relay) {
  int64_t now = wall_seconds();
  int64_t left;

  relay->tokens_expire = relay__tokens_next_expiry(relay->tokens, now);
  left = relay->tokens_expire - now;
  if (relay->tokens_expire == 0)
    relay__deadline_clear(&relay->tokens_due);
  else
    relay__deadline_set(&relay->tokens_due, left < LOOK_MS / 1000
                                                ? (uint64_t)left * 1000
                                                : LOOK_MS);
}

static void on_due(struct deadline *deadline) {
  struct relay *relay = container_of(deadline, struct relay, tokens_due);

  if (wall_seconds() >= relay->tokens_expire)
    sweep(relay, NULL);
  if (!relay->closing)
    await_expiry(relay);
}

/* ---- the file --------------------------------------------------------- */

int relay__trust_init(struct relay *relay) {
  char error[ERROR_MAX];
  int err;

  /* Before anything can fail: relay_close closes it. */
  relay__deadline_init(&relay->tokens_due, &relay->plane, on_due);
  if (relay->options.tokens != NULL || relay->policy.auth != NULL ||
      relay->options.tls_cert != NULL) {
    err = relay__tls_context_new(&relay->tls, true);
    if (err != 0)
      return err;
  }
  if (relay->options.tokens == NULL)
    return 0;
  relay->tokens_path = strdup(relay->options.tokens);
  relay->options.tokens = relay->tokens_path;
  if (relay->tokens_path == NULL)
    return UV_ENOMEM;
  err = relay__tokens_read(&relay->tokens, relay->tokens_path, error,
                           sizeof(error));
  if (err == 0)
    await_expiry(relay);
  else
    relay__log(&relay->logger, RELAY_LOG_ERROR, "tokens not read",
               LOG_TEXT("reason", error));
  return err;
}

void relay__trust_free(struct relay *relay) {
  relay__tls_context_free(relay->tls);
  relay__tokens_free(relay->tokens);
  free(relay->tokens_path);
}

int relay_reload_tokens(relay_t *r, char *error, size_t size) {
  struct tokens *former = r->tokens, *read;
  char reason[ERROR_MAX] = "there is no tokens file";
  int err = UV_EINVAL;

  if (r->tokens_path != NULL && !r->closing)
    err = relay__tokens_read(&read, r->tokens_path, reason, sizeof(reason));
  if (err != 0) {
    snprintf(error, size, "%s", reason);
    relay__log(&r->logger, RELAY_LOG_ERROR, "tokens stay as they were",
               LOG_TEXT("reason", reason));
    return err;
  }
  r->tokens = read;
  relay__log(&r->logger, RELAY_LOG_INFO, "tokens read",
             LOG_NUMBER("count", relay__tokens_count(read)));
  await_expiry(r);
  sweep(r, former);
  relay__tokens_free(former);
  return 0;
}
