/* SPDX-License-Identifier: MIT */
/*
 * Asking and telling the script in force what table.c hears of the core. A
 * question whose hook waits is deferred, and settled when the hook has ended;
 * a question or news that comes while no hook may run is queued.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

static bool has_hook(const struct policy *policy, enum hook hook) {
  return policy->hooks[hook] != LUA_NOREF;
}

/* ---- the queue -------------------------------------------------------- */

static bool enqueue(struct relay_lua *lua, const struct event *event) {
  struct event *copy = relay__lua_event_copy(event);

  if (copy == NULL)
    return false;
  if (event->call != 0 &&
      relay__lua_call_add(lua, event->call, NULL, copy) != 0) {
    free(copy);
    return false;
  }
  *lua->queue_end = copy;
  lua->queue_end = &copy->next;
  relay__lua_wake_soon(lua);
  return true;
}

static bool may_run(const struct relay_lua *lua) {
  return lua->inside == 0 && !lua->frozen;
}

static bool is_busy(const struct relay_lua *lua) {
  return !may_run(lua) || lua->worn_out;
}

/* ---- questions -------------------------------------------------------- */

static void forget_denied(struct task *task, const relay_verdict *verdict) {
  if (verdict == NULL || verdict->answer == RELAY_DENY)
    relay__lua_forget_denied(task->policy->lua, task->hook, task->subject);
}

static void log_failure(struct task *task) {
  relay__lua_log_failure(task->policy, relay__lua_hook_names[task->hook]);
}

static void fail_verdict(relay_verdict *verdict) {
  memset(verdict, 0, sizeof(*verdict));
  verdict->size = sizeof(*verdict);
  verdict->answer = RELAY_DENY;
  verdict->reason = relay_strerror(RELAY_EHOOK);
}

/* A question's hook has ended after a wait, or was late in coming. */
static void on_answer(struct task *task) {
  struct relay_lua *lua = task->policy->lua;
  relay_verdict failure;
  const relay_verdict *verdict = &task->verdict;

  if (task->failed) {
    log_failure(task);
    fail_verdict(&failure);
    verdict = &failure;
  }
  relay__lua_call_remove(lua, task->call);
  forget_denied(task, verdict);
  if (lua->relay != NULL)
    relay_settle(lua->relay, task->call, verdict);
  relay__lua_task_release(task);
}

static struct task *take_task(struct policy *policy,
                              const struct event *event) {
  struct task *task = relay__lua_task_take(policy, event->hook);

  if (task == NULL) {
    relay__lua_log_failure(policy, relay__lua_hook_names[event->hook]);
    return NULL;
  }
  task->event = event;
  task->call = event->call;
  task->subject = relay__lua_event_subject(event);
  task->byte_count = event->byte_count;
  return task;
}

/* Whether a hook ended its own subject. */
static bool subject_is_gone(const struct relay_lua *lua,
                            const struct event *event) {
  relay_conn_info conn = {.size = sizeof(conn)};
  relay_agent_info agent = {.size = sizeof(agent)};

  if (lua->relay == NULL)
    return true;
  return event->conn.id != 0
             ? relay_get_conn(lua->relay, event->conn.id, &conn) != 0
             : relay_get_agent(lua->relay, event->agent.id, &agent) != 0;
}

/* Asks at once. */
static int ask(struct relay_lua *lua, struct event *event,
               relay_verdict *verdict) {
  struct policy *policy = lua->policy;
  struct task *task = take_task(policy, event);
  int err = 0;

  if (task == NULL)
    return UV_ENOMEM;
  task->on_end = on_answer;
  if (relay__lua_task_run(task)) {
    if (task->failed)
      log_failure(task);
    *verdict = task->verdict;
    err = task->failed ? RELAY_EHOOK : 0;
    if (err == 0 && subject_is_gone(lua, event))
      verdict->answer = RELAY_DENY;
    forget_denied(task, err != 0 ? NULL : verdict);
    relay__lua_task_release(task);
    return err;
  }
  if (subject_is_gone(lua, event) ||
      relay__lua_call_add(lua, event->call, task, NULL) != 0) {
    forget_denied(task, NULL);
    relay__lua_task_kill(task);
    verdict->answer = RELAY_DENY;
    return 0;
  }
  verdict->answer = RELAY_DEFER;
  return 0;
}

/* What a script that has no such hook answers. */
static relay_answer without_hook(enum hook hook) {
  return hook == HOOK_AUTH ? RELAY_ABSTAIN : RELAY_ALLOW;
}

int relay__lua_ask(struct relay_lua *lua, struct event *event,
                   relay_verdict *verdict) {
  if (!has_hook(lua->policy, event->hook) && !lua->frozen) {
    verdict->answer = without_hook(event->hook);
    return 0;
  }
  if (!is_busy(lua))
    return ask(lua, event, verdict);
  if (!enqueue(lua, event))
    return UV_ENOMEM;
  verdict->answer = RELAY_DEFER;
  return 0;
}

