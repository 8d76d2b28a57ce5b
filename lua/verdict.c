/* SPDX-License-Identifier: MIT */
/*
 * What hooks return, read by one convention: nil and true let pass (nil denies
 * in auth), false denies and may say why, else it is the thing chosen. Any
 * other type is an error. Called inside the hook's coroutine.
 */
#include <math.h>
#include <string.h>

#include "private.h"

static bool wrong(lua_State *L, const struct task *task, const char *may) {
  lua_settop(L, 3);
  lua_pushfstring(L, "%s returned a %s; it may return %s",
                  relay__lua_hook_names[task->hook], luaL_typename(L, 2), may);
  return false;
}

/* Copies a text that may be absent. False: it is none. */
static bool take_text(lua_State *L, int index, char *to, size_t size,
                      const char **text) {
  size_t length;
  const char *from;

  if (lua_isnoneornil(L, index))
    return true;
  if (lua_type(L, index) != LUA_TSTRING)
    return false;
  from = lua_tolstring(L, index, &length);
  if (length >= size)
    length = size - 1;
  memcpy(to, from, length);
  to[length] = '\0';
  *text = to;
  return true;
}

static bool deny(lua_State *L, struct task *task, int first) {
  task->verdict.answer = RELAY_DENY;
  if (take_text(L, first + 1, task->reason, sizeof(task->reason),
                &task->verdict.reason))
    return true;
  lua_pushfstring(L, "%s returned false and a %s; the reason is a string",
                  relay__lua_hook_names[task->hook],
                  luaL_typename(L, first + 1));
  return false;
}

static bool read_auth(lua_State *L, struct task *task, int first) {
  if (lua_isnoneornil(L, first)) {
    task->verdict.answer = RELAY_DENY;
    task->verdict.reason = "auth returned nothing";
    return true;
  }
  if (lua_type(L, first) != LUA_TBOOLEAN)
    return wrong(L, task, "true, a name; or false, a reason");
  if (!lua_toboolean(L, first))
    return deny(L, task, first);
  if (take_text(L, first + 1, task->name, sizeof(task->name),
                &task->verdict.name))
    return true;
  lua_pushliteral(L, "auth returned true and no string; the name is a string");
  return false;
}

static bool read_port(lua_State *L, int index, unsigned *port) {
  int is_integer;
  lua_Integer number = lua_tointegerx(L, index, &is_integer);

  if (lua_type(L, index) != LUA_TNUMBER || !is_integer || number < 1 ||
      number > 65535)
    return false;
  *port = (unsigned)number;
  return true;
}

static bool read_flag(lua_State *L, int index, int *flag) {
  *flag = lua_toboolean(L, index);
  return lua_type(L, index) == LUA_TBOOLEAN;
}

static const char *const address_keys[] = {"port", "host", "share", NULL};

static bool read_address(lua_State *L, struct task *task, int index) {
  relay_verdict *verdict = &task->verdict;

  lua_pushnil(L);
  while (lua_next(L, index) != 0) {
    const char *key =
        lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    bool ok = true;

    if (strcmp(key, "port") == 0)
      ok = read_port(L, -1, &verdict->port);
    else if (strcmp(key, "host") == 0)
      ok = lua_type(L, -1) == LUA_TSTRING &&
           take_text(L, -1, task->host, sizeof(task->host), &verdict->host);
    else if (strcmp(key, "share") == 0)
      ok = read_flag(L, -1, &verdict->share);
    else
      relay__lua_unknown(L, "allocate returned a table with the key", key,
                         address_keys);
    if (!ok) {
      lua_pushfstring(L, "allocate returned a table whose %s is wrong", key);
      return false;
    }
    lua_pop(L, 1);
  }
  verdict->answer = verdict->port != 0 ? RELAY_PICK : RELAY_ALLOW;
  return true;
}

static bool read_allocate(lua_State *L, struct task *task, int first) {
  switch (lua_type(L, first)) {
  case LUA_TNUMBER:
    if (!read_port(L, first, &task->verdict.port)) {
      lua_pushfstring(L, "allocate returned %s, which is not a port",
                      lua_tostring(L, first));
      return false;
    }
    task->verdict.answer = RELAY_PICK;
    return true;
  case LUA_TTABLE:
    return read_address(L, task, first);
  default:
    return wrong(L, task, "a port, {port=, host=, share=}, nil or false");
  }
}

static bool read_choice(lua_State *L, struct task *task, int first) {
  uint64_t agent;
  int is_integer;

  if (relay__lua_is_agent(L, first, &agent)) {
    task->verdict.answer = agent != 0 ? RELAY_PICK : RELAY_ALLOW;
    task->verdict.agent = agent;
    return true;
  }
  if (task->hook == HOOK_VISITOR)
    return wrong(L, task, "an agent, nil, true or false");
  if (lua_type(L, first) == LUA_TNUMBER) {
    lua_Integer need = lua_tointegerx(L, first, &is_integer);

    if (is_integer && need > (lua_Integer)task->byte_count &&
        need <= PEEK_MAX) {
      task->verdict.answer = RELAY_NEED;
      task->verdict.need = (size_t)need;
      return true;
    }
    lua_pushfstring(L, "peek needs %s bytes, and was shown %d of at most %d",
                    lua_tostring(L, first), (int)task->byte_count, PEEK_MAX);
    return false;
  }
  return wrong(L, task, "an agent, nil, true, false or a number of bytes");
}

static bool read_saved(lua_State *L, struct task *task, int first) {
  struct policy *policy = task->policy;
  const char *why = NULL;

  if (lua_isnoneornil(L, first))
    return true;
  if (lua_type(L, first) != LUA_TTABLE)
    return wrong(L, task, "a plain table or nil");
  policy->saved = relay__lua_pack(L, first, &policy->saved_size, &why);
  if (policy->saved != NULL)
    return true;
  lua_pushfstring(L, "save returned a table with %s in it", why);
  return false;
}

static bool read_interval(lua_State *L, struct task *task, int first) {
  if (lua_isnoneornil(L, first))
    return true;
  if (lua_type(L, first) != LUA_TNUMBER)
    return wrong(L, task, "a number of seconds or nil");
  task->number = lua_tonumber(L, first);
  if (task->number > 0 && task->number < 1e9)
    return true;
  lua_pushfstring(L, "tick returned %s, which is not an interval",
                  lua_tostring(L, first));
  return false;
}

bool relay__lua_verdict_read(lua_State *L, struct task *task, int first) {
  switch (task->hook) {
  case HOOK_AUTH:
    return read_auth(L, task, first);
  case HOOK_SAVE:
    return read_saved(L, task, first);
  case HOOK_TICK:
    return read_interval(L, task, first);
  case HOOK_NONE:
    task->no_more =
        lua_type(L, first) == LUA_TBOOLEAN && !lua_toboolean(L, first);
    return true;
  case HOOK_ALLOCATE:
  case HOOK_VISITOR:
  case HOOK_PEEK:
    break;
  default:
    return true;
  }
  if (lua_isnoneornil(L, first))
    return true;
  if (lua_type(L, first) == LUA_TBOOLEAN)
    return lua_toboolean(L, first) || deny(L, task, first);
  return task->hook == HOOK_ALLOCATE ? read_allocate(L, task, first)
                                     : read_choice(L, task, first);
}
