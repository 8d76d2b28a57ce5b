/* SPDX-License-Identifier: MIT */
/*
 * The module `relay`: what a script may ask of the relay and tell it.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* ---- arguments -------------------------------------------------------- */

const char *relay__lua_check_text(lua_State *L, int index) {
  size_t size;
  const char *text = luaL_checklstring(L, index, &size);

  luaL_argcheck(L, strlen(text) == size, index, "it holds a zero byte");
  return text;
}

const char *relay__lua_opt_text(lua_State *L, int index,
                                const char *otherwise) {
  return lua_isnoneornil(L, index) ? otherwise
                                   : relay__lua_check_text(L, index);
}

#define NAMES_MAX 64

static relay_t *check_relay(lua_State *L) {
  relay_t *relay = relay__lua_policy_of(L)->lua->relay;

  if (relay == NULL)
    luaL_error(L, "there is no relay yet, or no more");
  return relay;
}

static int fail(lua_State *L, int err) {
  lua_pushnil(L);
  lua_pushstring(L, relay_strerror(err));
  return 2;
}

/* ---- log and time ----------------------------------------------------- */

/* What string.format finds wrong with its arguments has no place: it was called
   from here. */
static int blame_format(lua_State *L) {
  const char *text = lua_tostring(L, -1);

  if (text != NULL && (strncmp(text, "bad argument ", 13) == 0 ||
                       strncmp(text, "invalid ", 8) == 0)) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* Upvalue 1: string.format. */
static int api_log(lua_State *L) {
  static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
  int level = luaL_checkoption(L, 1, NULL, levels);
  const char *text;

  luaL_checkany(L, 2);
  if (lua_gettop(L) > 2) {
    luaL_checkstring(L, 2);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_replace(L, 1);
    if (lua_pcall(L, lua_gettop(L) - 1, 1, 0) != LUA_OK)
      return blame_format(L);
  } else {
    luaL_tolstring(L, 2, NULL);
  }
  text = relay__lua_printable(L, -1);
  relay__lua_log(relay__lua_policy_of(L)->lua, (relay_log_level)level, text,
                 NULL, 0);
  return 0;
}

int relay__lua_print(lua_State *L) {
  int i, count = lua_gettop(L);
  luaL_Buffer buffer;

  luaL_buffinit(L, &buffer);
  for (i = 1; i <= count; i++) {
    if (i > 1)
      luaL_addchar(&buffer, ' ');
    luaL_tolstring(L, i, NULL);
    luaL_addvalue(&buffer);
  }
  luaL_pushresult(&buffer);
  relay__lua_log(relay__lua_policy_of(L)->lua, RELAY_LOG_INFO,
                 relay__lua_printable(L, -1), NULL, 0);
  return 0;
}

static int api_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)uv_hrtime() / 1e9);
  return 1;
}

/* ---- lists and numbers ------------------------------------------------ */

struct ids {
  uint64_t *list;
  size_t count;
  size_t room;
};

/* Ids are gathered first: nothing of Lua is called from within the visit. */
static int add_id(struct ids *ids, uint64_t id) {
  if (ids->count < ids->room)
    ids->list[ids->count] = id;
  ids->count++;
  return 0;
}

static int visit_agent(void *data, const relay_agent_info *agent) {
  return add_id(data, agent->id);
}

static int visit_conn(void *data, const relay_conn_info *conn) {
  return add_id(data, conn->id);
}

