/* SPDX-License-Identifier: MIT */
/*
 * Asking the policy. A NULL hook is answered here, at no cost; a hook that
 * fails denies. A deferred question is listed in the registry under its call
 * number until it is settled or dropped, whichever comes first, so settling
 * late finds nothing.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

#define TICK_DEFAULT_MS 1000

static void begin(struct relay *relay, struct asking *asking,
                  struct question *question, struct verdict *verdict) {
  relay__question_drop(relay, question);
  relay__verdict_init(verdict);
  asking->outer = relay->asking;
  asking->call = question->call = ++relay->next_call;
  asking->settled = false;
  asking->of_proof = false;
  asking->keyed = false;
  relay__verdict_init(&asking->verdict);
  relay->asking = asking;
}

/* Its subject was ended by the hook itself: what it answers is void. */
static bool is_void(struct relay *relay, struct asking *asking, bool ended,
                    int err, struct verdict *verdict) {
  if (!ended)
    return false;
  relay->asking = asking->outer;
  relay__verdict_wipe(&asking->verdict);
  if (err == 0 && verdict->given.answer == RELAY_DEFER && !asking->settled &&
      relay->policy.cancel != NULL)
    relay->policy.cancel(relay->policy.data, asking->call);
  return true;
}

/* What the hook's return means. False: the question stays open. */
static bool conclude(struct relay *relay, struct asking *asking,
                     struct question *question, enum entry_kind kind, int err,
                     struct verdict *verdict) {
  relay->asking = asking->outer;
  if (err == 0 && verdict->given.answer == RELAY_DEFER) {
    if (!asking->settled) {
      if (relay__registry_add(&relay->registry, &question->entry, kind,
                              question->call) == 0)
        return false;
      if (relay->policy.cancel != NULL)
        relay->policy.cancel(relay->policy.data, question->call);
      err = UV_ENOMEM;
    } else {
      relay__verdict_move(verdict, &asking->verdict);
    }
  }
  relay__verdict_wipe(&asking->verdict);
  if (err != 0)
    relay__verdict_deny(verdict, relay_strerror(RELAY_EHOOK));
  relay__verdict_own(verdict);
  if (kind != ENTRY_PROOF_CALL) /* nobody asked for a key */
    relay__verdict_wipe(verdict);
  return true;
}

/* Without the hook, the tokens file decides. */
static bool has_auth(const struct relay *relay, struct verdict *verdict) {
  relay__verdict_init(verdict);
  verdict->given.answer = RELAY_ABSTAIN;
  return relay->policy.auth != NULL;
}

/* What there is to say of a certificate. */
static void add_subject(relay_credentials *credentials,
                        const struct subject *subject) {
  if (subject->name[0] == '\0')
    return;
  credentials->certificate = subject->name;
  credentials->fingerprint = subject->fingerprint;
}

static relay_credentials credentials_of(const struct session *session) {
  relay_credentials credentials = {.size = sizeof(credentials)};

  add_subject(&credentials, &session->subject);
  if (credentials.certificate == NULL)
    return credentials;
  credentials.kind = RELAY_CREDENTIAL_CERTIFICATE;
  credentials.id = credentials.certificate;
  credentials.known = session->relay->tokens == NULL;
  return credentials;
}

bool relay__ask_auth(struct session *session, struct verdict *verdict) {
  struct relay *relay = session->relay;
  relay_credentials credentials = credentials_of(session);
  relay_agent_info info;
  struct asking asking;
  int err;

  if (!has_auth(relay, verdict))
    return true;
  relay__session_info(session, &info);
  begin(relay, &asking, &session->question, verdict);
  err = relay->policy.auth(relay->policy.data, asking.call, &info, &credentials,
                           &verdict->given);
  return !is_void(relay, &asking, session->ended, err, verdict) &&
         conclude(relay, &asking, &session->question, ENTRY_AGENT_CALL, err,
                  verdict);
}

bool relay__ask_proof(struct proof *proof, struct verdict *verdict, bool *keyed,
                      uint8_t key[SECRET_SIZE]) {
  struct relay *relay = proof->handshake->relay;
  relay_credentials credentials = {
      .size = sizeof(credentials),
      .id = proof->token_id,
      .known = relay->tokens != NULL &&
               relay__trust_refusal(relay, proof->token_id) == NULL,
      .kind = RELAY_CREDENTIAL_TOKEN};
  relay_agent_info info;
  struct asking asking;
  bool decided;
  int err;

  *keyed = false;
  if (!has_auth(relay, verdict))
    return true;
  add_subject(&credentials, &proof->subject);
  relay__proof_info(proof, &info);
  begin(relay, &asking, &proof->question, verdict);
  asking.of_proof = true;
  err = relay->policy.auth(relay->policy.data, asking.call, &info, &credentials,
                           &verdict->given);
  if (is_void(relay, &asking, proof->handshake->ended, err, verdict)) {
    relay__secret_wipe(asking.key, sizeof(asking.key));
    return false;
  }
  decided = conclude(relay, &asking, &proof->question, ENTRY_PROOF_CALL, err,
                     verdict);
  *keyed = asking.keyed;
  if (asking.keyed)
    memcpy(key, asking.key, sizeof(asking.key));
  relay__secret_wipe(asking.key, sizeof(asking.key));
  return decided;
}

