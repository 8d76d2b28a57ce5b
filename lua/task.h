/* SPDX-License-Identifier: MIT */
/*
 * Tasks: coroutines that run or wait on behalf of a hook. See private.h.
 */
#ifndef RELAY_LUA_TASK_H
#define RELAY_LUA_TASK_H

#include <stdbool.h>
#include <uv.h>

#include "event.h"

struct policy;

struct task {
  struct policy *policy;
  struct task *next_all;
  struct task *next_idle;
  lua_State *co; /* anchored by `ref` */
  int ref;
  uint64_t generation; /* of each use: what waits keeps it */
  enum hook hook;
  bool busy;      /* in use */
  bool running;   /* on the C stack */
  bool cancelled; /* to be killed as soon as it stops running */
  bool failed;
  bool doomed; /* the hook closed what it decides on: `reason` says why */
  bool soon;   /* to be woken in the next turn */
  uint64_t turn;
  struct task *next_soon;
  const struct event *event; /* until the first wait */
  uint64_t call;
  uint64_t subject;
  size_t byte_count;                 /* what peek was shown */
  void (*on_end)(struct task *task); /* after a wait; failed: see above */
  void *data;
  /* Told once when its wait ends: before it goes on, or as it is killed. */
  void (*on_wait_end)(void *wait, bool killed);
  void *wait;
  uv_timer_t sleep;
  uv_timer_t limit;
  unsigned handles;
  double number; /* tick: the next interval, in seconds; NAN: none */
  bool no_more;  /* what `every` ran returned false */
  relay_verdict verdict;
  char reason[256];
  char name[128];
  char host[256];
};

/* A fresh one; or NULL without memory, and the policy's `error` says so. */
struct task *relay__lua_task_take(struct policy *policy, enum hook hook);
/* Runs it, from its start or from its wait. True: it ended. */
bool relay__lua_task_run(struct task *task);
/* Runs it, and its on_end if it ended. */
void relay__lua_task_start(struct task *task);
/* As above if this use of it still waits. */
void relay__lua_task_wake(struct task *task, uint64_t generation);
void relay__lua_task_release(struct task *task);
/* One handle or request less; frees a closed task with the last. */
void relay__lua_task_unhold(struct task *task);
/* Ends it where it stands, without on_end. */
void relay__lua_task_kill(struct task *task);
/* Fails it after so long, unless it has ended. */
void relay__lua_task_limit(struct task *task, uint64_t ms);
/* Wakes it after so long, unless its wait ends before; 0: in the next turn. */
void relay__lua_task_sleep(struct task *task, uint64_t ms);
/* Wakes it in the next turn of the loop, and for nothing else before. */
void relay__lua_task_soon(struct task *task);
/* Wakes those that are to be woken now. */
void relay__lua_run_soon(struct relay_lua *lua);
/* Ends the wait that it began, and did not get to. */
void relay__lua_task_end_wait(struct task *task);
void relay__lua_tasks_close(struct policy *policy);

/* The most that `peek` may wait for. */
#define PEEK_MAX 4096

/* Reads the results from `first` to the top into the task's verdict. Sets an
   error on top and returns false when they are not what the hook may give. */
bool relay__lua_verdict_read(lua_State *L, struct task *task, int first);

#endif
