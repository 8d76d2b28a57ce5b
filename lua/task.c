/* SPDX-License-Identifier: MIT */
/*
 * Tasks: coroutines in which hooks run. The core enters one with a light C
 * function and light userdata, which need no memory; arguments are made and
 * results are read inside, where an error is caught. One that ended well goes
 * back to the pool as it is; one that failed is thrown away.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

#define IDLE_MAX 256

/* No hook returns more; what is beyond is not looked at. */
#define RESULTS_MAX 2

/* ---- inside the coroutine --------------------------------------------- */

static int after(lua_State *L, int status, lua_KContext context) {
  struct task *task = (struct task *)context;

  if (status != LUA_OK && status != LUA_YIELD) {
    relay__lua_keep_error(task->policy, L);
    task->failed = true;
    return 0;
  }
  if (lua_gettop(L) > 1 + RESULTS_MAX)
    lua_settop(L, 1 + RESULTS_MAX);
  if (!relay__lua_verdict_read(L, task, 2)) {
    relay__lua_keep_error(task->policy, L);
    task->failed = true;
  }
  return 0;
}

/* (task, …): for a task of the script's own, its function and arguments. */
static int run(lua_State *L) {
  struct task *task = lua_touserdata(L, 1);
  int count;

  lua_pushcfunction(L, relay__lua_traceback);
  lua_replace(L, 1);
  if (task->hook == HOOK_NONE) {
    count = lua_gettop(L) - 2;
  } else {
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->policy->hooks[task->hook]);
    count = relay__lua_event_push(L, task->event);
  }
  return after(L,
               lua_pcallk(L, count, LUA_MULTRET, 1, (lua_KContext)task, after),
               (lua_KContext)task);
}

/* ---- the pool --------------------------------------------------------- */

static int make_coroutine(lua_State *L) {
  struct task *task = lua_touserdata(L, 1);

  lua_State *co = lua_newthread(L);
  task->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  task->co = co;
  return 0;
}

static void on_sleep_over(uv_timer_t *timer) {
  struct task *task = timer->data;

  relay__lua_task_wake(task, task->generation);
}

static struct task *make_task(struct policy *policy) {
  struct task *task = calloc(1, sizeof(*task));

  if (task == NULL)
    return NULL;
  task->policy = policy;
  task->ref = LUA_NOREF;
  uv_timer_init(policy->lua->loop, &task->sleep);
  uv_timer_init(policy->lua->loop, &task->limit);
  task->sleep.data = task->limit.data = task;
  task->handles = 2;
  policy->handles++;
  task->next_all = policy->tasks;
  policy->tasks = task;
  return task;
}

static struct task *no_memory(struct policy *policy) {
  static const char text[] = "not enough memory";

  memcpy(policy->error, text, sizeof(text));
  return NULL;
}

struct task *relay__lua_task_take(struct policy *policy, enum hook hook) {
  struct task *task = policy->idle;

  if (relay__lua_is_starved(policy))
    return no_memory(policy);
  if (task != NULL) {
    policy->idle = task->next_idle;
    policy->idle_count--;
  } else {
    task = make_task(policy);
    if (task == NULL)
      return no_memory(policy);
  }
  task->next_idle = NULL;
  if (task->co == NULL &&
      relay__lua_protect(policy, make_coroutine, task,
                         policy->lua->options.budget_ms) != LUA_OK) {
    task->next_idle = policy->idle;
    policy->idle = task;
    policy->idle_count++;
    return NULL;
  }
  task->generation++;
  task->hook = hook;
  task->busy = true;
  task->cancelled = task->failed = task->doomed = task->no_more = false;
  task->event = NULL;
  task->call = task->subject = 0;
  task->on_end = NULL;
  task->number = NAN;
  memset(&task->verdict, 0, sizeof(task->verdict));
  task->verdict.size = sizeof(task->verdict);
  policy->busy_count++;
  return task;
}