bool relay__ask_allocate(struct session *session, struct verdict *verdict) {
  struct relay *relay = session->relay;
  relay_want want = {sizeof(want), session->want_port, session->dialed,
                     session->attempt};
  relay_agent_info info;
  struct asking asking;
  int err;

  if (relay->policy.allocate == NULL) {
    relay__verdict_init(verdict);
    return true;
  }
  relay__session_info(session, &info);
  begin(relay, &asking, &session->question, verdict);
  err = relay->policy.allocate(relay->policy.data, asking.call, &info, &want,
                               &verdict->given);
  return !is_void(relay, &asking, session->ended, err, verdict) &&
         conclude(relay, &asking, &session->question, ENTRY_AGENT_CALL, err,
                  verdict);
}

#define AGENTS_ON_STACK 8

/* The agents of the gate that are there. Those beyond `size` are counted. */
static size_t list_agents(const struct gate *gate, relay_agent_info *agents,
                          size_t size) {
  size_t count = 0;

  link_each(&gate->leases, link, next) {
    const struct lease *lease = container_of(link, struct lease, gate_link);

    if (lease->session == NULL)
      continue;
    if (count < size)
      relay__session_info(lease->session, &agents[count]);
    count++;
  }
  return count;
}

bool relay__ask_visitor(struct visitor *visitor, struct verdict *verdict) {
  struct relay *relay = visitor->relay;
  relay_agent_info few[AGENTS_ON_STACK];
  relay_agent_info *agents = few;
  relay_conn_info info;
  struct asking asking;
  size_t count;
  int err = UV_ENOMEM;

  relay__verdict_init(verdict);
  if (relay->policy.visitor == NULL)
    return true;
  count = list_agents(visitor->gate, few, AGENTS_ON_STACK);
  if (count > AGENTS_ON_STACK) {
    agents = malloc(count * sizeof(*agents));
    if (agents != NULL)
      list_agents(visitor->gate, agents, count);
  }
  relay__visitor_info(visitor, &info);
  begin(relay, &asking, &visitor->question, verdict);
  if (agents != NULL)
    err = relay->policy.visitor(relay->policy.data, asking.call, &info, agents,
                                count, &verdict->given);
  if (agents != few)
    free(agents);
  return !is_void(relay, &asking, visitor->ended, err, verdict) &&
         conclude(relay, &asking, &visitor->question, ENTRY_CONN_CALL, err,
                  verdict);
}

bool relay__ask_peek(struct visitor *visitor, const void *bytes, size_t count,
                     bool eof, struct verdict *verdict) {
  struct relay *relay = visitor->relay;
  relay_conn_info info;
  struct asking asking;
  int err;

  relay__verdict_init(verdict);
  if (relay->policy.peek == NULL)
    return true;
  relay__visitor_info(visitor, &info);
  begin(relay, &asking, &visitor->question, verdict);
  err = relay->policy.peek(relay->policy.data, asking.call, &info, bytes, count,
                           eof, &verdict->given);
  return !is_void(relay, &asking, visitor->ended, err, verdict) &&
         conclude(relay, &asking, &visitor->question, ENTRY_CONN_CALL, err,
                  verdict);
}

void relay__question_drop(struct relay *relay, struct question *question) {
  if (!question->entry.listed)
    return;
  relay__registry_remove(&relay->registry, &question->entry);
  if (relay->policy.cancel != NULL)
    relay->policy.cancel(relay->policy.data, question->call);
}

static int settle_open(struct relay *relay, uint64_t call,
                       const relay_verdict *verdict) {
  struct entry *entry;

  entry = relay__registry_find(&relay->registry, ENTRY_AGENT_CALL, call);
  if (entry != NULL) {
    relay__registry_remove(&relay->registry, entry);
    relay__session_decide(container_of(entry, struct session, question.entry),
                          verdict);
    return 0;
  }
  entry = relay__registry_find(&relay->registry, ENTRY_PROOF_CALL, call);
  if (entry != NULL) {
    relay__registry_remove(&relay->registry, entry);
    relay__proof_decide(container_of(entry, struct proof, question.entry),
                        verdict);
    return 0;
  }
  entry = relay__registry_find(&relay->registry, ENTRY_CONN_CALL, call);
  if (entry != NULL) {
    relay__registry_remove(&relay->registry, entry);
    relay__visitor_decide(container_of(entry, struct visitor, question.entry),
                          verdict);
    return 0;
  }
  return UV_ENOENT;
}

