/* SPDX-License-Identifier: MIT */
/*
 * Events: what the core told, on its way into a hook. See private.h.
 */
#ifndef RELAY_LUA_EVENT_H
#define RELAY_LUA_EVENT_H

#include <lua.h>
#include <stdint.h>

#include "include/relay/lua.h"

#define HOOK_MAP(X)                                                            \
  X(START, start)                                                              \
  X(SAVE, save)                                                                \
  X(STOP, stop)                                                                \
  X(AUTH, auth)                                                                \
  X(ALLOCATE, allocate)                                                        \
  X(VISITOR, visitor)                                                          \
  X(PEEK, peek)                                                                \
  X(OPEN, open)                                                                \
  X(CLOSE, close)                                                              \
  X(AGENT_GONE, agent_gone)                                                    \
  X(TICK, tick)                                                                \
  X(LOG, log)

enum hook {
#define HOOK_ENUM(upper, lower) HOOK_##upper,
  HOOK_MAP(HOOK_ENUM)
#undef HOOK_ENUM
      HOOK_COUNT,
  HOOK_NONE = HOOK_COUNT /* a task of the script's own: spawn, every */
};

extern const char *const relay__lua_hook_names[HOOK_COUNT + 2];

/* Borrowed texts; relay__lua_event_copy makes one that owns them. */
struct event {
  struct event *next;
  enum hook hook;
  uint64_t call; /* of a question */
  int reason;
  int eof;
  relay_conn_info conn;
  relay_agent_info agent;
  const relay_agent_info *agents;
  size_t agent_count;
  relay_credentials cred;
  relay_want want;
  const void *bytes; /* peek; start: what `save` gave */
  size_t byte_count;
  const char *text; /* stop: why */
};

struct event *relay__lua_event_copy(const struct event *event);
/* Pushes the arguments of the event's hook; returns their number. */
int relay__lua_event_push(lua_State *L, const struct event *event);
/* The conn or agent it is about; 0: none. */
uint64_t relay__lua_event_subject(const struct event *event);

#endif
