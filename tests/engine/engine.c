/* SPDX-License-Identifier: MIT */
/*
 * An interpreter of Lua that has the engine of policies as its module
 * `engine`: no sockets, and a clock that stands until the test moves it. What
 * a policy does to the relay is handed to the test (core.c). engine.lua makes
 * of it what relay.testing is.
 *
 *   engine SCRIPT [ARGUMENT ...]
 */
#include "engine.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the loop ---------------------------------------------------------- */

static uv_loop_t loop;

/* (milliseconds): lets them pass. */
static int engine_pass(lua_State *L) {
  engine_clock_ms += (uint64_t)luaL_checkinteger(L, 1);
  uv_update_time(&loop);
  return 0;
}

static int engine_now(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)engine_clock_ms);
  return 1;
}

/* One turn of the loop. Milliseconds until the next is wanted, or nil. */
static int engine_turn(lua_State *L) {
  int timeout;

  uv_run(&loop, UV_RUN_NOWAIT);
  engine_check(L);
  timeout = uv_backend_timeout(&loop);
  if (timeout < 0 || !uv_loop_alive(&loop))
    lua_pushnil(L);
  else
    lua_pushinteger(L, timeout);
  return 1;
}

/* ---- one policy ------------------------------------------------------- */

static relay_lua_t *lua;

/* Stands for a relay; nothing looks inside. */
static int nobody;

static void on_record(void *data, const relay_log_record *record) {
  (void)data;
  engine_begin("record");
  engine_push_record(engine_test, record);
  engine_call(1, 0);
}

static void on_line(void *data, relay_log_level level, const char *text,
                    size_t length) {
  (void)data;
  engine_begin("line");
  lua_pushstring(engine_test, engine_levels[level]);
  lua_pushlstring(engine_test, text, length);
  engine_call(2, 0);
}

/* (path, core): true; or nil and why. */
static int engine_load(lua_State *L) {
  relay_lua_options options;
  char error[1024];

  relay_lua_options_init(&options, sizeof(options));
  options.script = luaL_checkstring(L, 1);
  options.log = on_record;
  options.line = on_line;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  engine_core = luaL_ref(L, LUA_REGISTRYINDEX);
  if (relay_lua_new(&lua, &loop, &options, error, sizeof(error)) == 0) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, error);
  return 2;
}

static void on_started(void *data, const char *error) {
  (void)data;
  engine_begin("started");
  lua_pushstring(engine_test, error);
  engine_call(1, 0);
}

static int engine_start(lua_State *L) {
  relay_lua_start(lua, on_started, NULL);
  engine_check(L);
  return 0;
}

/* nil, or why not. */
static int engine_attach(lua_State *L) {
  char error[512];

  if (relay_lua_attach(lua, (relay_t *)&nobody, error, sizeof(error)) == 0)
    return 0;
  lua_pushstring(L, error);
  return 1;
}

static int engine_reload(lua_State *L) {
  (void)L;
  relay_lua_reload(lua);
  return 0;
}

static void on_closed(void *data) {
  *(bool *)data = true;
}

/* Runs `stop`; then nothing may be left on the loop. */
static int engine_close(lua_State *L) {
  bool closed = false;
  int turns = 0;

  relay_lua_attach(lua, NULL, NULL, 0);
  relay_lua_close(lua, on_closed, &closed);
  while (!closed && turns++ < 10000) {
    uv_run(&loop, UV_RUN_NOWAIT);
    engine_clock_ms++;
  }
  engine_check(L);
  if (!closed)
    return luaL_error(L, "the policy does not close");
  while (uv_run(&loop, UV_RUN_NOWAIT) != 0 && turns++ < 10000)
    engine_clock_ms++;
  if (uv_loop_close(&loop) != 0)
    return luaL_error(L, "something is left on the loop");
  uv_loop_init(&loop);
  return 0;
}

/* ---- its hooks -------------------------------------------------------- */

static const relay_policy *table(void) {
  return relay_lua_policy(lua);
}

static int give(lua_State *L, int err, const relay_verdict *verdict) {
  engine_check(L);
  if (err != 0) {
    lua_pushnil(L);
    lua_pushinteger(L, err);
    return 2;
  }
  engine_push_verdict(L, verdict);
  return 1;
}