/* The answer to a hook that is being called right now. */
static int settle_asking(struct asking *asking, const struct verdict *verdict) {
  if (asking->settled)
    return UV_ENOENT;
  asking->settled = true;
  relay__verdict_move(&asking->verdict, verdict);
  return 0;
}

static struct asking *find_asking(const struct relay *relay, uint64_t call) {
  struct asking *asking = relay->asking;

  while (asking != NULL && asking->call != call)
    asking = asking->outer;
  return asking;
}

int relay_settle(relay_t *r, uint64_t call, const relay_verdict *verdict) {
  struct asking *asking = find_asking(r, call);
  struct verdict copy;
  int err;

  /* A forgotten size would make any verdict an ALLOW. */
  if (verdict == NULL || verdict->size > sizeof(*verdict) ||
      verdict->size < offsetof(relay_verdict, reason) ||
      verdict->answer == RELAY_DEFER)
    return UV_EINVAL;
  relay__verdict_init(&copy);
  memcpy(&copy.given, verdict, verdict->size);
  relay__verdict_own(&copy);
  err = asking != NULL ? settle_asking(asking, &copy)
                       : settle_open(r, call, &copy.given);
  relay__verdict_wipe(&copy);
  return err;
}

int relay_verify(relay_t *r, uint64_t call, const void *key, size_t key_size) {
  struct asking *asking = find_asking(r, call);
  struct entry *entry;
  struct proof *proof;

  if (key == NULL || key_size != SECRET_SIZE)
    return UV_EINVAL;
  if (asking != NULL) {
    if (asking->keyed)
      return UV_EALREADY;
    if (asking->settled || !asking->of_proof)
      return UV_ENOENT;
    asking->keyed = true;
    memcpy(asking->key, key, sizeof(asking->key));
    return 0;
  }
  entry = relay__registry_find(&r->registry, ENTRY_PROOF_CALL, call);
  if (entry == NULL)
    return UV_ENOENT;
  proof = container_of(entry, struct proof, question.entry);
  if (proof->settled)
    return UV_EALREADY;
  relay__proof_verify(proof, key);
  return 0;
}

void relay__tell_open(struct visitor *visitor) {
  struct relay *relay = visitor->relay;
  relay_conn_info info;

  if (relay->policy.open == NULL)
    return;
  relay__visitor_info(visitor, &info);
  relay->policy.open(relay->policy.data, &info);
}

void relay__tell_close(struct visitor *visitor) {
  struct relay *relay = visitor->relay;
  relay_conn_info info;

  if (relay->policy.close == NULL)
    return;
  relay__visitor_info(visitor, &info);
  relay->policy.close(relay->policy.data, &info);
}

void relay__tell_agent_gone(struct relay *relay, const relay_agent_info *agent,
                            int reason) {
  if (relay->policy.agent_gone != NULL)
    relay->policy.agent_gone(relay->policy.data, agent, reason);
}

void relay__tell_proven(struct relay *relay, uint64_t call) {
  if (relay->policy.proven != NULL)
    relay->policy.proven(relay->policy.data, call);
}

static void on_tick(struct deadline *deadline) {
  struct relay *relay = container_of(deadline, struct relay, tick);
  uint64_t next = relay->policy.tick(relay->policy.data, relay__now_ms(relay));

  if (next != 0)
    relay->tick_ms = next;
  if (!relay->closing)
    relay__deadline_set(deadline, relay->tick_ms);
}

int relay__policy_init(struct relay *relay) {
  const relay_policy *given = relay->options.policy;

  /* Before anything can fail: relay_close closes it. */
  relay__deadline_init(&relay->tick, &relay->plane, on_tick);
  if (given != NULL && given->size > sizeof(*given))
    return UV_EINVAL; /* hooks this library has never heard of */
  if (given != NULL)
    memcpy(&relay->policy, given, given->size);
  relay->options.policy = &relay->policy;
  relay->tick_ms = TICK_DEFAULT_MS;
  if (relay->policy.tick != NULL)
    relay__deadline_set(&relay->tick, relay->tick_ms);
  return 0;
}

void relay__policy_log(void *data, const relay_log_record *record) {
  struct relay *relay = data;

  if (relay->policy.log != NULL &&
      relay->policy.log(relay->policy.data, record) != 0)
    return;
  if (relay->options.log != NULL)
    relay->options.log(relay->options.log_data, record);
}
