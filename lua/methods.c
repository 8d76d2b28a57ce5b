/* SPDX-License-Identifier: MIT */
/*
 * What a script does to conns and agents. Each raises when its subject is
 * gone; what may fail otherwise returns nil and why.
 */
#include <math.h>
#include <string.h>

#include "box.h"

static int result(lua_State *L, const struct box *box, int err) {
  if (err == 0) {
    lua_pushboolean(L, 1);
    return 1;
  }
  if (err == UV_ENOENT)
    return luaL_error(L, "%s is closed", box->is_conn ? "connection" : "agent");
  lua_pushnil(L);
  lua_pushstring(L, relay_strerror(err));
  return 2;
}

/* Closing what one is asked about is an answer: the hook ends as if it had
   returned false, at its next wait if it does not return before. */
static bool doom(lua_State *L, const struct box *box, const char *reason) {
  struct task *task = relay__lua_policy_of(L)->current;
  size_t length = strlen(reason);

  if (task == NULL || task->call == 0 || task->subject != box->id)
    return false;
  if (length >= sizeof(task->reason))
    length = sizeof(task->reason) - 1;
  memcpy(task->reason, reason, length);
  task->reason[length] = '\0';
  task->doomed = true;
  return true;
}

static int box_close(lua_State *L) {
  const struct box *box = relay__lua_check_box(L, 1);
  const char *reason = luaL_optstring(L, 2, "closed by policy");
  relay_t *relay = relay__lua_box_relay(L, box);

  if (doom(L, box, reason))
    return result(L, box, 0);
  return result(L, box,
                box->is_conn ? relay_close_conn(relay, box->id, reason)
                             : relay_close_agent(relay, box->id, reason));
}

static int64_t read_limit(lua_State *L, const char *key, double scale) {
  lua_Number number;

  if (lua_type(L, -1) == LUA_TBOOLEAN && !lua_toboolean(L, -1))
    return 0;
  if (lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "limit %s must be a number or false, not a %s", key,
               luaL_typename(L, -1));
  number = lua_tonumber(L, -1) * scale;
  if (!(number >= 0 && number < 9e15))
    luaL_error(L, "limit %s is out of range", key);
  return (int64_t)ceil(number);
}

/* Limits of an agent belong to its address, which may be still to come. */
static int limit_agent(lua_State *L, const struct box *box,
                       const relay_limits *limits) {
  relay_t *relay = relay__lua_box_relay(L, box);
  relay_agent_info info = {.size = sizeof(info)};
  int err = relay_limit_agent(relay, box->id, limits);

  if (err == UV_ENOENT && relay_get_agent(relay, box->id, &info) == 0)
    return luaL_error(L, "an agent without an address has no limits yet");
  return result(L, box, err);
}

static int box_limit(lua_State *L) {
  static const char *const conn_keys[] = {"rate_in", "rate_out", "idle", NULL};
  static const char *const agent_keys[] = {"rate_in", "rate_out", NULL};
  const struct box *box = relay__lua_check_box(L, 1);
  relay_t *relay = relay__lua_box_relay(L, box);
  relay_limits limits = {sizeof(limits), -1, -1, -1};

  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_pushnil(L);
  while (lua_next(L, 2) != 0) {
    const char *key =
        lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";

    if (strcmp(key, "rate_in") == 0)
      limits.rate_in = read_limit(L, key, 1);
    else if (strcmp(key, "rate_out") == 0)
      limits.rate_out = read_limit(L, key, 1);
    else if (strcmp(key, "idle") == 0 && box->is_conn)
      limits.idle_ms = read_limit(L, key, 1000);
    else
      return relay__lua_unknown(L, "unknown limit", key,
                                box->is_conn ? conn_keys : agent_keys);
    lua_pop(L, 1);
  }
  return box->is_conn
             ? result(L, box, relay_limit_conn(relay, box->id, &limits))
             : limit_agent(L, box, &limits);
}

static int conn_tag(lua_State *L) {
  const struct box *box = luaL_checkudata(L, 1, CONN);
  relay_t *relay = relay__lua_box_relay(L, box);
  const char *key = relay__lua_check_text(L, 2);
  const char *value = NULL;

  if (!lua_isnoneornil(L, 3)) {
    luaL_tolstring(L, 3, NULL);
    value = relay__lua_printable(L, -1);
  }
  return result(L, box, relay_tag_conn(relay, box->id, key, value));
}

static int conn_peek(lua_State *L) {
  const struct box *box = luaL_checkudata(L, 1, CONN);
  relay_t *relay = relay__lua_box_relay(L, box);
  uint64_t ms = relay__lua_check_ms(L, 2);
  int err;

  luaL_argcheck(L, ms != 0, 2, "it cannot be 0");
  if (relay__lua_policy_of(L)->hooks[HOOK_PEEK] == LUA_NOREF)
    return luaL_error(L, "the policy has no hook 'peek'");
  err = relay_peek_conn(relay, box->id, ms);
  if (err == UV_EALREADY)
    return luaL_error(L, "peek can be asked for in 'visitor' only");
  return result(L, box, err);
}

const luaL_Reg relay__lua_conn_methods[] = {{"close", box_close},
                                            {"limit", box_limit},
                                            {"tag", conn_tag},
                                            {"peek", conn_peek},
                                            {NULL, NULL}};
const luaL_Reg relay__lua_agent_methods[] = {
    {"close", box_close}, {"limit", box_limit}, {NULL, NULL}};