/* (call, agent, id or nil, certificate or nil) */
static int engine_auth(lua_State *L) {
  relay_verdict verdict = {.size = sizeof(verdict)};
  relay_credentials credentials = {.size = sizeof(credentials)};
  struct texts texts = {.used = 0};
  relay_agent_info agent;

  engine_read_agent(L, 2, &agent, &texts);
  credentials.id = luaL_optstring(L, 3, NULL);
  credentials.certificate = luaL_optstring(L, 4, NULL);
  if (credentials.id != NULL)
    credentials.kind = RELAY_CREDENTIAL_TOKEN;
  else if (credentials.certificate != NULL)
    credentials.kind = RELAY_CREDENTIAL_CERTIFICATE;
  if (credentials.id == NULL)
    credentials.id = credentials.certificate;
  return give(L,
              table()->auth(table()->data, (uint64_t)lua_tointeger(L, 1),
                            &agent, &credentials, &verdict),
              &verdict);
}

/* (call, agent, port, host, attempt) */
static int engine_allocate(lua_State *L) {
  relay_verdict verdict = {.size = sizeof(verdict)};
  relay_want want = {sizeof(want), (unsigned)luaL_optinteger(L, 3, 0),
                     luaL_optstring(L, 4, ""),
                     (unsigned)luaL_optinteger(L, 5, 1)};
  struct texts texts = {.used = 0};
  relay_agent_info agent;

  engine_read_agent(L, 2, &agent, &texts);
  return give(L,
              table()->allocate(table()->data, (uint64_t)lua_tointeger(L, 1),
                                &agent, &want, &verdict),
              &verdict);
}

#define AGENTS_MAX 16

/* (call, conn, agents) */
static int engine_visitor(lua_State *L) {
  relay_verdict verdict = {.size = sizeof(verdict)};
  relay_agent_info agents[AGENTS_MAX];
  struct texts texts = {.used = 0}, of_agents[AGENTS_MAX];
  lua_Unsigned count = lua_rawlen(L, 3), i;
  relay_conn_info conn;

  luaL_argcheck(L, count <= AGENTS_MAX, 3, "too many agents");
  engine_read_conn(L, 2, &conn, &texts);
  for (i = 0; i < count; i++) {
    of_agents[i].used = 0;
    lua_rawgeti(L, 3, (lua_Integer)i + 1);
    engine_read_agent(L, lua_gettop(L), &agents[i], &of_agents[i]);
  }
  return give(L,
              table()->visitor(table()->data, (uint64_t)lua_tointeger(L, 1),
                               &conn, agents, (size_t)count, &verdict),
              &verdict);
}

/* (call, conn, bytes, eof) */
static int engine_peek(lua_State *L) {
  relay_verdict verdict = {.size = sizeof(verdict)};
  struct texts texts = {.used = 0};
  relay_conn_info conn;
  size_t count;
  const char *bytes = luaL_checklstring(L, 3, &count);

  engine_read_conn(L, 2, &conn, &texts);
  return give(L,
              table()->peek(table()->data, (uint64_t)lua_tointeger(L, 1), &conn,
                            bytes, count, lua_toboolean(L, 4), &verdict),
              &verdict);
}

/* Tells of the conn at 1. */
static int tell(lua_State *L,
                void (*hook)(void *data, const relay_conn_info *conn)) {
  struct texts texts = {.used = 0};
  relay_conn_info conn;

  engine_read_conn(L, 1, &conn, &texts);
  hook(table()->data, &conn);
  engine_check(L);
  return 0;
}

static int engine_open(lua_State *L) {
  return tell(L, table()->open);
}

static int engine_end(lua_State *L) {
  return tell(L, table()->close);
}

/* (agent, reason) */
static int engine_gone(lua_State *L) {
  struct texts texts = {.used = 0};
  relay_agent_info agent;

  engine_read_agent(L, 1, &agent, &texts);
  table()->agent_gone(table()->data, &agent, (int)luaL_optinteger(L, 2, 0));
  engine_check(L);
  return 0;
}

