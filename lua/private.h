/* SPDX-License-Identifier: MIT */
/*
 * What the files of the Lua policy share: the whole of it here, and three of
 * its nouns in headers of their own. Words:
 *
 *   relay_lua  what the host holds; outlives every script it loads
 *   policy     one loaded script: a Lua state and all that belongs to it
 *   task       a pooled coroutine, running or waiting on behalf of a hook
 *   event      what the core told us, on its way into a hook
 *   box        what a script holds of a conn or an agent: an id
 *
 * Law: Lua is entered in two ways only, relay__lua_task_run and
 * relay__lua_protect, and nothing that allocates is called on a state outside
 * of them. (host.c prepares a state of the host's before there is a policy.)
 * While a script runs, no other hook of it starts: events wait in a queue and
 * are told from the loop. (`log` is the exception.)
 */
#ifndef RELAY_LUA_PRIVATE_H
#define RELAY_LUA_PRIVATE_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "event.h"
#include "include/relay/lua.h"
#include "policy.h"
#include "task.h"

/* ---- scripts ---------------------------------------------------------- */

/* Reads and runs the script, and checks its table. Or `error` says why. */
int relay__lua_load(struct policy *policy);
/* All of a file, terminated, which the caller frees also when it failed: 0 or
   an errno. */
int relay__lua_read_file(const char *path, char **text, size_t *size);
/* Logs what the script needs of that which relay_lua_deny named. */
void relay__lua_warn_denied(struct policy *policy);
/* Renders `options = {…}`, on top of the stack. Raises. */
void relay__lua_options_read(lua_State *L, struct policy *policy);
/* The name nearest to a mistyped one, or NULL. */
const char *relay__lua_nearest(const char *word, const char *const *names);
/* Raises "… (did you mean …?)". */
int relay__lua_unknown(lua_State *L, const char *what, const char *word,
                       const char *const *names);

void relay__lua_sandbox(lua_State *L, struct policy *policy);
/* Puts the module `relay` into package.loaded, with all it needs. */
void relay__lua_open(lua_State *L);
/* Prepares a state of the host's, and takes what was put there out again. */
int relay__lua_borrow(struct relay_lua *lua, lua_State *L);
void relay__lua_give_back(struct relay_lua *lua);

/* A plain value, in bytes that another state can read. NULL, and why: not
   plain, or no memory. */
void *relay__lua_pack(lua_State *L, int index, size_t *size, const char **why);
void relay__lua_unpack(lua_State *L, const void *bytes, size_t size);

/* ---- boxes ------------------------------------------------------------ */

void relay__lua_push_conn(lua_State *L, uint64_t id);
void relay__lua_push_agent(lua_State *L, uint64_t id);
/* Those in their last hook: fields are read from the event. */
void relay__lua_push_final(lua_State *L, const struct event *event);
void relay__lua_set_eof(lua_State *L, int index, bool eof);
/* Only alive, data and tostring work from now on. Safe anywhere. */
void relay__lua_box_forget(struct policy *policy, uint64_t id);
/* In all policies there are but one, which has its last hook: each of them may
   have made a box of it, by relay.conns. */
void relay__lua_forget(struct relay_lua *lua, uint64_t id,
                       const struct policy *except);
/* The same in all: before it is let in, a subject has no end that is told. */
void relay__lua_forget_denied(struct relay_lua *lua, enum hook hook,
                              uint64_t subject);
/* Whether the value is an agent; its id, 0 once it is gone. */
bool relay__lua_is_agent(lua_State *L, int index, uint64_t *id);
void relay__lua_open_objects(lua_State *L);

/* ---- waiting ---------------------------------------------------------- */

/* The task that may wait here; raises when none may. */
struct task *relay__lua_wait_begin(lua_State *L, const char *what);
/* Yields to the engine; `then` goes on. */
int relay__lua_wait(lua_State *L, lua_KContext context, lua_KFunction then);
/* Whether the coroutine stands in an engine wait. */
bool relay__lua_is_waiting(lua_State *co);
/* Says in the policy's `error` where a hook yielded that was not to wait. */
void relay__lua_blame_yield(const struct task *task);
void relay__lua_open_coroutine(lua_State *L);
int relay__lua_sleep(lua_State *L);
int relay__lua_resolve(lua_State *L);
/* relay.wait */
int relay__lua_wait_for(lua_State *L);
void relay__lua_open_waker(lua_State *L);
uint64_t relay__lua_check_ms(lua_State *L, int index);
/* An argument that C will read as a string, so one without a zero byte. */
const char *relay__lua_check_text(lua_State *L, int index);
const char *relay__lua_opt_text(lua_State *L, int index, const char *otherwise);

/* ---- sockets ---------------------------------------------------------- */

/* Makes `socket.core` ours, and `ssl.https`; adds relay.tcp. Not in a state of
   a host's, whose own sockets may have these names. */
void relay__lua_open_sockets(lua_State *L);
/* Once its sockets are closed. */
void relay__lua_tls_close(struct policy *policy);

/* ---- credentials ------------------------------------------------------- */

void relay__lua_push_cred(lua_State *L, const struct event *event);
/* Its agent has proven the key: goes on if it waits for that. May be NULL. */
void relay__lua_proven(struct task *task);

/* ---- luv --------------------------------------------------------------- */

/* Lets require "luv" find it. */
void relay__lua_open_luv(lua_State *L);
/* The script ran, and may have begun something. */
void relay__lua_luv_touch(struct policy *policy);
/* Closes all on luv's loop, then ends the policy: now or later. */
void relay__lua_luv_close(struct policy *policy);

