/* SPDX-License-Identifier: MIT */
/*
 * Who a handshake over TLS says it is: what it names at its beginning, and what
 * its line may be then. The identities of keys:
 *
 *   t/ID    an agent with a token. `auth` decides about the key, or the file
 *   v/ID    a data connection for a visitor
 *   w/S/N   a waiting one; both with a key that only their session's ends have
 *
 * Whoever names none of these is shown the relay's certificate, if it has one,
 * and may say a token in its line.
 */
#include <string.h>

#include "relay/private.h"

/* ---- its key ---------------------------------------------------------- */

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
  static const uint8_t nobodys[SECRET_SIZE];
  uint8_t key[SECRET_SIZE];
  bool bound = session != NULL && session->bound;
  /* In any case: whether there is such a session takes no time. */
  bool has_key = relay__binding_secret(bound ? session->key : nobodys, identity,
                                       key) == 0 &&
                 bound;

  proof->decided = true;
  relay__proof_settle(proof, has_key ? key : NULL, fault);
  relay__secret_wipe(key, sizeof(key));
}

/* Decides about the key, or asks. */
void relay__claim_read(struct proof *proof) {
  struct relay *relay = proof->handshake->relay;
  const char *identity = relay__tls_identity(proof->handshake->stream);
  const char *name =
      identity[0] != '\0' && identity[1] == '/' ? identity + 2 : "";

  if (identity[0] == 't' && relay__token_id_is_valid(name)) {
    proof->claim = CLAIM_TOKEN;
    memcpy(proof->token_id, name, strlen(name) + 1);
    if (!relay->tls->mutual) {
      relay__proof_ask(proof);
      return;
    }
    proof->decided = true; /* its key is not enough */
    relay__proof_settle(proof, NULL, "a token alone: a certificate is needed");
    relay__proof_go_on(proof);
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
  } else if (relay->options.tls_cert != NULL) {
    proof->certified = true;
    if (relay__tls_certify(proof->handshake->stream, relay->tls) != 0) {
      relay__handshake_end(proof->handshake);
      return;
    }
  } else {
    proof->decided = true;
    relay__proof_settle(proof, NULL,
                        "a TLS handshake that names no key of ours");
  }
  relay__proof_go_on(proof);
}

bool relay__claim_fits(const struct proof *proof,
                       const struct wire_message *message) {
  const char *identity = relay__tls_identity(proof->handshake->stream);
  const char *session = relay__wire_get(message, "session");
  const char *id = relay__wire_get(message, "id");
  const char *n = relay__wire_get(message, "n");
  char named[BINDING_IDENTITY_SIZE] = "";

  switch (message->verb) {
  case WIRE_LISTEN:
    return proof->claim == CLAIM_TOKEN || proof->certified;
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

bool relay__claim_is_data(const struct handshake *handshake) {
  static const char begin[] = "RELAY/1 ";
  const struct proof *proof = handshake->proof;
  const char *verb = handshake->line + sizeof(begin) - 1;

  if (proof != NULL)
    return proof->claim == CLAIM_VISITOR || proof->claim == CLAIM_WAITING;
  return handshake->length >= sizeof(begin) &&
         memcmp(handshake->line, begin, sizeof(begin) - 1) == 0 &&
         (*verb == 'A' || *verb == 'W');
}

/* ---- certificates ----------------------------------------------------- */

/* Its certificate is as good as ours: who it is stands there. Where there is a
   tokens file, that alone makes nobody known. */
void relay__claim_show(struct proof *proof) {
  struct handshake *handshake = proof->handshake;
  const struct relay *relay = handshake->relay;
  struct subject *subject = &proof->subject;
  int err = 0;

  if (relay->tls->mutual)
    err =
        relay__tls_peer(handshake->stream, subject->name, subject->fingerprint);
  if (err == RELAY_ECERT) {
    relay__handshake_fail(handshake, RELAY_EDENIED,
                          "a certificate with a common name is needed",
                          "its certificate has no proper common name");
  } else if (err != 0) {
    relay__handshake_end(handshake);
  } else {
    if (relay->tls->mutual && relay->tokens == NULL)
      relay__handshake_prove(handshake);
    if (!handshake->ended)
      relay__handshake_listen(handshake);
  }
}

bool relay__claim_takes(struct proof *proof,
                        const struct wire_message *listen) {
  const struct relay *relay = proof->handshake->relay;
  const char *token = relay__wire_get(listen, "token");
  int err;

  if (!proof->certified || proof->proven || token == NULL ||
      (relay->tokens == NULL && relay->policy.auth == NULL))
    return false;
  err = relay__token_key(token, proof->token_id, proof->key);
  if (err == 0) {
    proof->claim = CLAIM_TOKEN;
    relay__proof_ask(proof);
  } else if (err == UV_EINVAL) {
    relay__handshake_fail(proof->handshake, RELAY_EDENIED, TOKEN_REFUSAL,
                          "what it says is no token");
  } else {
    relay__handshake_end(proof->handshake);
  }
  return true;
}

static const char *describe_certificate(const struct proof *proof) {
  const struct stream *stream = proof->handshake->stream;
  int verdict = relay__tls_verdict(stream);

  if (stream->tls->disbelieved)
    return "it does not believe the relay's certificate";
  return verdict == X509_V_OK ? "it has no certificate"
                              : X509_verify_cert_error_string(verdict);
}

const char *relay__claim_fault(const struct proof *proof, int error) {
  if (error == RELAY_ECERT)
    return describe_certificate(proof);
  if (error != RELAY_EKEY)
    return error == RELAY_ETLS ? "a TLS handshake that is not ours"
                               : relay_strerror(error);
  return proof->fault != NULL ? proof->fault : "wrong key";
}