static int push_list(lua_State *L, bool conns) {
  relay_t *relay = check_relay(L);
  struct ids ids = {NULL, 0, 0};
  size_t i;

  if (conns)
    relay_each_conn(relay, visit_conn, &ids);
  else
    relay_each_agent(relay, visit_agent, &ids);
  ids.room = ids.count;
  ids.count = 0;
  ids.list = lua_newuserdatauv(L, (ids.room + 1) * sizeof(*ids.list), 0);
  if (conns)
    relay_each_conn(relay, visit_conn, &ids);
  else
    relay_each_agent(relay, visit_agent, &ids);
  lua_createtable(L, (int)ids.room, 0);
  for (i = 0; i < ids.room; i++) {
    if (conns)
      relay__lua_push_conn(L, ids.list[i]);
    else
      relay__lua_push_agent(L, ids.list[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static int api_agents(lua_State *L) {
  return push_list(L, false);
}

static int api_conns(lua_State *L) {
  return push_list(L, true);
}

#define STAT(name)                                                             \
  { #name, offsetof(relay_stats, name) }

static int api_stats(lua_State *L) {
  static const struct {
    const char *name;
    size_t offset;
  } fields[] = {STAT(agents),         STAT(leases),
                STAT(visitors),       STAT(pairs),
                STAT(parked),         STAT(waiting),
                STAT(unproven),       STAT(fds),
                STAT(pipes),          STAT(agents_total),
                STAT(visitors_total), STAT(refused_total),
                STAT(bytes_in),       STAT(bytes_out)};
  relay_stats stats = {.size = sizeof(stats)};
  uint64_t number;
  size_t i;

  relay_get_stats(check_relay(L), &stats);
  lua_createtable(L, 0, (int)(sizeof(fields) / sizeof(*fields)));
  for (i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
    memcpy(&number, (const char *)&stats + fields[i].offset, sizeof(number));
    lua_pushinteger(L, (lua_Integer)number);
    lua_setfield(L, -2, fields[i].name);
  }
  return 1;
}

/* ---- shared listeners ------------------------------------------------- */

/* On top of the stack. */
static void read_host(lua_State *L, struct listen *listen) {
  const char *host = lua_tostring(L, -1);
  struct sockaddr_in6 ipv6;
  struct sockaddr_in ipv4;
  size_t length = host != NULL ? strlen(host) : 0;

  luaL_argcheck(L,
                host != NULL && length == lua_rawlen(L, -1) &&
                    length < sizeof(listen->host) &&
                    (uv_ip4_addr(host, 0, &ipv4) == 0 ||
                     uv_ip6_addr(host, 0, &ipv6) == 0),
                1, "host must be a literal address");
  memcpy(listen->host, host, length + 1);
}

static void read_listen(lua_State *L, struct listen *listen) {
  static const char *const keys[] = {"host", "port", NULL};
  lua_Integer port = 0;

  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_pushnil(L);
  while (lua_next(L, 1) != 0) {
    const char *key =
        lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";

    if (strcmp(key, "port") == 0)
      port = lua_tointeger(L, -1);
    else if (strcmp(key, "host") == 0)
      read_host(L, listen);
    else
      relay__lua_unknown(L, "relay.listen: unknown key", key, keys);
    lua_pop(L, 1);
  }
  luaL_argcheck(L, port >= 1 && port <= 65535, 1, "port must be 1 to 65535");
  listen->port = (unsigned)port;
}

static int api_listen(lua_State *L) {
  struct policy *policy = relay__lua_policy_of(L);
  struct relay_lua *lua = policy->lua;
  const struct listen *declared;
  struct listen listen;
  int err = 0;

  memset(&listen, 0, sizeof(listen));
  read_listen(L, &listen);
  declared = relay__lua_declared(policy, listen.port);
  if (declared != NULL && strcmp(declared->host, listen.host) != 0)
    return fail(L, UV_EADDRINUSE);
  if (declared != NULL) {
    lua_pushboolean(L, 1);
    return 1;
  }
  if (policy->listen_count == LISTENS_MAX)
    return luaL_error(L, "relay.listen: at most %d ports", LISTENS_MAX);
  /* In `start` it is a wish, opened when the policy comes into force. */
  if (policy == lua->policy && lua->relay != NULL)
    err = relay_listen(lua->relay, *listen.host != '\0' ? listen.host : NULL,
                       listen.port);
  if (err != 0)
    return fail(L, err);
  policy->listens[policy->listen_count++] = listen;
  lua_pushboolean(L, 1);
  return 1;
}

int relay_lua_each_listen(relay_lua_t *lua,
                          int (*visit)(void *data, const char *host,
                                       unsigned port),
                          void *data) {
  const struct policy *policy = lua->policy;
  int stop = 0;
  unsigned i;

  for (i = 0; i < policy->listen_count && stop == 0; i++) {
    const struct listen *listen = &policy->listens[i];

    stop =
        visit(data, *listen->host != '\0' ? listen->host : NULL, listen->port);
  }
  return stop;
}

/* Not while one is under way: `save`, `start` and `stop` that ask for the next
   would reload for ever. */
static int api_reload(lua_State *L) {
  struct relay_lua *lua = relay__lua_policy_of(L)->lua;
  int err;

  if (lua->reloading) {
    lua_pushnil(L);
    lua_pushliteral(L, "a reload is under way");
    return 2;
  }
  err = relay_lua_reload(lua);
  if (err != 0)
    return fail(L, err);
  lua_pushboolean(L, 1);
  return 1;
}

static int api_unknown(lua_State *L) {
  const char *names[NAMES_MAX + 1];
  const char *word = luaL_tolstring(L, 2, NULL);
  size_t count = 0;

  lua_pushnil(L);
  for (; lua_next(L, 1) != 0 && count < NAMES_MAX; lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING)
      names[count++] = lua_tostring(L, -2); /* the table keeps it */
  names[count] = NULL;
  return relay__lua_unknown(L, "relay has no", word, names);
}

void relay__lua_open_api(lua_State *L) {
  static const luaL_Reg functions[] = {{"now", api_now},
                                       {"sleep", relay__lua_sleep},
                                       {"spawn", relay__lua_spawn},
                                       {"every", relay__lua_every},
                                       {"wait", relay__lua_wait_for},
                                       {"resolve", relay__lua_resolve},
                                       {"agents", api_agents},
                                       {"conns", api_conns},
                                       {"stats", api_stats},
                                       {"listen", api_listen},
                                       {"reload", api_reload},
                                       {"cidr", relay__lua_cidr},
                                       {NULL, NULL}};

  luaL_newlib(L, functions);
  lua_getglobal(L, "string");
  lua_getfield(L, -1, "format");
  lua_remove(L, -2);
  lua_pushcclosure(L, api_log, 1);
  lua_setfield(L, -2, "log");
  lua_pushstring(L, relay_version());
  lua_setfield(L, -2, "version");
  relay__lua_open_kv(L);
  relay__lua_open_peek(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, api_unknown);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
}
