/* SPDX-License-Identifier: MIT */
/*
 * The life of an agent: made, drained, closed, or ended by itself. Closing
 * closes every handle at once and frees the agent when the last of them has
 * gone, which its plane tells; nothing else counts references.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/private.h"

#define TELL_AGAIN_MS 1000
/* A host that knows of no more than this has no host name to give. */
#define OPTIONS_SIZE_MIN                                                       \
  (offsetof(relay_agent_options, port) + sizeof(unsigned))

static void fill_defaults(relay_agent_options *options) {
  memset(options, 0, sizeof(*options));
  options->pool = 4;
  options->mode = RELAY_MODE_AUTO;
  options->connect_ms = 10 * 1000;
  options->heartbeat_ms = 5 * 1000;
  options->dead_ms = 14 * 1000;
  options->backoff_min_ms = 200;
  options->backoff_max_ms = 15 * 1000;
  options->pool_age_ms = 10 * 60 * 1000;
  options->fin_timeout_ms = 60 * 1000;
  options->idle_ms = 0;
  options->visit_ms = 10 * 1000;
  options->max_visitors = 16384;
}

void relay_agent_options_init(relay_agent_options *options, size_t size) {
  relay_agent_options defaults;

  fill_defaults(&defaults);
  defaults.size = size;
  memset(options, 0, size);
  memcpy(options, &defaults, size < sizeof(defaults) ? size : sizeof(defaults));
}

/* Times that must not be zero, or the agent would spin. */
static void mend_times(relay_agent_options *options) {
  relay_agent_options defaults;

  fill_defaults(&defaults);
#define MEND(name)                                                             \
  if (options->name == 0)                                                      \
  options->name = defaults.name
  MEND(connect_ms);
  MEND(heartbeat_ms);
  MEND(dead_ms);
  MEND(backoff_min_ms);
  MEND(backoff_max_ms);
  MEND(pool_age_ms);
  MEND(visit_ms);
  MEND(max_visitors);
#undef MEND
  if (options->backoff_max_ms < options->backoff_min_ms)
    options->backoff_max_ms = options->backoff_min_ms;
}

static int check_options(const relay_agent_options *options) {
  if (options->host == NULL || options->host[0] == '\0' || options->port == 0 ||
      options->port > 65535 || options->want_port > 65535 ||
      options->workers > CREW_WORKERS_MAX || options->on_visitor == NULL ||
      (options->name != NULL && strlen(options->name) > RELAY_AGENT_NAME_MAX) ||
      (options->tls_cert == NULL) != (options->tls_key == NULL))
    return UV_EINVAL;
  return 0;
}

static int copy_options(relay_agent_options *copy,
                        const relay_agent_options *options) {
  size_t size = options->size;

  fill_defaults(copy);
  if (size < OPTIONS_SIZE_MIN)
    return UV_EINVAL;
  memcpy(copy, options, size < sizeof(*copy) ? size : sizeof(*copy));
  int err = check_options(copy);
  if (err != 0)
    return err;
  mend_times(copy);
  copy->host = strdup(copy->host);
  if (copy->name != NULL)
    copy->name = strdup(copy->name);
  if (copy->host == NULL || (options->name != NULL && copy->name == NULL)) {
    free((char *)copy->host);
    free((char *)copy->name);
    return UV_ENOMEM;
  }
  return 0;
}

static void free_agent(struct relay_agent *agent) {
  relay__keys_free(agent);
  relay__certs_free(agent);
  free((char *)agent->options.host);
  free((char *)agent->options.name);
  free(agent);
}

/* Nothing of the agent is left on the loop. */
static void on_empty(struct plane *plane) {
  struct relay_agent *agent = container_of(plane, struct relay_agent, plane);
  relay_agent_close_fn on_close = agent->on_close;
  void *data = agent->close_data;

  free_agent(agent);
  if (on_close != NULL)
    on_close(data);
}

static void on_drain_over(struct deadline *deadline) {
  struct relay_agent *agent = container_of(deadline, struct relay_agent, drain);

  relay__visit_end_all(agent, UV_ECANCELED);
  relay__agent_settle(agent);
}