/* Milliseconds until the next. */
static int engine_tick(lua_State *L) {
  lua_pushinteger(L,
                  (lua_Integer)table()->tick(table()->data, engine_clock_ms));
  engine_check(L);
  return 1;
}

/* (level, msg, {{key, value}, …}): whether it is dropped. */
static int engine_log(lua_State *L) {
  relay_log_field fields[16];
  relay_log_record record = {
      sizeof(record),
      (relay_log_level)luaL_checkoption(L, 1, "info", engine_levels),
      luaL_checkstring(L, 2), fields, 0};
  lua_Unsigned count = lua_rawlen(L, 3), i;

  luaL_argcheck(L, count <= 16, 3, "too many fields");
  for (i = 0; i < count; i++) {
    lua_rawgeti(L, 3, (lua_Integer)i + 1);
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    fields[i].key = lua_tostring(L, -2);
    fields[i].text = lua_isinteger(L, -1) ? NULL : lua_tostring(L, -1);
    fields[i].number = lua_tointeger(L, -1);
  }
  record.field_count = (size_t)count;
  lua_pushboolean(L, table()->log(table()->data, &record));
  engine_check(L);
  return 1;
}

static int engine_cancel(lua_State *L) {
  table()->cancel(table()->data, (uint64_t)luaL_checkinteger(L, 1));
  engine_check(L);
  return 0;
}

/* ---- what can be asked ------------------------------------------------ */

static int add_option(void *data, const char *key, const char *value) {
  lua_State *L = data;

  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
  return 0;
}

static int engine_options(lua_State *L) {
  lua_newtable(L);
  relay_lua_each_option(lua, add_option, L);
  return 1;
}

/* A list of the hooks that the script has, or of all. */
static int engine_hooks(lua_State *L) {
  const char *const *name = relay_lua_hooks();
  int all = lua_toboolean(L, 1);

  lua_newtable(L);
  for (; *name != NULL; name++) {
    if (!all && !relay_lua_has_hook(lua, *name))
      continue;
    lua_pushstring(L, *name);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  }
  return 1;
}

/* The number of an error's name, libuv's or the relay's. */
static int engine_code(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  int code;

  for (code = 0; code > -30000; code--)
    if (strcmp(relay_error_name(code), name) == 0) {
      lua_pushinteger(L, code);
      return 1;
    }
  return luaL_error(L, "no error is called '%s'", name);
}

static const luaL_Reg functions[] = {
    {"pass", engine_pass},       {"now", engine_now},
    {"turn", engine_turn},       {"load", engine_load},
    {"start", engine_start},     {"attach", engine_attach},
    {"reload", engine_reload},   {"stop", engine_close},
    {"auth", engine_auth},       {"allocate", engine_allocate},
    {"visitor", engine_visitor}, {"peek", engine_peek},
    {"open", engine_open},       {"close", engine_end},
    {"agent_gone", engine_gone}, {"tick", engine_tick},
    {"log", engine_log},         {"cancel", engine_cancel},
    {"options", engine_options}, {"hooks", engine_hooks},
    {"code", engine_code},       {NULL, NULL}};

static int open_engine(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}

/* ---- the interpreter -------------------------------------------------- */

static int run(lua_State *L) {
  char **argv = lua_touserdata(L, 1);
  int i;

  luaL_openlibs(L);
  luaL_requiref(L, "engine", open_engine, 0);
  lua_newtable(L);
  for (i = 0; argv[i] != NULL; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - 1);
  }
  lua_setglobal(L, "arg");
  if (luaL_loadfile(L, argv[1]) != LUA_OK)
    return lua_error(L);
  lua_call(L, 0, 0);
  return 0;
}

static int trace(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

int main(int argc, char **argv) {
  int status;

  (void)argc;
  uv_loop_init(&loop);
  engine_test = luaL_newstate();
  lua_pushcfunction(engine_test, trace);
  lua_pushcfunction(engine_test, run);
  lua_pushlightuserdata(engine_test, argv);
  status = lua_pcall(engine_test, 1, 0, 1);
  if (status != LUA_OK)
    fprintf(stderr, "engine: %s\n", lua_tostring(engine_test, -1));
  lua_close(engine_test);
  uv_loop_close(&loop);
  return status == LUA_OK ? 0 : 1;
}
