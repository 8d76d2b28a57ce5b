/* SPDX-License-Identifier: MIT */
/*
 * Policies: a loaded script with its Lua state, the way into that, and its
 * limits. See private.h.
 */
#ifndef RELAY_LUA_POLICY_H
#define RELAY_LUA_POLICY_H

#include "task.h"

struct luv;

#define ERROR_MAX 4096

struct listen {
  char host[64]; /* "": as the relay listens */
  unsigned port;
};
#define LISTENS_MAX 64

/* The metatables of boxes. */
struct box_class {
  int ref;
  const void *meta;
};
struct box_classes {
  struct box_class conn;
  struct box_class agent;
};

/* CPU time of one entry into the script. */
struct budget {
  uint64_t limit_ns;
  uint64_t began_ns; /* 0: not yet looked at */
  uint64_t began_cpu_ns;
  bool is_over;
};

struct policy {
  struct relay_lua *lua;
  struct policy *next; /* retired ones */
  lua_State *L;
  size_t memory_bytes;
  bool uncapped; /* within luv: see there */
  bool is_full;  /* something did not fit */
  uint64_t starved_until_ms;
  struct budget budget;
  lua_State *thread; /* the innermost coroutine; NULL: none */
  bool is_stuck;     /* it was resumed where no wait passes through */
  int hooks[HOOK_COUNT];
  bool wants_agents; /* its `visitor` has a second parameter */
  int boxes;         /* a table: id to box */
  struct box_classes classes;
  struct task *tasks;
  struct task *idle;
  unsigned idle_count;
  unsigned busy_count;
  struct task *current;
  struct every *everies;
  struct luv *luv; /* NULL: the script did not ask for it */
  unsigned every_count;
  uint64_t next_every;
  struct socket *sockets; /* those with a descriptor */
  unsigned socket_count;
  uint64_t next_socket;
  uint64_t collected_ms; /* for want of descriptors */
  struct tls_context *tls_contexts;
  struct listen listens[LISTENS_MAX];
  unsigned listen_count;
  char *options; /* "key\0value\0…\0" */
  size_t options_size;
  void *saved; /* what `save` gave */
  size_t saved_size;
  uint64_t retired_ms;
  unsigned handles; /* and requests under way */
  bool closing;
  bool in_log;
  bool ticking;
  uv_timer_t drain;
  char error[ERROR_MAX]; /* the last failure, with its traceback */
#ifdef RELAY_LUA_STRESS
  size_t asked; /* since one was refused by way of a test */
  bool refused; /* the last one was */
#endif
};

/* The one that Lua was entered for; outside of any entry, the one in force.
   Raises when there is none. */
struct policy *relay__lua_policy_of(lua_State *L);
/* Begins an entry for the policy, and ends it with what this returned. */
struct policy *relay__lua_enter(struct policy *policy);
void relay__lua_leave(struct policy *policy, struct policy *before);
/* NULL: the state is nobody's. */
struct relay_lua *relay__lua_owner_of(lua_State *L);
/* Tells the state whose it is. Raises; but not to say nobody's, NULL. */
void relay__lua_own(lua_State *L, struct relay_lua *lua);

/* An empty state with its limits. NULL without memory. */
struct policy *relay__lua_policy_new(struct relay_lua *lua);
/* Kills its tasks and frees it once its handles have closed. */
void relay__lua_policy_close(struct policy *policy);
/* What is left to do when no luv is, any more. */
void relay__lua_policy_end(struct policy *policy);
/* One handle or request less; frees a closed policy with the last. */
void relay__lua_policy_unhold(struct policy *policy);
/* Calls `body` with `data` as light userdata, caught and within limits: LUA_OK,
   or a status, and the policy's `error` says why. */
int relay__lua_protect(struct policy *policy, lua_CFunction body, void *data,
                       unsigned budget_ms);
/* A lua_Alloc that counts; `data` is the policy. */
void *relay__lua_allocate(void *data, void *block, size_t old_size,
                          size_t size);
void relay__lua_budget_begin(struct policy *policy, unsigned budget_ms);
void relay__lua_budget_arm(const struct policy *policy, lua_State *L);
/* Collects what an entry left that found no memory. When next to nothing is
   free then, the script is let alone for a while: every object it makes would
   have Lua collect in vain. */
void relay__lua_relieve(struct policy *policy);
bool relay__lua_is_starved(const struct policy *policy);
/* A message handler: adds a traceback to whatever was thrown. */
int relay__lua_traceback(lua_State *L);
/* Takes the error on top of the stack into the policy's `error`. */
void relay__lua_keep_error(struct policy *policy, lua_State *L);
/* Closes its to-be-closed variables; an error is left on its stack. */
void relay__lua_close_thread(lua_State *co, lua_State *from);
/* Cuts the traceback off. */
void relay__lua_first_line(char *text);
/* The same for the policy's `error`; what was raised by C alone has no place,
   and gets the script and `where` in front. */
void relay__lua_name_script(struct policy *policy, const char *where);

#endif