/* ---- what a script calls ---------------------------------------------- */

/* Leaves the table `relay` on top. */
void relay__lua_open_api(lua_State *L);
int relay__lua_print(lua_State *L);
int relay__lua_spawn(lua_State *L);
int relay__lua_every(lua_State *L);
void relay__lua_everies_close(struct policy *policy);
void relay__lua_open_every(lua_State *L);
void relay__lua_open_kv(lua_State *L);
void relay__lua_kv_close(struct relay_lua *lua);
void relay__lua_open_cidr(lua_State *L);
int relay__lua_cidr(lua_State *L);
/* Adds sni, http_host and ssh to the table on top. */
void relay__lua_open_peek(lua_State *L);

/* ---- the whole -------------------------------------------------------- */

struct call {
  uint64_t id;
  struct task *task;
  struct event *queued; /* or it waits for its hook to be called */
  struct call *next;
};

#define TICK_MS 1000
#define ERRORS_KEPT 16
#define CALL_BUCKETS 1024

struct relay_lua {
  uv_loop_t *loop;
  relay_t *relay;
  relay_lua_options options;
  unsigned denied; /* needs that the process cannot have any more */
  char *script;    /* or what to call it */
  lua_State
      *state; /* a coroutine of ours in the host's; NULL: not the host's */
  int state_ref;
  int hooks_ref;  /* the host's table; LUA_NOREF: there is a script */
  int loaded_ref; /* what package.loaded.relay was */
  struct box_classes classes; /* in the host's state, for all its policies */
  relay_policy table;
  struct policy *policy;  /* in force */
  struct policy *coming;  /* being started */
  struct policy *retired; /* finishing what they began */
  struct call *calls[CALL_BUCKETS];
  struct kv_entry *kv;
  size_t kv_bytes;
  struct event *queue;
  struct event **queue_end;
  struct spawned *spawned;
  struct spawned **spawned_end;
  struct task *first_soon;
  struct task **soon_end;
  uint64_t turn;
  unsigned inside;        /* a script runs */
  struct policy *running; /* the innermost that does */
  bool frozen;            /* between save and swap: events queue */
  bool worn_out;          /* a budget was spent: events wait for the next turn,
                             and what is not the script's comes first */
  bool reload_wanted;
  bool reloading;
  bool stopping; /* relay_lua_close was called */
  bool closing;
  uint64_t tick_ms; /* the script's interval */
  uint64_t tick_due_ms;
  uv_idle_t soon;
  uv_timer_t sweep; /* of kv */
  unsigned handles;
  unsigned policies;
  relay_lua_done_fn on_started;
  void *started_data;
  relay_close_fn on_close;
  void *close_data;
  struct {
    uint64_t hash;
    uint64_t logged_ms;
    uint64_t repeated;
  } errors[ERRORS_KEPT];
};

void relay__lua_check_closed(struct relay_lua *lua);
/* Looks at the queues from the loop. */
void relay__lua_wake_soon(struct relay_lua *lua);
/* How far the loop's clock, that of its last wake-up, is behind. */
uint64_t relay__lua_lag_ms(const struct relay_lua *lua);
void relay__lua_init_table(struct relay_lua *lua);

int relay__lua_call_add(struct relay_lua *lua, uint64_t id, struct task *task,
                        struct event *queued);
struct call *relay__lua_call_find(struct relay_lua *lua, uint64_t id);
void relay__lua_call_remove(struct relay_lua *lua, uint64_t id);

/* For table.c: what a hook says of a question, at once or later (DEFER); a
   question that is not to be answered any more; news; and `tick`, which returns
   when to be called again. The event is borrowed. */
int relay__lua_ask(struct relay_lua *lua, struct event *event,
                   relay_verdict *verdict);
void relay__lua_cancel(struct relay_lua *lua, uint64_t call);
void relay__lua_tell(struct relay_lua *lua, const struct event *event);
uint64_t relay__lua_tick(struct relay_lua *lua, uint64_t now_ms);

/* Tells or asks what is in the queue. */
void relay__lua_drain_queue(struct relay_lua *lua);
void relay__lua_drop_queue(struct relay_lua *lua);
void relay__lua_run_spawned(struct relay_lua *lua);
void relay__lua_drop_spawned(struct policy *policy);

/* Runs a hook that answers nobody; `on_end` also when there is no such hook
   (then with task NULL is never called: true is returned at once). */
bool relay__lua_run_life(struct policy *policy, const struct event *event,
                         void (*on_end)(struct task *task), void *data,
                         struct task **out);

void relay__lua_reload_begin(struct relay_lua *lua);
/* What the policy (NULL: none) asked for with relay.listen, or NULL. */
const struct listen *relay__lua_declared(const struct policy *policy,
                                         unsigned port);
int relay__lua_open_listens(struct policy *policy, const struct policy *before,
                            char *error, size_t size);

void relay__lua_log(struct relay_lua *lua, relay_log_level level,
                    const char *event, const relay_log_field *fields,
                    size_t count);
/* The policy's `error`, once in a while if it is always the same. */
void relay__lua_log_failure(struct policy *policy, const char *where);
/* The string there, which is replaced where it holds a zero byte: C would take
   that for its end. */
const char *relay__lua_printable(lua_State *L, int index);
int relay__lua_log_hook(struct policy *policy, const relay_log_record *record);

#endif
