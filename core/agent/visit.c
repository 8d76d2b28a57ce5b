/* SPDX-License-Identifier: MIT */
/*
 * One visitor: announced by the relay, shown to the host, joined to what the
 * host chose, ended. relay__visit_end is the only way down: it closes what
 * there is, and the closing of the visit's own deadline tells the host, from
 * the loop, and frees it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/private.h"

/* ---- the end ---------------------------------------------------------- */

static void log_end(const struct visit *visit, uint64_t duration_ms) {
  const char *reason =
      visit->reason != 0 ? relay_error_name(visit->reason) : "ended";

  relay__log(&visit->agent->logger, RELAY_LOG_INFO, "visitor closed",
             LOG_TEXT("id", visit->id), LOG_TEXT("from", visit->from),
             LOG_NUMBER("bytes_in", visit->bytes_in),
             LOG_NUMBER("bytes_out", visit->bytes_out),
             LOG_NUMBER("duration_ms", duration_ms),
             LOG_TEXT("reason", reason));
}

static void on_visit_closed(struct deadline *limit) {
  struct visit *visit = container_of(limit, struct visit, limit);
  struct relay_agent *agent = visit->agent;
  relay_visitor_end end = {sizeof(end),     visit->id,        visit->from,
                           visit->bytes_in, visit->bytes_out, 0,
                           visit->reason};

  end.duration_ms = visit->ended_ms - visit->arrived_ms;
  log_end(visit, end.duration_ms);
  if (visit->announced && agent->options.on_visitor_end != NULL)
    agent->options.on_visitor_end(agent->options.data, agent, &end);
  free(visit);
  agent->visits_open--;
  relay__agent_settle(agent);
}

static void close_pair(struct visit *visit, int reason) {
  struct pair *pair = visit->pair;

  if (pair == NULL)
    return;
  visit->pair = NULL;
  visit->bytes_in = relay__pair_bytes_in(pair);
  visit->bytes_out = relay__pair_bytes_out(pair);
  relay__crew_drop(pair, reason); /* this visit ends now */
}

void relay__visit_end(struct visit *visit, int reason, const char *why) {
  struct relay_agent *agent = visit->agent;

  if (visit->phase == VISIT_ENDED)
    return;
  visit->phase = VISIT_ENDED;
  visit->reason = reason;
  visit->ended_ms = uv_now(agent->plane.loop);
  if (why != NULL) {
    relay__control_reject(agent, visit->id, why);
    relay__parting_begin(agent, visit->data);
    visit->data = NULL;
  }
  close_pair(visit, reason);
  relay__serve_undial(visit);
  relay__dial_cancel(&visit->data_dial);
  relay__dial_cancel(&visit->target_dial);
  relay__resolve_cancel(visit->target_resolve);
  visit->target_resolve = NULL;
  if (visit->target_list != NULL)
    uv_freeaddrinfo(visit->target_list);
  visit->target_list = NULL;
  relay__stream_close(visit->data);
  relay__stream_close(visit->target);
  visit->data = visit->target = NULL;
  if (visit->listed)
    HASH_DEL(agent->visits, visit);
  visit->listed = false;
  relay__deadline_close(&visit->limit, on_visit_closed);
}

static void end_each(struct relay_agent *agent, int reason,
                     bool (*concerns)(const struct visit *visit)) {
  struct visit *next;

  for (struct visit *visit = agent->visits; visit != NULL; visit = next) {
    next = visit->hh.next;
    if (concerns(visit))
      relay__visit_end(visit, reason, NULL);
  }
}

static bool is_any(const struct visit *visit) {
  (void)visit;
  return true;
}

static bool is_unjoined(const struct visit *visit) {
  return visit->phase != VISIT_JOINED;
}

static bool is_unreached(const struct visit *visit) {
  return visit->phase != VISIT_JOINED && visit->data == NULL;
}

void relay__visit_end_all(struct relay_agent *agent, int reason) {
  end_each(agent, reason, is_any);
}

void relay__visit_end_unjoined(struct relay_agent *agent, int reason) {
  end_each(agent, reason, is_unjoined);
}

void relay__visit_end_unreached(struct relay_agent *agent, int reason) {
  end_each(agent, reason, is_unreached);
}

/* ---- joining ---------------------------------------------------------- */

static void on_pair_end(struct pair *pair, int reason) {
  struct visit *visit = pair->owner;

  visit->bytes_in = relay__pair_bytes_in(pair);
  visit->bytes_out = relay__pair_bytes_out(pair);
  visit->pair = NULL; /* freed after this */
  /* A data connection that was cut before it reached its visitor: the relay
     may not know of it. Once bytes went out it does, and delivers them. */
  bool untold = reason != 0 && visit->bytes_out == 0;
  relay__visit_end(visit, reason, untold ? relay_strerror(reason) : NULL);
}

