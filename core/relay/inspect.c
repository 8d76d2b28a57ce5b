/* SPDX-License-Identifier: MIT */
/*
 * The public calls by id: what a host or a policy asks of agents and conns,
 * and does to them, from anywhere on the loop's thread.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/private.h"

static struct visitor *find_conn(struct relay *relay, uint64_t conn) {
  struct entry *entry =
      relay__registry_find(&relay->registry, ENTRY_CONN, conn);

  return entry != NULL ? container_of(entry, struct visitor, by_number) : NULL;
}

static struct session *find_agent(struct relay *relay, uint64_t agent) {
  struct entry *entry =
      relay__registry_find(&relay->registry, ENTRY_AGENT, agent);

  return entry != NULL ? container_of(entry, struct session, by_number) : NULL;
}

/* One that has yet to prove that it is that agent. */
static struct proof *find_proving(struct relay *relay, uint64_t agent) {
  struct entry *entry =
      relay__registry_find(&relay->registry, ENTRY_PROVING, agent);

  return entry != NULL ? container_of(entry, struct proof, by_number) : NULL;
}

int relay_close_conn(relay_t *r, uint64_t conn, const char *reason) {
  struct visitor *visitor = find_conn(r, conn);

  if (visitor == NULL)
    return UV_ENOENT;
  relay__log(&r->logger, RELAY_LOG_INFO, "visitor closed on request",
             LOG_NUMBER("conn", conn), LOG_TEXT("reason", reason));
  if (reason != NULL && !visitor->ended)
    visitor->why = strdup(reason); /* without memory: without the words */
  relay__visitor_end(visitor, RELAY_ELIMIT);
  return 0;
}

int relay_close_agent(relay_t *r, uint64_t agent, const char *reason) {
  struct session *session = find_agent(r, agent);
  struct proof *proof = session == NULL ? find_proving(r, agent) : NULL;

  if (session == NULL && proof == NULL)
    return UV_ENOENT;
  if (session != NULL)
    relay__session_end(session, RELAY_EDENIED, reason);
  else
    relay__handshake_end(proof->handshake);
  return 0;
}

/* A host that knows of fewer limits leaves the others as they are. */
static int take_limits(relay_limits *limits, const relay_limits *given) {
  size_t known = sizeof(*limits);

  *limits = (relay_limits){known, -1, -1, -1};
  if (given->size < sizeof(given->size))
    return UV_EINVAL;
  memcpy(limits, given, given->size < known ? given->size : known);
  return 0;
}

static void apply(uint64_t *limit, int64_t wanted) {
  if (wanted >= 0)
    *limit = (uint64_t)wanted;
}

int relay_limit_conn(relay_t *r, uint64_t conn, const relay_limits *given) {
  struct visitor *visitor = find_conn(r, conn);
  relay_limits limits;

  if (visitor == NULL)
    return UV_ENOENT;
  if (take_limits(&limits, given) != 0)
    return UV_EINVAL;
  apply(&visitor->limits.rate_in, limits.rate_in);
  apply(&visitor->limits.rate_out, limits.rate_out);
  apply(&visitor->limits.idle_ms, limits.idle_ms);
  if (visitor->pair != NULL)
    relay__crew_limit(visitor->pair, &visitor->limits);
  return 0;
}

int relay_limit_agent(relay_t *r, uint64_t agent, const relay_limits *given) {
  struct session *session = find_agent(r, agent);
  uint64_t now = relay__now_ms(r);
  relay_limits limits;

  if (session == NULL || session->lease == NULL)
    return UV_ENOENT;
  if (take_limits(&limits, given) != 0)
    return UV_EINVAL;
  if (limits.rate_in >= 0)
    relay__rate_set(&session->lease->share->in, (uint64_t)limits.rate_in, now);
  if (limits.rate_out >= 0)
    relay__rate_set(&session->lease->share->out, (uint64_t)limits.rate_out,
                    now);
  return 0;
}

#define TAG_LENGTH_MAX 256
#define TAGS_MAX 8

static void remove_tag(struct visitor *visitor, const char *key) {
  struct tag **at = &visitor->tags;

  while (*at != NULL && strcmp((*at)->key, key) != 0)
    at = &(*at)->next;
  if (*at != NULL) {
    struct tag *tag = *at;

    *at = tag->next;
    free(tag);
  }
}

static size_t count_tags(const struct visitor *visitor) {
  const struct tag *tag = visitor->tags;
  size_t count = 0;

  for (; tag != NULL; tag = tag->next)
    count++;
  return count;
}

