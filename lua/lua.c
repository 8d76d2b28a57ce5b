/* SPDX-License-Identifier: MIT */
/*
 * The public calls, and what belongs to all scripts that are ever loaded: the
 * questions under way, the queue, and the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

static void say(char *error, size_t size, const char *text) {
  if (error != NULL && size != 0)
    snprintf(error, size, "%s", text);
}

/* ---- questions under way ---------------------------------------------- */

int relay__lua_call_add(struct relay_lua *lua, uint64_t id, struct task *task,
                        struct event *queued) {
  struct call *call = calloc(1, sizeof(*call));
  struct call **bucket = &lua->calls[id % CALL_BUCKETS];

  if (call == NULL)
    return UV_ENOMEM;
  call->id = id;
  call->task = task;
  call->queued = queued;
  call->next = *bucket;
  *bucket = call;
  return 0;
}

struct call *relay__lua_call_find(struct relay_lua *lua, uint64_t id) {
  struct call *call = lua->calls[id % CALL_BUCKETS];

  while (call != NULL && call->id != id)
    call = call->next;
  return call;
}

void relay__lua_call_remove(struct relay_lua *lua, uint64_t id) {
  struct call **at = &lua->calls[id % CALL_BUCKETS];

  while (*at != NULL && (*at)->id != id)
    at = &(*at)->next;
  if (*at != NULL) {
    struct call *call = *at;

    *at = call->next;
    free(call);
  }
}

/* ---- from the loop ---------------------------------------------------- */

static void on_soon(uv_idle_t *idle) {
  struct relay_lua *lua = idle->data;

  uv_idle_stop(idle);
  lua->worn_out = false;
  if (lua->policy != NULL)
    relay__lua_relieve(lua->policy);
  relay__lua_drain_queue(lua);
  relay__lua_run_spawned(lua);
  relay__lua_run_soon(lua);
  if (lua->reload_wanted && !lua->reloading) {
    lua->reload_wanted = false;
    relay__lua_reload_begin(lua);
  }
}

void relay__lua_wake_soon(struct relay_lua *lua) {
  if (!lua->closing)
    uv_idle_start(&lua->soon, on_soon);
}

/* It is not moved on: what is set by a timer would then be due within the same
   look at the timers, and the loop might come to nothing else. Rounded up: no
   wait is shorter than it was asked for. */
uint64_t relay__lua_lag_ms(const struct relay_lua *lua) {
  uint64_t now = (uv_hrtime() + 999999) / 1000000, then = uv_now(lua->loop);

  return now > then ? now - then : 0;
}

/* ---- life ------------------------------------------------------------- */

void relay_lua_options_init(relay_lua_options *options, size_t size) {
  relay_lua_options all = {
      .size = size,
      .memory_bytes = (size_t)64 << 20,
      .budget_ms = 20,
      .load_ms = 2000,
      .wait_ms = 2000,
      .drain_ms = 10000,
  };

  memcpy(options, &all, size < sizeof(all) ? size : sizeof(all));
}

const char *const *relay_lua_hooks(void) {
  return relay__lua_hook_names;
}

int relay_lua_has_hook(const relay_lua_t *lua, const char *name) {
  int i;

  for (i = 0; i < HOOK_COUNT; i++)
    if (strcmp(relay__lua_hook_names[i], name) == 0)
      return lua->policy->hooks[i] != LUA_NOREF;
  return 0;
}

void relay_lua_limit(relay_lua_t *lua, size_t memory_bytes,
                     unsigned budget_ms) {
  lua->options.memory_bytes = memory_bytes;
  lua->options.budget_ms = budget_ms;
}

const relay_policy *relay_lua_policy(relay_lua_t *lua) {
  return &lua->table;
}

void relay__lua_check_closed(struct relay_lua *lua) {
  relay_close_fn on_close = lua->on_close;
  void *data = lua->close_data;

  if (!lua->closing || lua->handles != 0 || lua->policies != 0)
    return;
  free(lua->script);
  free(lua);
  if (on_close != NULL)
    on_close(data);
}

static void on_handle_closed(uv_handle_t *handle) {
  struct relay_lua *lua = handle->data;

  lua->handles--;
  relay__lua_check_closed(lua);
}

static void finish(struct relay_lua *lua) {
  struct policy *policy, *next;

  lua->closing = true;
  relay__lua_drop_queue(lua);
  for (policy = lua->retired; policy != NULL; policy = next) {
    next = policy->next;
    relay__lua_policy_close(policy);
  }
  lua->retired = NULL;
  if (lua->coming != NULL)
    relay__lua_policy_close(lua->coming);
  lua->coming = NULL;
  if (lua->policy != NULL)
    relay__lua_policy_close(lua->policy);
  lua->policy = NULL;
  relay__lua_give_back(lua);
  relay__lua_kv_close(lua);
  uv_close((uv_handle_t *)&lua->soon, on_handle_closed);
  uv_close((uv_handle_t *)&lua->sweep, on_handle_closed);
}

