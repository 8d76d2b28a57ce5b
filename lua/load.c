/* SPDX-License-Identifier: MIT */
/*
 * Reads a script, runs it, and checks the table it returns. Its globals are
 * strict, those of the modules it requires are not: libraries are as they are.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

#define SCRIPT_MAX (16 << 20)

struct source {
  struct policy *policy;
  char *text;
  size_t size;
};

/* ---- reading ---------------------------------------------------------- */

static int read_all(FILE *file, char **text, size_t *size) {
  size_t room = 0, count;

  do {
    if (*size == room) {
      char *more;

      if (room >= SCRIPT_MAX)
        return EFBIG;
      more = realloc(*text, room + 65536 + 1);
      if (more == NULL)
        return ENOMEM;
      *text = more;
      room += 65536;
    }
    count = fread(*text + *size, 1, room - *size, file);
    *size += count;
  } while (count != 0);
  (*text)[*size] = '\0';
  return ferror(file) ? errno : 0;
}

int relay__lua_read_file(const char *path, char **text, size_t *size) {
  FILE *file = fopen(path, "rb");
  int err = errno;

  *text = NULL;
  *size = 0;
  if (file == NULL)
    return err;
  err = read_all(file, text, size);
  fclose(file);
  return err;
}

static int read_source(struct source *source) {
  const char *path = source->policy->lua->script;
  int err = relay__lua_read_file(path, &source->text, &source->size);

  if (err != 0)
    snprintf(source->policy->error, ERROR_MAX, "%s: %s", path, strerror(err));
  return err;
}

/* ---- strict globals --------------------------------------------------- */

static int read_global(lua_State *L) {
  lua_settop(L, 2);
  lua_pushglobaltable(L);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, -2) != LUA_TNIL)
    return 1;
  if (strcmp(luaL_tolstring(L, 2, NULL), "relay") == 0)
    return luaL_error(L, "undeclared variable 'relay' (local relay = require "
                         "\"relay\")");
  return luaL_error(L, "undeclared variable '%s'", lua_tostring(L, -1));
}

static int write_global(lua_State *L) {
  return luaL_error(L, "assignment to undeclared variable '%s' (make it local)",
                    luaL_tolstring(L, 2, NULL));
}

static void push_environment(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, read_global);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, write_global);
  lua_setfield(L, -2, "__newindex");
  lua_setmetatable(L, -2);
}

/* ---- the table -------------------------------------------------------- */

static bool is_word(char c) {
  return isalnum((unsigned char)c) || c == '_';
}

/* The line of the last "key =" in the source; 0: none. */
static int line_of(const struct source *source, const char *key) {
  size_t length = strlen(key);
  const char *at = source->text, *next;
  int line = 1, found = 0;

  if (at == NULL) /* the table is the host's */
    return 0;
  for (; length != 0 && *at != '\0'; at++) {
    if (*at == '\n')
      line++;
    if (strncmp(at, key, length) != 0 || is_word(at[length]) ||
        (at != source->text && is_word(at[-1])))
      continue;
    next = at + length;
    next += strspn(next, " \t\"']");
    if (*next == '=' && next[1] != '=')
      found = line;
  }
  return found;
}

/* Raises an error about a key of the script's table. */
static int blame(lua_State *L, const struct source *source, const char *key,
                 const char *what) {
  int line = line_of(source, key);

  if (line == 0)
    return luaL_error(L, "%s: %s", source->policy->lua->script, what);
  return luaL_error(L, "%s:%d: %s", source->policy->lua->script, line, what);
}

static const char *describe_unknown(lua_State *L, const char *key) {
  const char *near = relay__lua_nearest(key, relay__lua_hook_names);

  if (near == NULL) {
    static const char *const others[] = {"options", NULL};

    near = relay__lua_nearest(key, others);
  }
  if (near != NULL)
    return lua_pushfstring(L, "unknown hook '%s' (did you mean '%s'?)", key,
                           near);
  return lua_pushfstring(L, "unknown hook '%s'", key);
}