static int start_crew(struct relay_agent *agent) {
  int err =
      relay__crew_init(&agent->crew, &agent->plane, agent->options.workers);

  if (err == 0)
    return 0;
  relay__log(&agent->logger, RELAY_LOG_ERROR, "cannot start workers",
             LOG_TEXT("reason", relay_strerror(err)));
  return RELAY_EWORKERS;
}

int relay_agent_new(relay_agent **out, struct uv_loop_s *loop,
                    const relay_agent_options *options) {
  struct relay_agent *agent = calloc(1, sizeof(*agent));
  if (agent == NULL)
    return UV_ENOMEM;
  int err = copy_options(&agent->options, options);
  if (err != 0) {
    free(agent);
    return err;
  }
  agent->logger.log = agent->options.log;
  agent->logger.data = agent->options.log_data;
  agent->logger.level = RELAY_LOG_DEBUG; /* the host's function decides */
  err = relay__keys_take(agent);
  if (err == 0)
    err = relay__certs_take(agent);
  if (err != 0) {
    free_agent(agent);
    return err;
  }
  err = relay__plane_init(&agent->plane, loop, agent->options.mode, 0);
  agent->plane.on_empty = on_empty;
  if (err == 0)
    err = start_crew(agent);
  if (err != 0) { /* handles may be closing yet */
    relay__crew_close(&agent->crew);
    relay__plane_close(&agent->plane);
    return err;
  }
  relay__deadline_init(&agent->drain, &agent->plane, on_drain_over);
  relay__deadline_init(&agent->next_dial, &agent->plane, relay__serve_next);
  link_init(&agent->partings);
  link_init(&agent->undialed);
  relay__pool_init(agent);
  relay__session_init(agent, agent->options.ticket);
  agent->options.ticket = NULL; /* the host's text */
  *out = agent;
  return 0;
}

void relay__agent_end(struct relay_agent *agent, int error,
                      const char *reason) {
  if (agent->ended || agent->closing)
    return;
  agent->ended = true;
  if (agent->options.on_end != NULL)
    agent->options.on_end(agent->options.data, agent, error, reason);
}

void relay__agent_settle(struct relay_agent *agent) {
  if (agent->draining && agent->visits_open == 0)
    relay__agent_end(agent, 0, "drained");
}

bool relay__agent_may_tell(const struct relay_agent *agent, uint64_t *told_ms) {
  uint64_t now = uv_now(agent->plane.loop);

  if (*told_ms != 0 && now - *told_ms < TELL_AGAIN_MS)
    return false;
  *told_ms = now;
  return true;
}

uint64_t relay__agent_jitter(uint64_t ms) {
  uint32_t noise = 0;

  if (uv_random(NULL, NULL, &noise, sizeof(noise), 0, NULL) != 0)
    noise = (uint32_t)uv_hrtime();
  return ms - noise % (ms / 4 + 1);
}

unsigned relay_agent_visitors(const relay_agent *agent) {
  return HASH_COUNT(agent->visits);
}

void relay_agent_drain(relay_agent *agent, uint64_t ms) {
  uint64_t now = uv_now(agent->plane.loop);

  if (agent->ended || agent->closing)
    return;
  if (agent->draining && now + ms >= agent->drain_at_ms)
    return;
  agent->draining = true;
  agent->drain_at_ms = now + ms;
  relay__visit_end_unreached(agent, RELAY_EDRAINING);
  relay__session_leave(agent);
  /* Even when there is nothing to wait for, on_end comes from the loop. */
  relay__deadline_set(&agent->drain, agent->visits_open == 0 ? 0 : ms);
}

void relay_agent_close(relay_agent *agent, relay_agent_close_fn on_close,
                       void *data) {
  if (agent == NULL || agent->closing)
    return;
  agent->closing = true;
  agent->on_close = on_close;
  agent->close_data = data;
  relay__visit_end_all(agent, UV_ECANCELED);
  relay__session_leave(agent);
  relay__pool_close(agent);
  relay__session_close(agent);
  relay__deadline_close(&agent->drain, NULL);
  relay__deadline_close(&agent->next_dial, NULL);
  relay__crew_close(&agent->crew);
  relay__plane_close(&agent->plane);
}