static int make(relay_lua_t **out, struct uv_loop_s *loop,
                const relay_lua_options *options) {
  struct relay_lua *lua = calloc(1, sizeof(*lua));

  if (lua == NULL)
    return UV_ENOMEM;
  relay_lua_options_init(&lua->options, sizeof(lua->options));
  memcpy(&lua->options, options,
         options->size < sizeof(lua->options) ? options->size
                                              : sizeof(lua->options));
  lua->script = strdup(options->script != NULL ? options->script : "policy");
  if (lua->script == NULL) {
    free(lua);
    return UV_ENOMEM;
  }
  if (options->script != NULL)
    lua->options.script = lua->script;
  lua->classes.conn.ref = lua->classes.agent.ref = LUA_NOREF;
  lua->state_ref = lua->hooks_ref = lua->loaded_ref = LUA_NOREF;
  lua->loop = loop;
  lua->queue_end = &lua->queue;
  lua->spawned_end = &lua->spawned;
  lua->soon_end = &lua->first_soon;
  lua->tick_ms = TICK_MS;
  uv_idle_init(loop, &lua->soon);
  uv_timer_init(loop, &lua->sweep);
  lua->soon.data = lua->sweep.data = lua;
  lua->handles = 2;
  relay__lua_init_table(lua);
  *out = lua;
  return 0;
}

int relay_lua_new(relay_lua_t **out, struct uv_loop_s *loop,
                  const relay_lua_options *options, char *error,
                  size_t error_size) {
  struct relay_lua *lua;
  int err;

  say(error, error_size, uv_strerror(UV_ENOMEM));
  if (options->size > sizeof(*options))
    return UV_EINVAL;
  err = make(&lua, loop, options);
  if (err != 0)
    return err;
  if (lua->options.state != NULL)
    err = relay__lua_borrow(lua, lua->options.state);
  else if (lua->options.script == NULL)
    err = UV_EINVAL;
  if (err == 0)
    lua->policy = relay__lua_policy_new(lua);
  if (err == 0)
    err = lua->policy != NULL ? relay__lua_load(lua->policy) : UV_ENOMEM;
  if (err == 0) {
    *out = lua;
    return 0;
  }
  say(error, error_size, relay_strerror(err));
  if (lua->policy != NULL) {
    relay__lua_first_line(lua->policy->error);
    say(error, error_size, lua->policy->error);
  }
  finish(lua);
  return err;
}

static void on_start_end(struct task *task) {
  struct relay_lua *lua = task->policy->lua;
  char error[ERROR_MAX];
  bool failed = task->failed;

  relay__lua_name_script(task->policy, "start: ");
  memcpy(error, task->policy->error, sizeof(error));
  relay__lua_task_release(task);
  lua->on_started(lua->started_data, failed ? error : NULL);
}

void relay_lua_start(relay_lua_t *lua, relay_lua_done_fn on_started,
                     void *data) {
  struct event event = {.hook = HOOK_START};
  struct task *task;

  lua->on_started = on_started;
  lua->started_data = data;
  if (relay__lua_run_life(lua->policy, &event, on_start_end, lua, &task))
    on_started(data, NULL);
  else if (task == NULL)
    on_started(data, lua->policy->error);
}

int relay_lua_attach(relay_lua_t *lua, relay_t *relay, char *error,
                     size_t error_size) {
  int err;

  lua->relay = relay;
  if (relay == NULL)
    return 0;
  err = relay__lua_open_listens(lua->policy, NULL, error, error_size);
  if (err != 0)
    lua->relay = NULL;
  return err;
}

static void on_stop_end(struct task *task) {
  struct relay_lua *lua = task->policy->lua;

  if (task->failed)
    relay__lua_log_failure(task->policy, "stop");
  relay__lua_task_release(task);
  finish(lua);
}

void relay_lua_close(relay_lua_t *lua, relay_close_fn on_close, void *data) {
  struct event event = {.hook = HOOK_STOP, .text = "exit"};
  struct task *task;

  if (lua->stopping)
    return;
  lua->stopping = true;
  lua->on_close = on_close;
  lua->close_data = data;
  lua->reload_wanted = false;
  lua->frozen = false;
  relay__lua_drain_queue(lua);
  if (relay__lua_run_life(lua->policy, &event, on_stop_end, lua, &task) ||
      task == NULL)
    finish(lua);
}

int relay_lua_reload(relay_lua_t *lua) {
  if (lua->stopping)
    return UV_ECANCELED;
  if (lua->options.script == NULL)
    return UV_ENOTSUP;
  lua->reload_wanted = true;
  relay__lua_wake_soon(lua);
  return 0;
}
