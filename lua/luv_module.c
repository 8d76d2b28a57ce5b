/* SPDX-License-Identifier: MIT */
/*
 * require "luv": the module as it is, but for what would block the relay, end
 * it, or reach beyond the policy. Each of that raises an error that says so.
 */
#include <string.h>

#include "luv.h"

#define ROOM 512

/* ---- what a script may not -------------------------------------------- */

#define BLOCKS "it would hold up everybody"
#define PROCESS "it concerns the whole process, which is not the policy's"
#define THREAD "a thread of its own would be out of all bounds"

struct refusal {
  const char *name;
  const char *why;
};

/* Not even one that is unsafe. */
static const struct refusal never[] = {
    {"run", "the relay runs luv's loop"},
    {"stop", "the relay runs luv's loop"},
    {"loop_close", "the relay runs luv's loop"},
    {NULL, NULL}};

static const struct refusal if_safe[] = {
    {"sleep", BLOCKS " (relay.sleep does not)"},
    {"stream_set_blocking", BLOCKS},
    {"new_thread", THREAD},
    {"new_work", THREAD},
    {"queue_work", THREAD},
    {"thread_join", BLOCKS},
    {"new_signal", PROCESS},
    {"spawn", PROCESS},
    {"kill", PROCESS},
    {"chdir", PROCESS},
    {"setuid", PROCESS},
    {"setgid", PROCESS},
    {"os_setenv", PROCESS},
    {"os_unsetenv", PROCESS},
    {"os_setpriority", PROCESS},
    {"set_process_title", PROCESS},
    {"disable_stdio_inheritance", PROCESS},
    {"new_tty", PROCESS},
    {"tty_reset_mode", PROCESS},
    {"print_all_handles", PROCESS},
    {"print_active_handles", PROCESS},
    {NULL, NULL}};

/* Upvalues: the name, and why. */
static int refuse(lua_State *L) {
  return luaL_error(L, "luv.%s: %s", lua_tostring(L, lua_upvalueindex(1)),
                    lua_tostring(L, lua_upvalueindex(2)));
}

/* Puts it into the table on top. */
static void set_refusal(lua_State *L, const char *key,
                        const struct refusal *refusal) {
  lua_pushstring(L, refusal->name);
  lua_pushstring(L, refusal->why);
  lua_pushcclosure(L, refuse, 2);
  lua_setfield(L, -2, key);
}

/* Upvalues: luv's function, its name, and where its callback stands. */
static int call_with_callback(lua_State *L) {
  if (lua_isnoneornil(L, (int)lua_tointeger(L, lua_upvalueindex(3))))
    return luaL_error(L, "luv.%s: without a callback " BLOCKS,
                      lua_tostring(L, lua_upvalueindex(2)));
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static void want_callback(lua_State *L, const char *name, int index) {
  lua_getfield(L, -1, name);
  lua_pushstring(L, name);
  lua_pushinteger(L, index);
  lua_pushcclosure(L, call_with_callback, 3);
  lua_setfield(L, -2, name);
}

static void restrict_module(lua_State *L) {
  static const char *const streams[] = {"uv_tcp", "uv_pipe"};
  const struct refusal *refusal;
  size_t i;

  for (refusal = if_safe; refusal->name != NULL; refusal++)
    set_refusal(L, refusal->name, refusal);
  want_callback(L, "getaddrinfo", 4);
  want_callback(L, "getnameinfo", 2);
  for (i = 0; i < sizeof(streams) / sizeof(*streams); i++) {
    luaL_getmetatable(L, streams[i]);
    lua_getfield(L, -1, "__index");
    set_refusal(L, "set_blocking", &(struct refusal){"set_blocking", BLOCKS});
    lua_pop(L, 2);
  }
}

/* ---- opening ---------------------------------------------------------- */

/* luv makes a handle in steps, the first of which is for good: so whether there
   is memory is asked before them. Upvalue 1: its function. */
static int construct(lua_State *L) {
  struct policy *policy = relay__lua_policy_of(L);
  int status;

  lua_newuserdatauv(L, ROOM, 0);
  lua_pop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  policy->uncapped = true;
  status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  policy->uncapped = false;
  return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}

/* The script's own copy, without the loop itself: that would end with it. */
static void make_module(lua_State *L, struct luv *luv) {
  const struct refusal *refusal;
  int from, to;

  lua_newtable(L);
  to = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, luv->functions);
  from = lua_gettop(L);
  lua_pushnil(L);
  while (lua_next(L, from) != 0) {
    const char *name = lua_tostring(L, -2);

    if (strncmp(name, "new_", 4) == 0)
      lua_pushcclosure(L, construct, 1);
    if (strcmp(name, "_loop") != 0)
      lua_setfield(L, to, name);
    lua_settop(L, from + 1);
  }
  lua_settop(L, to);
  for (refusal = never; refusal->name != NULL; refusal++)
    set_refusal(L, refusal->name, refusal);
  if (!luv->policy->lua->options.unsafe)
    restrict_module(L);
  luv->module = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Leaves luaopen_luv, and the path of its file, on top. */
static void find_module(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "package");
  lua_getfield(L, -1, "searchers");
  lua_rawgeti(L, -1, 3); /* the one for libraries in C */
  lua_pushliteral(L, "luv");
  lua_call(L, 1, 2);
  if (!lua_isfunction(L, -2))
    luaL_error(L, "luv is not installed (on Debian: apt install lua-luv)");
}

/* The library stays in the process for good: it keeps keys of threads, which it
   would lose each time it went. */
static void set_call(lua_State *L, const char *path) {
  void (*set_callback)(lua_State * L, int (*call)(lua_State *, int, int, int));
  uv_lib_t library;

  if (uv_dlopen(path, &library) != 0 ||
      uv_dlsym(&library, "luv_set_callback", (void **)&set_callback) != 0) {
    lua_pushstring(L, uv_dlerror(&library));
    uv_dlclose(&library);
    luaL_error(L, "luv cannot be used: %s", lua_tostring(L, -1));
    return;
  }
  set_callback(L, relay__lua_luv_call);
}

/* On the main state: luv calls back on the one that it was opened on. */
static int open_luv(lua_State *L) {
  struct luv *luv = lua_touserdata(L, 1);

  if (luv->functions == LUA_NOREF) {
    if (luv->opened)
      return luaL_error(L, "luv could not be opened");
    find_module(L);
    set_call(L, lua_tostring(L, -1));
    luv->opened = true;
    lua_pushvalue(L, -2);
    lua_pushliteral(L, "luv");
    lua_call(L, 1, 1);
    luv->functions = luaL_ref(L, LUA_REGISTRYINDEX);
    luv->alive = true;
    relay__lua_luv_keep_alive(L, luv);
  }
  if (!luv->polling)
    relay__lua_luv_nest(L, luv);
  if (luv->module == LUA_NOREF)
    make_module(L, luv);
  return 0;
}

static int load(lua_State *L) {
  struct policy *policy = relay__lua_policy_of(L);

  if (policy->closing)
    return luaL_error(L, "the policy is closing");
  if (policy->luv == NULL)
    policy->luv = relay__lua_luv_new(policy);
  if (policy->luv == NULL)
    return luaL_error(L, "not enough memory");
  if (policy->luv->module == LUA_NOREF &&
      !relay__lua_luv_enter(policy->luv, open_luv)) {
    relay__lua_first_line(policy->error);
    return luaL_error(L, "%s", policy->error);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, policy->luv->module);
  return 1;
}

void relay__lua_open_luv(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, load);
  lua_setfield(L, -2, "luv");
  lua_pop(L, 1);
}
