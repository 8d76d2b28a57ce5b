/* SPDX-License-Identifier: MIT */
/*
 * Log records: the script's own, those about its failures, and the `log` hook,
 * which runs on the main state, not in a coroutine, and never within itself.
 */
#include <stdio.h>
#include <string.h>

#include "private.h"

#define REPEAT_MS 10000

/* Longer texts are cut: a line of the log takes a value whole or not at all. */
#define TEXT_MAX 2048
#define REASON_MAX 1024

/* ---- texts of a script ------------------------------------------------ */

const char *relay__lua_printable(lua_State *L, int index) {
  size_t size, i;
  const char *text = lua_tolstring(L, index, &size);
  luaL_Buffer buffer;

  if (strlen(text) == size)
    return text;
  index = lua_absindex(L, index);
  luaL_buffinit(L, &buffer);
  for (i = 0; i < size; i++)
    if (text[i] != '\0')
      luaL_addchar(&buffer, text[i]);
    else
      luaL_addlstring(&buffer, "\\0", 2);
  luaL_pushresult(&buffer);
  lua_replace(L, index);
  return lua_tostring(L, index);
}

/* ---- the hook --------------------------------------------------------- */

struct logging {
  struct policy *policy;
  const relay_log_record *record;
  bool drops;
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static void push_event(lua_State *L, const relay_log_record *record) {
  size_t i;

  lua_createtable(L, 0, 4);
  lua_pushstring(L, level_names[record->level]);
  lua_setfield(L, -2, "level");
  lua_pushstring(L, record->event);
  lua_setfield(L, -2, "msg");
  lua_createtable(L, 0, (int)record->field_count);
  for (i = 0; i < record->field_count; i++) {
    const relay_log_field *field = &record->fields[i];

    if (field->text != NULL)
      lua_pushstring(L, field->text);
    else
      lua_pushinteger(L, field->number);
    if (strcmp(field->key, "conn") == 0) {
      lua_pushvalue(L, -1);
      lua_setfield(L, -4, "conn");
    }
    lua_setfield(L, -2, field->key);
  }
  lua_setfield(L, -2, "fields");
}

static void say_line(struct relay_lua *lua, relay_log_level level,
                     const char *text, size_t length) {
  relay_log_record record = {sizeof(record), level, text, NULL, 0};

  if (lua->options.line != NULL)
    lua->options.line(lua->options.log_data, level, text, length);
  else if (lua->options.log != NULL)
    lua->options.log(lua->options.log_data, &record);
}

static int call_hook(lua_State *L) {
  struct logging *logging = lua_touserdata(L, 1);
  struct policy *policy = logging->policy;
  size_t length;
  const char *text;

  lua_rawgeti(L, LUA_REGISTRYINDEX, policy->hooks[HOOK_LOG]);
  push_event(L, logging->record);
  lua_call(L, 1, 1);
  if (lua_type(L, -1) == LUA_TSTRING) {
    text = lua_tolstring(L, -1, &length);
    say_line(policy->lua, logging->record->level, text, length);
    logging->drops = true;
  } else if (lua_type(L, -1) == LUA_TBOOLEAN && !lua_toboolean(L, -1)) {
    logging->drops = true;
  } else if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TBOOLEAN) {
    return luaL_error(L, "log returned a %s; it may return a string or false",
                      luaL_typename(L, -1));
  }
  return 0;
}

int relay__lua_log_hook(struct policy *policy, const relay_log_record *record) {
  struct logging logging = {policy, record, false};

  if (policy == NULL || policy->closing || policy->in_log ||
      policy->hooks[HOOK_LOG] == LUA_NOREF || relay__lua_is_starved(policy))
    return 0;
  policy->in_log = true;
  if (relay__lua_protect(policy, call_hook, &logging,
                         policy->lua->options.budget_ms) != LUA_OK)
    relay__lua_log_failure(policy, "log");
  policy->in_log = false;
  return logging.drops;
}

static void cut(char *text, size_t length) {
  memcpy(text + length, "...", sizeof("..."));
}

void relay__lua_log(struct relay_lua *lua, relay_log_level level,
                    const char *event, const relay_log_field *fields,
                    size_t count) {
  relay_log_record record = {sizeof(record), level, event, fields, count};
  char text[TEXT_MAX + sizeof("...")];

  if (relay__lua_log_hook(lua->policy, &record) != 0 ||
      lua->options.log == NULL)
    return;
  if (strnlen(event, TEXT_MAX + 1) > TEXT_MAX) {
    memcpy(text, event, TEXT_MAX);
    cut(text, TEXT_MAX);
    record.event = text;
  }
  lua->options.log(lua->options.log_data, &record);
}

/* ---- failures --------------------------------------------------------- */

static uint64_t hash_of(uint64_t hash, const char *text) {
  for (; *text != '\0'; text++)
    hash = (hash ^ (unsigned char)*text) * 1099511628211u;
  return hash | 1;
}

/* Whether to tell of it, and how often it was not told of since. */
static bool is_due(struct relay_lua *lua, const char *where, const char *text,
                   uint64_t *repeated) {
  uint64_t hash = hash_of(hash_of(1469598103934665603u, where), text);
  uint64_t now = uv_now(lua->loop);
  size_t i, oldest = 0;

  for (i = 0; i < ERRORS_KEPT; i++) {
    if (lua->errors[i].hash == hash)
      break;
    if (lua->errors[i].logged_ms < lua->errors[oldest].logged_ms)
      oldest = i;
  }
  if (i < ERRORS_KEPT && now - lua->errors[i].logged_ms < REPEAT_MS) {
    lua->errors[i].repeated++;
    return false;
  }
  if (i == ERRORS_KEPT) {
    i = oldest;
    lua->errors[i].repeated = 0;
  }
  *repeated = lua->errors[i].repeated;
  lua->errors[i].hash = hash;
  lua->errors[i].logged_ms = now;
  lua->errors[i].repeated = 0;
  return true;
}

void relay__lua_log_failure(struct policy *policy, const char *where) {
  char text[ERROR_MAX];
  char *trace;
  uint64_t repeated = 0;
  relay_log_field fields[4] = {{"hook", where, 0}, {"error", text, 0}};
  size_t count = 2;

  memcpy(text, policy->error, sizeof(text));
  trace = strstr(text, "\nstack traceback:\n");
  if (trace != NULL) {
    *trace = '\0';
    fields[count++] = (relay_log_field){
        "traceback", trace + strlen("\nstack traceback:\n"), 0};
  }
  if (strlen(text) > REASON_MAX)
    cut(text, REASON_MAX);
  if (!is_due(policy->lua, where, text, &repeated))
    return;
  if (repeated != 0)
    fields[count++] = (relay_log_field){"repeated", NULL, (int64_t)repeated};
  relay__lua_log(policy->lua, RELAY_LOG_ERROR, "policy hook failed", fields,
                 count);
}
