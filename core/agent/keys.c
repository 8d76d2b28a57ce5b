/* SPDX-License-Identifier: MIT */
/*
 * What a token means for an agent: it proves the token's key on its control
 * connection, has the relay prove it, and makes of what both have in common
 * then the keys of its data connections. Where the relay is known by its
 * certificate, it is told the token, inside of TLS; the rest is the same.
 * Without either nothing of this happens; with one, nothing happens without it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/private.h"
#include "net/binding.h"

int relay__keys_take(struct relay_agent *agent) {
  bool certified = relay__certs_are_wanted(&agent->options);
  const char *token = agent->options.token;
  int err = 0;

  agent->options.token = NULL; /* the host's text */
  if (token != NULL)
    err = relay__token_key(token, agent->token_id, agent->token_key);
  if (token != NULL && err == 0 && certified)
    memcpy(agent->token, token, strlen(token) + 1);
  if ((token != NULL || certified) && err == 0)
    err = relay__tls_context_new(&agent->tls, false);
  return err;
}

void relay__keys_free(struct relay_agent *agent) {
  relay__tls_context_free(agent->tls);
  relay__secret_wipe(agent->token_key, sizeof(agent->token_key));
  relay__secret_wipe(agent->token, sizeof(agent->token));
  relay__secret_wipe(agent->session.key, sizeof(agent->session.key));
}

int relay__keys_secure_control(struct relay_agent *agent, struct dial *dial) {
  char identity[sizeof(agent->token_id) + 2] = "t/";

  if (agent->tls == NULL)
    return 0;
  if (agent->relay_name != NULL) {
    relay__certs_refresh(agent);
    relay__dial_certify(dial, agent->tls, agent->relay_name);
    return 0;
  }
  memcpy(identity + 2, agent->token_id, sizeof(agent->token_id));
  return relay__dial_secure(dial, agent->tls, identity, agent->token_key);
}

int relay__keys_export(struct relay_agent *agent, struct stream *control) {
  return agent->tls != NULL ? relay__binding_export(control, agent->session.key)
                            : 0;
}

static int secure(struct relay_agent *agent, struct dial *dial,
                  const char *identity) {
  uint8_t secret[SECRET_SIZE];
  int err = relay__binding_secret(agent->session.key, identity, secret);

  if (err == 0)
    err = relay__dial_secure(dial, agent->tls, identity, secret);
  relay__secret_wipe(secret, sizeof(secret));
  return err;
}

static int add_mac(struct relay_agent *agent, struct wire_line *line,
                   const char *verb, const char *what) {
  const struct session *session = &agent->session;
  char mac[BINDING_MAC_SIZE];
  int err = relay__binding_mac(session->key, verb, session->id, what, mac);

  if (err == 0)
    relay__wire_add(line, "mac", mac);
  return err;
}

int relay__keys_secure_accept(struct relay_agent *agent, struct dial *dial,
                              struct wire_line *line, const char *id) {
  char identity[BINDING_IDENTITY_SIZE];
  int err;

  if (agent->tls == NULL)
    return 0;
  if (agent->session.plain)
    return add_mac(agent, line, "ACCEPT", id);
  err = relay__binding_accept(identity, sizeof(identity), id);
  return err != 0 ? err : secure(agent, dial, identity);
}

int relay__keys_secure_wait(struct relay_agent *agent, struct dial *dial,
                            struct wire_line *line, uint64_t n) {
  char identity[BINDING_IDENTITY_SIZE], number[24];
  int err;

  if (agent->tls == NULL)
    return 0;
  snprintf(number, sizeof(number), "%" PRIu64, n);
  if (agent->session.plain)
    return add_mac(agent, line, "WAIT", number);
  err = relay__binding_wait(identity, sizeof(identity), agent->session.id,
                            number);
  return err != 0 ? err : secure(agent, dial, identity);
}