static void drop_coroutine(struct task *task) {
  if (task->co == NULL)
    return;
  luaL_unref(task->policy->L, LUA_REGISTRYINDEX, task->ref);
  task->co = NULL;
  task->ref = LUA_NOREF;
}

void relay__lua_task_unhold(struct task *task) {
  struct policy *policy = task->policy;

  if (--task->handles != 0)
    return;
  free(task);
  relay__lua_policy_unhold(policy);
}

static void on_task_closed(uv_handle_t *handle) {
  relay__lua_task_unhold(handle->data);
}

static void close_task(struct task *task) {
  struct task **at = &task->policy->tasks;

  while (*at != task)
    at = &(*at)->next_all;
  *at = task->next_all;
  drop_coroutine(task);
  uv_close((uv_handle_t *)&task->sleep, on_task_closed);
  uv_close((uv_handle_t *)&task->limit, on_task_closed);
}

static void forget_soon(struct task *task) {
  struct relay_lua *lua = task->policy->lua;
  struct task **at = &lua->first_soon;

  if (!task->soon)
    return;
  while (*at != task)
    at = &(*at)->next_soon;
  *at = task->next_soon;
  if (lua->soon_end == &task->next_soon)
    lua->soon_end = at;
  task->soon = false;
}

void relay__lua_task_release(struct task *task) {
  struct policy *policy = task->policy;

  if (!task->busy)
    return;
  forget_soon(task);
  task->busy = false;
  task->generation++;
  policy->busy_count--;
  relay__lua_task_end_wait(task);
  uv_timer_stop(&task->limit);
  if (policy->idle_count >= IDLE_MAX) {
    close_task(task);
    return;
  }
  task->next_idle = policy->idle;
  policy->idle = task;
  policy->idle_count++;
}

/* ---- running ---------------------------------------------------------- */

static void end_wait(struct task *task, bool killed) {
  void (*on_wait_end)(void *, bool) = task->on_wait_end;

  uv_timer_stop(&task->sleep);
  forget_soon(task);
  task->on_wait_end = NULL;
  if (on_wait_end != NULL)
    on_wait_end(task->wait, killed);
}

void relay__lua_task_end_wait(struct task *task) {
  end_wait(task, true);
}

static int resume(struct task *task, int count) {
  struct policy *policy = task->policy;
  struct policy *before = relay__lua_enter(policy);
  int status;

  policy->current = task;
  policy->thread = task->co;
  task->running = true;
  relay__lua_budget_begin(policy, policy->lua->options.budget_ms);
  relay__lua_budget_arm(policy, task->co);
  status = lua_resume(task->co, policy->L, count, &count);
  task->running = false;
  policy->current = NULL;
  policy->thread = NULL;
  relay__lua_leave(policy, before);
  relay__lua_luv_touch(policy);
  if (policy->is_full)
    relay__lua_wake_soon(policy->lua);
  return status;
}

static void reset_coroutine(struct task *task) {
  struct policy *policy = task->policy;
  struct policy *before = relay__lua_enter(policy);
  struct task *current = policy->current;
  struct budget budget = policy->budget;
  lua_State *thread = policy->thread;

  end_wait(task, true);
  /* Its to-be-closed variables are closed here: within limits, and they may
     not wait. It may be another task that runs. */
  policy->current = NULL;
  policy->thread = task->co;
  relay__lua_budget_begin(policy, policy->lua->options.budget_ms);
  relay__lua_budget_arm(policy, task->co);
  relay__lua_close_thread(task->co, policy->L);
  policy->current = current;
  policy->thread = thread;
  policy->budget = budget;
  relay__lua_leave(policy, before);
  drop_coroutine(task);
}

