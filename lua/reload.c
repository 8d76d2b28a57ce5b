/* SPDX-License-Identifier: MIT */
/*
 * From one script to the next:
 *
 *   load ─► save (old) ─► start (new) ─► listen ─► swap ─► stop (old) ─► drain
 *
 * From save to swap events queue. Whatever fails before the swap ends the new
 * script and leaves the old one as it was. After it the old one finishes the
 * verdicts it began, and is closed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

#define DRAIN_LOOK_MS 50

/* ---- shared listeners ------------------------------------------------- */

const struct listen *relay__lua_declared(const struct policy *policy,
                                         unsigned port) {
  unsigned i;

  for (i = 0; policy != NULL && i < policy->listen_count; i++)
    if (policy->listens[i].port == port)
      return &policy->listens[i];
  return NULL;
}

/* Takes back the first `count` that `other` does not declare. */
static void close_listens(struct policy *policy, unsigned count,
                          const struct policy *other) {
  unsigned i;

  for (i = 0; i < count; i++)
    if (relay__lua_declared(other, policy->listens[i].port) == NULL)
      relay_unlisten(policy->lua->relay, policy->listens[i].port);
}

int relay__lua_open_listens(struct policy *policy, const struct policy *before,
                            char *error, size_t size) {
  unsigned i;

  for (i = 0; i < policy->listen_count; i++) {
    const struct listen *listen = &policy->listens[i];
    const struct listen *old = relay__lua_declared(before, listen->port);
    int err = 0;

    if (old != NULL && strcmp(old->host, listen->host) != 0)
      err = UV_EADDRINUSE; /* by itself, on another host */
    else if (old == NULL)
      err = relay_listen(policy->lua->relay,
                         *listen->host != '\0' ? listen->host : NULL,
                         listen->port);
    if (err == 0)
      continue;
    if (error != NULL && size != 0)
      snprintf(error, size, "%s: relay.listen: port %u: %s",
               policy->lua->script, listen->port, relay_strerror(err));
    close_listens(policy, i, before);
    return err;
  }
  return 0;
}

/* ---- the old one ------------------------------------------------------ */

static void unlink_retired(struct policy *policy) {
  struct policy **at = &policy->lua->retired;

  while (*at != NULL && *at != policy)
    at = &(*at)->next;
  if (*at != NULL)
    *at = policy->next;
}

/* Nobody shall wait for an answer that cannot come any more. */
static void deny_rest(struct policy *policy) {
  struct relay_lua *lua = policy->lua;
  relay_verdict verdict = {.size = sizeof(verdict),
                           .answer = RELAY_DENY,
                           .reason = "its policy was replaced meanwhile"};
  struct task *task = policy->tasks, *next;

  for (; task != NULL; task = next) {
    uint64_t call = task->call;

    next = task->next_all;
    if (!task->busy || call == 0)
      continue;
    relay__lua_call_remove(lua, call);
    relay__lua_forget_denied(lua, task->hook, task->subject);
    relay__lua_task_kill(task);
    if (lua->relay != NULL)
      relay_settle(lua->relay, call, &verdict);
  }
}

static void on_drain(uv_timer_t *timer) {
  struct policy *policy = timer->data;
  uint64_t patience = policy->lua->options.drain_ms;

  if (policy->busy_count != 0 &&
      uv_now(policy->lua->loop) - policy->retired_ms < patience)
    return;
  uv_timer_stop(timer);
  deny_rest(policy);
  unlink_retired(policy);
  relay__lua_policy_close(policy);
}

static void on_stopped(struct task *task) {
  if (task->failed)
    relay__lua_log_failure(task->policy, "stop");
  relay__lua_task_release(task);
}

static void retire(struct policy *policy) {
  struct relay_lua *lua = policy->lua;
  struct event event = {.hook = HOOK_STOP, .text = "reload"};
  struct task *task;

  policy->next = lua->retired;
  lua->retired = policy;
  policy->retired_ms = uv_now(lua->loop);
  relay__lua_everies_close(policy);
  relay__lua_run_life(policy, &event, on_stopped, NULL, &task);
  uv_timer_start(&policy->drain, on_drain, DRAIN_LOOK_MS, DRAIN_LOOK_MS);
}