int relay_tag_conn(relay_t *r, uint64_t conn, const char *key,
                   const char *value) {
  struct visitor *visitor = find_conn(r, conn);
  size_t key_size = strlen(key) + 1;
  size_t size = key_size + (value != NULL ? strlen(value) + 1 : 0);
  struct tag *tag;

  if (visitor == NULL)
    return UV_ENOENT;
  if (key_size == 1 || size > TAG_LENGTH_MAX)
    return UV_EINVAL;
  if (value == NULL) {
    remove_tag(visitor, key);
    return 0;
  }
  tag = malloc(sizeof(*tag) + size);
  if (tag == NULL)
    return UV_ENOMEM;
  remove_tag(visitor, key);
  if (count_tags(visitor) >= TAGS_MAX) {
    free(tag);
    return UV_ENOSPC;
  }
  memcpy(tag->key, key, key_size);
  memcpy(tag->key + key_size, value, size - key_size);
  tag->value = tag->key + key_size;
  tag->next = visitor->tags;
  visitor->tags = tag;
  return 0;
}

int relay_peek_conn(relay_t *r, uint64_t conn, uint64_t ms) {
  struct visitor *visitor = find_conn(r, conn);

  if (visitor == NULL)
    return UV_ENOENT;
  if (ms == 0)
    return UV_EINVAL;
  if (visitor->phase != VISITOR_ASKED || visitor->let_in)
    return UV_EALREADY;
  visitor->peek_ms = ms;
  return 0;
}

int relay_listen(relay_t *r, const char *host, unsigned port) {
  struct gate *gate = port != 0 ? relay__gate_find(r, port) : NULL;
  int err;

  if (port == 0 || port > 65535)
    return UV_EINVAL;
  if (r->draining || r->closing)
    return RELAY_EDRAINING;
  if (gate == NULL) {
    err = relay__gate_open(r, host, port, NULL, &gate);
    if (err != 0)
      return err;
  } else if (!gate->declared && !gate->shared &&
             !link_is_empty(&gate->leases)) {
    return UV_EADDRINUSE;
  }
  gate->declared = true;
  gate->shared = true;
  return 0;
}

int relay_unlisten(relay_t *r, unsigned port) {
  struct gate *gate = relay__gate_find(r, port);

  if (gate == NULL || !gate->declared)
    return UV_ENOENT;
  gate->declared = false;
  if (link_is_empty(&gate->leases))
    relay__gate_end(gate, RELAY_EGONE, true);
  return 0;
}

/* Fills a struct of the caller's, which may be older and shorter than ours, or
   newer and longer: each begins with its size, and ends up with that of what
   was filled in. */
static int hand_out(void *to, const void *info, size_t known) {
  size_t size = *(const size_t *)to;
  size_t filled = size < known ? size : known;

  if (size < sizeof(size))
    return UV_EINVAL;
  memset(to, 0, size);
  memcpy(to, info, filled);
  *(size_t *)to = filled;
  return 0;
}

int relay_get_conn(relay_t *r, uint64_t conn, relay_conn_info *info) {
  struct visitor *visitor = find_conn(r, conn);
  relay_conn_info all;

  if (visitor == NULL)
    return UV_ENOENT;
  relay__visitor_info(visitor, &all);
  return hand_out(info, &all, sizeof(all));
}

int relay_get_agent(relay_t *r, uint64_t agent, relay_agent_info *info) {
  struct session *session = find_agent(r, agent);
  struct proof *proof = session == NULL ? find_proving(r, agent) : NULL;
  relay_agent_info all;

  if (session == NULL && proof == NULL)
    return UV_ENOENT;
  if (session != NULL)
    relay__session_info(session, &all);
  else
    relay__proof_info(proof, &all);
  return hand_out(info, &all, sizeof(all));
}

int relay_each_conn(relay_t *r,
                    int (*visit)(void *data, const relay_conn_info *conn),
                    void *data) {
  relay_conn_info info;
  int stop = 0;

  link_each(&r->visitors, link, next) {
    relay__visitor_info(container_of(link, struct visitor, link), &info);
    stop = visit(data, &info);
    if (stop != 0)
      break;
  }
  return stop;
}

int relay_each_agent(relay_t *r,
                     int (*visit)(void *data, const relay_agent_info *agent),
                     void *data) {
  relay_agent_info info;
  int stop = 0;

  link_each(&r->sessions, link, next) {
    relay__session_info(container_of(link, struct session, link), &info);
    stop = visit(data, &info);
    if (stop != 0)
      break;
  }
  return stop;
}

void relay_get_stats(const relay_t *r, relay_stats *stats) {
  relay_stats now = r->stats;

  now.parked = r->stats.parked;
  now.fds = (uint64_t)r->plane.fds.used;
  now.pipes = (uint64_t)r->plane.fds.pipes;
  link_each(&r->visitors, link, next) {
    const struct visitor *visitor = container_of(link, struct visitor, link);

    if (visitor->pair != NULL) {
      now.bytes_in += relay__pair_bytes_in(visitor->pair);
      now.bytes_out += relay__pair_bytes_out(visitor->pair);
    }
  }
  hand_out(stats, &now, sizeof(now));
}