/* The table at 2, its key at 3 and value at 4. */
static void take_entry(lua_State *L, struct source *source) {
  struct policy *policy = source->policy;
  const char *key;
  int i;

  if (lua_type(L, 3) != LUA_TSTRING)
    luaL_error(L,
               "%s: it must return a table of hooks by name; this one has "
               "the key %s",
               policy->lua->script, luaL_tolstring(L, 3, NULL));
  key = lua_tostring(L, 3);
  if (strcmp(key, "options") == 0) {
    if (lua_type(L, 4) != LUA_TTABLE)
      blame(L, source, key, "'options' must be a table");
    lua_settop(L, 4);
    relay__lua_options_read(L, policy);
    return;
  }
  for (i = 0; i < HOOK_COUNT; i++)
    if (strcmp(key, relay__lua_hook_names[i]) == 0)
      break;
  if (i == HOOK_COUNT) {
    blame(L, source, key, describe_unknown(L, key));
    return;
  }
  if (lua_type(L, 4) != LUA_TFUNCTION)
    blame(L, source, key,
          lua_pushfstring(L, "'%s' must be a function, not a %s", key,
                          luaL_typename(L, 4)));
  lua_settop(L, 4);
  if (i == HOOK_VISITOR) {
    lua_Debug about;

    lua_pushvalue(L, 4);
    lua_getinfo(L, ">u", &about);
    policy->wants_agents = about.isvararg || about.nparams > 1;
  }
  policy->hooks[i] = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* The table is the last value on the stack, at 2. */
static int take_table(lua_State *L, struct source *source) {
  if (lua_type(L, 2) != LUA_TTABLE)
    return luaL_error(L, "%s: it must return a table of hooks, not a %s",
                      source->policy->lua->script, luaL_typename(L, 2));
  lua_pushnil(L);
  while (lua_next(L, 2) != 0) {
    take_entry(L, source);
    lua_settop(L, 3);
  }
  return 0;
}

static int take_given(lua_State *L) {
  struct source *source = lua_touserdata(L, 1);

  lua_rawgeti(L, LUA_REGISTRYINDEX, source->policy->lua->hooks_ref);
  return take_table(L, source);
}

static int run(lua_State *L) {
  struct source *source = lua_touserdata(L, 1);
  const char *text = source->text;
  size_t size = source->size;

  if (size != 0 && *text == '#') { /* "#!", as the interpreter allows */
    text += strcspn(text, "\n");
    size -= (size_t)(text - source->text);
  }
  lua_pushfstring(L, "@%s", source->policy->lua->script);
  if (luaL_loadbufferx(L, text, size, lua_tostring(L, -1), "t") != LUA_OK)
    return lua_error(L);
  push_environment(L);
  lua_setupvalue(L, -2, 1);
  lua_call(L, 0, 1);
  lua_replace(L, 2);
  lua_settop(L, 2);
  return take_table(L, source);
}

void relay__lua_name_script(struct policy *policy, const char *where) {
  const char *script = policy->lua->script;
  char text[ERROR_MAX];

  relay__lua_first_line(policy->error);
  if (strstr(policy->error, script) != NULL)
    return;
  memcpy(text, policy->error, sizeof(text));
  if (snprintf(policy->error, ERROR_MAX, "%s: %s%s", script, where, text) < 0)
    memcpy(policy->error, text, sizeof(text));
}

int relay__lua_load(struct policy *policy) {
  struct source source = {policy, NULL, 0};
  bool given = policy->lua->hooks_ref != LUA_NOREF;
  int err = given ? 0 : read_source(&source);

  if (err == 0 && relay__lua_protect(policy, given ? take_given : run, &source,
                                     policy->lua->options.load_ms) != LUA_OK) {
    relay__lua_name_script(policy, "");
    err = RELAY_EHOOK;
  }
  free(source.text);
  return err != 0 ? RELAY_EHOOK : 0;
}