void relay__lua_cancel(struct relay_lua *lua, uint64_t id) {
  struct call *call = relay__lua_call_find(lua, id);
  struct task *task;

  if (call == NULL)
    return;
  task = call->task;
  if (task == NULL)
    relay__lua_forget_denied(lua, call->queued->hook,
                             relay__lua_event_subject(call->queued));
  relay__lua_call_remove(lua, id); /* a queued one is skipped then */
  if (task == NULL)
    return;
  forget_denied(task, NULL);
  relay__lua_task_kill(task);
}

/* ---- news ------------------------------------------------------------- */

/* From now on, counted from now. */
static void set_interval(struct relay_lua *lua, uint64_t ms) {
  lua->tick_ms = ms;
  lua->tick_due_ms = uv_now(lua->loop) + ms;
}

static void on_told(struct task *task) {
  if (task->failed)
    log_failure(task);
  if (task->hook == HOOK_CLOSE || task->hook == HOOK_AGENT_GONE)
    relay__lua_box_forget(task->policy, task->subject);
  if (task->hook == HOOK_TICK) {
    task->policy->ticking = false;
    if (!task->failed && !isnan(task->number))
      set_interval(task->policy->lua, (uint64_t)ceil(task->number * 1000));
  }
  relay__lua_task_release(task);
}

/* What waits beyond its time is ended: nobody else would. */
static void start_told(struct task *task) {
  uint64_t generation = task->generation;

  task->on_end = on_told;
  relay__lua_task_start(task);
  if (task->busy && task->generation == generation)
    relay__lua_task_limit(task, task->policy->lua->options.wait_ms);
}

static void tell_now(struct relay_lua *lua, const struct event *event) {
  struct policy *policy = lua->policy;
  struct task *task = NULL;

  if (has_hook(policy, event->hook))
    task = take_task(policy, event);
  if (task != NULL) {
    policy->ticking = policy->ticking || event->hook == HOOK_TICK;
    start_told(task);
  } else if (event->hook == HOOK_CLOSE || event->hook == HOOK_AGENT_GONE) {
    relay__lua_box_forget(policy, relay__lua_event_subject(event));
  }
  if (event->hook == HOOK_CLOSE || event->hook == HOOK_AGENT_GONE)
    relay__lua_forget(lua, relay__lua_event_subject(event), lua->policy);
}

void relay__lua_tell(struct relay_lua *lua, const struct event *event) {
  bool at_once = !is_busy(lua) && lua->queue == NULL;

  if (!at_once)
    at_once = !enqueue(lua, event) && may_run(lua);
  if (at_once)
    tell_now(lua, event);
}

/* Looked at every second at least: after a reload, another script's interval
   counts. */
uint64_t relay__lua_tick(struct relay_lua *lua, uint64_t now_ms) {
  struct event event = {.hook = HOOK_TICK};
  uint64_t left;

  if (now_ms >= lua->tick_due_ms && !is_busy(lua) && !lua->policy->ticking &&
      has_hook(lua->policy, HOOK_TICK)) {
    set_interval(lua, lua->tick_ms);
    tell_now(lua, &event);
  }
  left = lua->tick_due_ms > now_ms ? lua->tick_due_ms - now_ms : lua->tick_ms;
  return left < TICK_MS ? left : TICK_MS;
}

/* ---- the queue's other end -------------------------------------------- */

static void answer_queued(struct relay_lua *lua, struct event *event) {
  relay_verdict verdict = {.size = sizeof(verdict)};
  relay_verdict failure;
  int err = 0;

  relay__lua_call_remove(lua, event->call);
  verdict.answer = without_hook(event->hook);
  if (has_hook(lua->policy, event->hook))
    err = ask(lua, event, &verdict);
  if (verdict.answer == RELAY_DEFER && err == 0)
    return;
  fail_verdict(&failure);
  if (lua->relay != NULL)
    relay_settle(lua->relay, event->call, err == 0 ? &verdict : &failure);
}

void relay__lua_drain_queue(struct relay_lua *lua) {
  while (lua->queue != NULL && !is_busy(lua)) {
    struct event *event = lua->queue;

    lua->queue = event->next;
    if (lua->queue == NULL)
      lua->queue_end = &lua->queue;
    if (event->call == 0)
      tell_now(lua, event);
    else if (relay__lua_call_find(lua, event->call) != NULL)
      answer_queued(lua, event);
    free(event);
  }
  if (lua->queue != NULL && lua->worn_out)
    relay__lua_wake_soon(lua);
}

void relay__lua_drop_queue(struct relay_lua *lua) {
  while (lua->queue != NULL) {
    struct event *event = lua->queue;

    lua->queue = event->next;
    if (event->call != 0)
      relay__lua_call_remove(lua, event->call);
    free(event);
  }
  lua->queue_end = &lua->queue;
}

/* ---- life ------------------------------------------------------------- */

bool relay__lua_run_life(struct policy *policy, const struct event *event,
                         void (*on_end)(struct task *task), void *data,
                         struct task **out) {
  struct task *task;

  *out = NULL;
  if (!has_hook(policy, event->hook))
    return true;
  task = take_task(policy, event);
  *out = task;
  if (task == NULL)
    return false;
  task->on_end = on_end;
  task->data = data;
  relay__lua_task_limit(task, policy->lua->options.wait_ms);
  relay__lua_task_start(task);
  return false;
}