void relay__visit_join(struct visit *visit) {
  struct relay_agent *agent = visit->agent;
  struct pair_limits limits = {
      .idle_ms = agent->options.idle_ms,
      .fin_timeout_ms = agent->options.fin_timeout_ms,
  };
  struct stream *data = visit->data;
  struct stream *target = visit->target;

  if (visit->phase != VISIT_JOINING || data == NULL ||
      (target == NULL && !visit->echo))
    return;
  visit->data = visit->target = NULL; /* the pair's, or closed */
  int err = relay__crew_start(&visit->pair, &agent->crew, data, target, &limits,
                              on_pair_end, visit);
  if (err != 0) {
    visit->pair = NULL;
    relay__visit_end(visit, err, relay_strerror(err));
    return;
  }
  visit->phase = VISIT_JOINED;
  relay__deadline_clear(&visit->limit);
  relay__log(&agent->logger, RELAY_LOG_DEBUG, "visitor joined",
             LOG_TEXT("id", visit->id), LOG_TEXT("from", visit->from));
}

void relay__visit_resume(struct relay_agent *agent) {
  struct visit *next;

  for (struct visit *visit = agent->visits; visit != NULL; visit = next) {
    next = visit->hh.next;
    if (visit->phase == VISIT_JOINING)
      relay__serve_data(visit);
  }
}

/* ---- the beginning ---------------------------------------------------- */

static void on_limit(struct deadline *limit) {
  struct visit *visit = container_of(limit, struct visit, limit);
  bool asked = visit->phase == VISIT_ASKED;

  if (visit->retrying && uv_now(visit->agent->plane.loop) < visit->expires_ms) {
    relay__serve_retry(visit);
    return;
  }
  if (!asked && visit->target == NULL && !visit->echo)
    relay__serve_unreached(visit, UV_ETIMEDOUT);
  relay__visit_end(visit, UV_ETIMEDOUT,
                   asked ? "not answered in time" : "not reached in time");
}

struct visit *relay__visit_find(const struct relay_agent *agent,
                                const char *id) {
  struct visit *visit = NULL;

  HASH_FIND_STR(agent->visits, id, visit);
  return visit;
}

/* Why this visitor cannot be taken; NULL when it can. `here` is for our own
   log: whoever runs the relay is not the one who can mend it. */
static const char *find_obstacle(struct relay_agent *agent,
                                 const struct stream *data, const char **here) {
  int needed = data != NULL ? 1 : 2;

  *here = "draining";
  if (agent->draining)
    return "draining";
  *here = "as many are served as may be";
  if (HASH_COUNT(agent->visits) >= agent->options.max_visitors)
    return "busy";
  *here = "too many open files";
  if (!relay__plane_has_descriptors(&agent->plane, needed))
    return "busy";
  return NULL;
}

static const char *text_or_unknown(const char *text) {
  return text != NULL ? text : "unknown";
}

static struct visit *make_visit(struct relay_agent *agent,
                                const struct wire_message *message,
                                const char *id) {
  struct visit *visit = calloc(1, sizeof(*visit));

  if (visit == NULL)
    return NULL;
  visit->agent = agent;
  visit->arrived_ms = uv_now(agent->plane.loop);
  visit->expires_ms = visit->arrived_ms + agent->options.visit_ms;
  snprintf(visit->id, sizeof(visit->id), "%s", id);
  snprintf(visit->from, sizeof(visit->from), "%s",
           text_or_unknown(relay__wire_get(message, "from")));
  snprintf(visit->to, sizeof(visit->to), "%s",
           text_or_unknown(relay__wire_get(message, "to")));
  visit->listed = true;
  HASH_ADD_STR(agent->visits, id, visit);
  if (!visit->listed) {
    free(visit);
    return NULL;
  }
  relay__serve_init(visit);
  relay__deadline_init(&visit->limit, &agent->plane, on_limit);
  relay__deadline_set(&visit->limit, agent->options.visit_ms);
  agent->visits_open++;
  return visit;
}

/* The data connection that is there waits for the other side: bytes stay in
   the kernel, but a reset is heard. */
static int keep_data(struct visit *visit, struct stream *data) {
  visit->data = data;
  return data != NULL ? relay__serve_hold(visit, data) : 0;
}

void relay__visit_arrive(struct relay_agent *agent,
                         const struct wire_message *message,
                         struct stream *data) {
  const char *id = relay__wire_get(message, "id");
  struct visit *visit = NULL;

  if (id == NULL || *id == '\0' || strlen(id) > AGENT_ID_MAX ||
      relay__visit_find(agent, id) != NULL) {
    relay__log(&agent->logger, RELAY_LOG_WARN, "visitor without proper id",
               LOG_TEXT("from", relay__wire_get(message, "from")));
    relay__stream_close(data);
    return;
  }
  const char *here;
  const char *obstacle = find_obstacle(agent, data, &here);
  if (obstacle == NULL) {
    visit = make_visit(agent, message, id);
    obstacle = here = visit == NULL ? "out of memory" : NULL;
  }
  if (obstacle != NULL) {
    bool tell = relay__agent_may_tell(agent, &agent->rejected_told_ms);
    relay__log(&agent->logger, tell ? RELAY_LOG_WARN : RELAY_LOG_DEBUG,
               "visitor rejected", LOG_TEXT("id", id),
               LOG_TEXT("reason", here));
    relay__control_reject(agent, id, obstacle);
    relay__parting_begin(agent, data);
    return;
  }
  int err = keep_data(visit, data);
  if (err != 0) {
    relay__visit_end(visit, err, relay_strerror(err));
    return;
  }
  visit->announced = true;
  relay_visitor_info info = {sizeof(info), visit->id, visit->from, visit->to};
  agent->options.on_visitor(agent->options.data, agent, &info);
}