bool relay__lua_task_run(struct task *task) {
  lua_State *co = task->co;
  int status, count;

  if (lua_status(co) == LUA_YIELD) {
    end_wait(task, false);
    lua_pop(co, 1); /* the mark of its wait */
    count = 0;
  } else {
    count = lua_gettop(co) + 1;
    lua_pushcfunction(co, run);
    lua_insert(co, 1);
    lua_pushlightuserdata(co, task);
    lua_insert(co, 2);
  }
  status = resume(task, count);
  task->event = NULL;
  if (status == LUA_YIELD && relay__lua_is_waiting(co) && !task->cancelled &&
      !task->doomed)
    return false;
  if (task->doomed) {
    task->verdict.answer = RELAY_DENY;
    task->verdict.reason = task->reason;
  }
  if (status == LUA_OK) {
    lua_settop(co, 0);
    task->failed = task->failed && !task->doomed;
    return true;
  }
  if (task->doomed) {
    reset_coroutine(task);
    return true;
  }
  if (status == LUA_YIELD && !task->cancelled)
    relay__lua_blame_yield(task);
  else if (status != LUA_YIELD)
    relay__lua_keep_error(task->policy, co);
  task->failed = true;
  reset_coroutine(task);
  return true;
}

void relay__lua_task_start(struct task *task) {
  if (!relay__lua_task_run(task))
    return;
  if (task->cancelled || task->on_end == NULL)
    relay__lua_task_release(task);
  else
    task->on_end(task);
}

void relay__lua_task_wake(struct task *task, uint64_t generation) {
  if (task->busy && !task->running && task->generation == generation)
    relay__lua_task_start(task);
}

void relay__lua_task_kill(struct task *task) {
  if (task->running) {
    task->cancelled = true;
    return;
  }
  if (task->co != NULL)
    reset_coroutine(task);
  relay__lua_task_release(task);
}

/* Its time to wait is over. */
static void on_limit(uv_timer_t *timer) {
  static const char text[] = "it waited too long";
  struct task *task = timer->data;

  if (!task->busy)
    return;
  reset_coroutine(task);
  memcpy(task->policy->error, text, sizeof(text));
  task->failed = true;
  if (task->on_end != NULL)
    task->on_end(task);
  else
    relay__lua_task_release(task);
}

void relay__lua_task_limit(struct task *task, uint64_t ms) {
  struct relay_lua *lua = task->policy->lua;

  uv_timer_start(&task->limit, on_limit, relay__lua_lag_ms(lua) + ms, 0);
}

/* Not a timer of 0: set by one that it wakes, it would be due at once, and the
   loop would never come to anything else. */
void relay__lua_task_sleep(struct task *task, uint64_t ms) {
  struct relay_lua *lua = task->policy->lua;

  if (ms != 0)
    uv_timer_start(&task->sleep, on_sleep_over, relay__lua_lag_ms(lua) + ms, 0);
  else
    relay__lua_task_soon(task);
}

void relay__lua_task_soon(struct task *task) {
  struct relay_lua *lua = task->policy->lua;

  uv_timer_stop(&task->sleep);
  if (task->soon)
    return;
  task->soon = true;
  task->turn = lua->turn;
  task->next_soon = NULL;
  *lua->soon_end = task;
  lua->soon_end = &task->next_soon;
  relay__lua_wake_soon(lua);
}

void relay__lua_run_soon(struct relay_lua *lua) {
  uint64_t turn = lua->turn++;

  while (lua->first_soon != NULL && lua->first_soon->turn <= turn) {
    struct task *task = lua->first_soon;

    forget_soon(task);
    relay__lua_task_wake(task, task->generation);
  }
}

void relay__lua_tasks_close(struct policy *policy) {
  struct task *task;

  for (task = policy->tasks; task != NULL; task = task->next_all)
    if (task->busy && task->call != 0)
      relay__lua_call_remove(policy->lua, task->call);
  while (policy->tasks != NULL) {
    task = policy->tasks;
    if (task->busy && task->co != NULL)
      reset_coroutine(task);
    forget_soon(task);
    task->busy = false;
    task->generation++;
    close_task(task);
  }
  policy->idle = NULL;
}
