/* SPDX-License-Identifier: MIT */
/*
 * `options = {…}` of a script, rendered as the command line would say it:
 * max_agents = 5 is "max-agents", "5"; ports = { 8081, 9000 } is "8081-9000".
 * Kept sorted in one block, so two scripts' options compare byte by byte.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

#define OPTIONS_MAX 128

static int fail(lua_State *L, const char *key, const char *what) {
  return luaL_error(L, "%s: option '%s' %s",
                    relay__lua_policy_of(L)->lua->script, key, what);
}

static void push_pair(lua_State *L, int value, const char *key) {
  lua_rawgeti(L, value, 1);
  lua_rawgeti(L, value, 2);
  if (lua_rawlen(L, value) != 2 || !lua_isinteger(L, -1) ||
      !lua_isinteger(L, -2))
    fail(L, key, "must be two whole numbers, { LOW, HIGH }");
  lua_pushfstring(L, "%I-%I", (LUAI_UACINT)lua_tointeger(L, -2),
                  (LUAI_UACINT)lua_tointeger(L, -1));
  lua_replace(L, -3);
  lua_pop(L, 1);
}

static void push_value(lua_State *L, int value, const char *key) {
  lua_Integer whole;

  switch (lua_type(L, value)) {
  case LUA_TSTRING:
    lua_pushvalue(L, value);
    break;
  case LUA_TNUMBER:
    if (lua_numbertointeger(lua_tonumber(L, value), &whole) &&
        (lua_Number)whole == lua_tonumber(L, value))
      lua_pushfstring(L, "%I", (LUAI_UACINT)whole);
    else
      luaL_tolstring(L, value, NULL);
    break;
  case LUA_TBOOLEAN:
    lua_pushstring(L, lua_toboolean(L, value) ? "true" : "false");
    break;
  case LUA_TTABLE:
    push_pair(L, value, key);
    break;
  default:
    fail(L, key, "must be a string, a number or a boolean");
  }
}

/* Pushes a list of strings "key\0value\0"; returns its length. */
static int collect(lua_State *L, int options) {
  int list, key, count = 0;

  lua_newtable(L);
  list = lua_gettop(L);
  lua_pushnil(L);
  while (lua_next(L, options) != 0) {
    key = lua_gettop(L) - 1;
    if (lua_type(L, key) != LUA_TSTRING)
      return fail(L, "?", "has no name");
    if (++count > OPTIONS_MAX)
      return fail(L, "?", "is one too many");
    luaL_gsub(L, lua_tostring(L, key), "_", "-");
    lua_pushlstring(L, "", 1);
    push_value(L, key + 1, lua_tostring(L, key));
    lua_pushlstring(L, "", 1);
    lua_concat(L, 4);
    lua_rawseti(L, list, count);
    lua_settop(L, key);
  }
  return count;
}

static int compare(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void relay__lua_options_read(lua_State *L, struct policy *policy) {
  const char *items[OPTIONS_MAX] = {NULL};
  size_t sizes[OPTIONS_MAX], total = 1;
  int count = collect(L, lua_gettop(L)), i;
  char *at;

  for (i = 0; i < count; i++) {
    lua_rawgeti(L, -1, i + 1);
    items[i] = lua_tolstring(L, -1, &sizes[i]); /* the list keeps it */
    total += sizes[i];
    lua_pop(L, 1);
  }
  qsort(items, (size_t)count, sizeof(*items), compare);
  at = malloc(total);
  if (at == NULL) {
    luaL_error(L, "not enough memory");
    return;
  }
  free(policy->options);
  policy->options = at;
  policy->options_size = total;
  for (i = 0; i < count; i++) {
    size_t size = strlen(items[i]) + 1;

    size += strlen(items[i] + size) + 1;
    memcpy(at, items[i], size);
    at += size;
  }
  *at = '\0';
}

int relay_lua_each_option(relay_lua_t *lua,
                          int (*visit)(void *data, const char *key,
                                       const char *value),
                          void *data) {
  const char *at = lua->policy->options;
  int stop = 0;

  while (at != NULL && *at != '\0' && stop == 0) {
    const char *value = at + strlen(at) + 1;

    stop = visit(data, at, value);
    at = value + strlen(value) + 1;
  }
  return stop;
}
