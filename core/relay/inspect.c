/* SPDX-License-Identifier: MIT */
/*
 * The public calls by id: what a host or a policy asks of agents and conns,
 * and does to them, from anywhere on the loop's thread.
 */
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

int relay_close_conn(relay_t *r, uint64_t conn, const char *reason) {
  struct visitor *visitor = find_conn(r, conn);

  if (visitor == NULL)
    return UV_ENOENT;
  relay__log(&r->logger, RELAY_LOG_INFO, "visitor closed on request",
             LOG_NUMBER("conn", conn),
             LOG_TEXT("reason", reason != NULL ? reason : ""));
  relay__visitor_end(visitor, RELAY_ELIMIT);
  return 0;
}

int relay_close_agent(relay_t *r, uint64_t agent, const char *reason) {
  struct session *session = find_agent(r, agent);

  if (session == NULL)
    return UV_ENOENT;
  relay__session_end(session, RELAY_EDENIED, reason);
  return 0;
}

static void apply(uint64_t *limit, int64_t wanted) {
  if (wanted >= 0)
    *limit = (uint64_t)wanted;
}

int relay_limit_conn(relay_t *r, uint64_t conn, const relay_limits *limits) {
  struct visitor *visitor = find_conn(r, conn);

  if (visitor == NULL)
    return UV_ENOENT;
  if (limits->size < sizeof(*limits))
    return UV_EINVAL;
  apply(&visitor->limits.rate_in, limits->rate_in);
  apply(&visitor->limits.rate_out, limits->rate_out);
  apply(&visitor->limits.idle_ms, limits->idle_ms);
  if (visitor->pair != NULL)
    relay__pair_limit(visitor->pair, &visitor->limits);
  return 0;
}

int relay_limit_agent(relay_t *r, uint64_t agent, const relay_limits *limits) {
  (void)r, (void)agent, (void)limits;
  return UV_ENOSYS;
}

int relay_tag_conn(relay_t *r, uint64_t conn, const char *key,
                   const char *value) {
  (void)r, (void)conn, (void)key, (void)value;
  return UV_ENOSYS;
}

int relay_peek_conn(relay_t *r, uint64_t conn, uint64_t ms) {
  (void)r, (void)conn, (void)ms;
  return UV_ENOSYS;
}

int relay_listen(relay_t *r, const char *host, unsigned port) {
  (void)r, (void)host, (void)port;
  return UV_ENOSYS;
}

int relay_get_conn(relay_t *r, uint64_t conn, relay_conn_info *info) {
  struct visitor *visitor = find_conn(r, conn);

  if (visitor == NULL)
    return UV_ENOENT;
  relay__visitor_info(visitor, info);
  return 0;
}

int relay_get_agent(relay_t *r, uint64_t agent, relay_agent_info *info) {
  struct session *session = find_agent(r, agent);

  if (session == NULL)
    return UV_ENOENT;
  relay__session_info(session, info);
  return 0;
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
  size_t size = stats->size;
  relay_stats now = r->stats;

  now.parked = r->stats.parked;
  now.fds = (uint64_t)r->plane.fds.used;
  now.pipes = r->plane.pool.pipes_made;
  link_each(&r->visitors, link, next) {
    const struct visitor *visitor = container_of(link, struct visitor, link);

    if (visitor->pair != NULL) {
      now.bytes_in += relay__pair_bytes_in(visitor->pair);
      now.bytes_out += relay__pair_bytes_out(visitor->pair);
    }
  }
  now.size = size < sizeof(now) ? size : sizeof(now);
  memcpy(stats, &now, now.size);
}