/* ---- the new one ------------------------------------------------------ */

static void end(struct relay_lua *lua) {
  lua->frozen = false;
  lua->reloading = false;
  relay__lua_wake_soon(lua);
}

static void roll_back(struct relay_lua *lua, const char *hook,
                      const char *reason) {
  char text[ERROR_MAX];
  relay_log_field fields[2] = {{"reason", text, 0}, {"hook", hook, 0}};

  snprintf(text, sizeof(text), "%s", reason);
  relay__lua_first_line(text);
  if (lua->coming != NULL)
    relay__lua_policy_close(lua->coming);
  lua->coming = NULL;
  free(lua->policy->saved);
  lua->policy->saved = NULL;
  end(lua);
  relay__lua_log(lua, RELAY_LOG_ERROR, "policy not reloaded", fields,
                 hook != NULL ? 2 : 1);
}

static void swap(struct relay_lua *lua) {
  struct policy *old = lua->policy, *new = lua->coming;
  char error[512];

  if (lua->stopping || lua->relay == NULL) {
    roll_back(lua, NULL, "the relay is closing");
    return;
  }
  if (relay__lua_open_listens(new, old, error, sizeof(error)) != 0) {
    roll_back(lua, NULL, error);
    return;
  }
  lua->policy = new;
  lua->coming = NULL;
  lua->tick_ms = TICK_MS;
  lua->tick_due_ms = 0;
  close_listens(old, old->listen_count, new);
  relay__lua_log(lua, RELAY_LOG_INFO, "policy reloaded", NULL, 0);
  retire(old);
  end(lua);
  relay__lua_drain_queue(lua);
}

static void on_started(struct task *task) {
  struct relay_lua *lua = task->policy->lua;
  bool failed = task->failed;

  relay__lua_task_release(task);
  if (failed)
    roll_back(lua, "start", lua->coming->error);
  else
    swap(lua);
}

static void start(struct relay_lua *lua) {
  struct event event = {.hook = HOOK_START,
                        .bytes = lua->policy->saved,
                        .byte_count = lua->policy->saved_size};
  struct task *task;

  if (relay__lua_run_life(lua->coming, &event, on_started, NULL, &task))
    swap(lua);
  else if (task == NULL)
    roll_back(lua, "start", "not enough memory");
}

static void on_saved(struct task *task) {
  struct relay_lua *lua = task->policy->lua;
  bool failed = task->failed;

  relay__lua_task_release(task);
  if (failed)
    roll_back(lua, "save", lua->policy->error);
  else
    start(lua);
}

/* Whether both scripts set the same options to the same values. */
static bool same_options(const struct policy *a, const struct policy *b) {
  size_t a_size = a->options != NULL ? a->options_size : 1;
  size_t b_size = b->options != NULL ? b->options_size : 1;

  return a_size == b_size &&
         (a_size == 1 || memcmp(a->options, b->options, a_size) == 0);
}

void relay__lua_reload_begin(struct relay_lua *lua) {
  struct event event = {.hook = HOOK_SAVE};
  struct task *task;

  lua->reloading = true;
  lua->coming = relay__lua_policy_new(lua);
  if (lua->coming == NULL) {
    roll_back(lua, NULL, "not enough memory");
    return;
  }
  if (relay__lua_load(lua->coming) != 0) {
    roll_back(lua, NULL, lua->coming->error);
    return;
  }
  if (!same_options(lua->policy, lua->coming)) {
    roll_back(lua, NULL,
              "its options differ, and cannot change while the relay runs");
    return;
  }
  relay__lua_warn_denied(lua->coming);
  lua->frozen = true;
  if (relay__lua_run_life(lua->policy, &event, on_saved, NULL, &task))
    start(lua);
  else if (task == NULL)
    roll_back(lua, "save", "not enough memory");
}
