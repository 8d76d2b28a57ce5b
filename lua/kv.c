/* SPDX-License-Identifier: MIT */
/*
 * relay.kv: strings and numbers by name, with a time to live if wanted. They
 * are kept outside of any script, so a reload does not touch them; all of them
 * together are held under the same cap as a script's memory.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(entry) ((entry)->failed = true)
#include <uthash.h>

#include "private.h"

#define SWEEP_MS 1000

enum kv_type { KV_INTEGER, KV_NUMBER, KV_STRING };

struct kv_entry {
  UT_hash_handle hh;
  uint64_t expires_ms; /* 0: never */
  enum kv_type type;
  bool failed;
  lua_Integer integer;
  lua_Number number;
  size_t length; /* of the string */
  size_t key_length;
  char bytes[]; /* the key, then the string */
};

static size_t size_of(const struct kv_entry *entry) {
  return sizeof(*entry) + entry->key_length + entry->length;
}

static void drop(struct relay_lua *lua, struct kv_entry *entry) {
  lua->kv_bytes -= size_of(entry);
  HASH_DEL(lua->kv, entry);
  free(entry);
}

static uint64_t now_ms(const struct relay_lua *lua) {
  return uv_now(lua->loop) + relay__lua_lag_ms(lua);
}

static struct kv_entry *find(struct relay_lua *lua, const char *key,
                             size_t length) {
  struct kv_entry *entry;

  HASH_FIND(hh, lua->kv, key, length, entry);
  if (entry == NULL || entry->expires_ms == 0 ||
      entry->expires_ms > now_ms(lua))
    return entry;
  drop(lua, entry);
  return NULL;
}

static void on_sweep(uv_timer_t *timer) {
  struct relay_lua *lua = timer->data;
  struct kv_entry *entry, *next;
  uint64_t now = now_ms(lua);
  bool more = false;

  HASH_ITER(hh, lua->kv, entry, next) {
    if (entry->expires_ms != 0 && entry->expires_ms <= now)
      drop(lua, entry);
    else
      more = more || entry->expires_ms != 0;
  }
  if (!more)
    uv_timer_stop(timer);
}

/* Replaces what is there. False: no room. */
static bool put(struct relay_lua *lua, struct kv_entry *entry) {
  struct kv_entry *old = find(lua, entry->bytes, entry->key_length);
  size_t size = size_of(entry), old_size = old != NULL ? size_of(old) : 0;

  if (lua->kv_bytes - old_size + size > lua->options.memory_bytes)
    return false;
  if (old != NULL)
    drop(lua, old);
  HASH_ADD_KEYPTR(hh, lua->kv, entry->bytes, entry->key_length, entry);
  if (entry->failed)
    return false;
  lua->kv_bytes += size;
  if (entry->expires_ms != 0 && !uv_is_active((uv_handle_t *)&lua->sweep)) {
    uv_timer_start(&lua->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    uv_unref((uv_handle_t *)&lua->sweep);
  }
  return true;
}

static struct kv_entry *make(const char *key, size_t key_length,
                             const char *text, size_t length) {
  struct kv_entry *entry = calloc(1, sizeof(*entry) + key_length + length);

  if (entry == NULL)
    return NULL;
  entry->key_length = key_length;
  entry->length = length;
  memcpy(entry->bytes, key, key_length);
  if (length != 0)
    memcpy(entry->bytes + key_length, text, length);
  return entry;
}

static uint64_t check_expiry(lua_State *L, int index) {
  if (lua_isnoneornil(L, index))
    return 0;
  return now_ms(relay__lua_policy_of(L)->lua) + relay__lua_check_ms(L, index);
}

static int push(lua_State *L, const struct kv_entry *entry) {
  if (entry == NULL)
    lua_pushnil(L);
  else if (entry->type == KV_STRING)
    lua_pushlstring(L, entry->bytes + entry->key_length, entry->length);
  else if (entry->type == KV_INTEGER)
    lua_pushinteger(L, entry->integer);
  else
    lua_pushnumber(L, entry->number);
  return 1;
}

/* ---- what a script calls ---------------------------------------------- */

static int kv_get(lua_State *L) {
  size_t length;
  const char *key = luaL_checklstring(L, 1, &length);

  return push(L, find(relay__lua_policy_of(L)->lua, key, length));
}

static int kv_delete(lua_State *L) {
  struct relay_lua *lua = relay__lua_policy_of(L)->lua;
  size_t length;
  const char *key = luaL_checklstring(L, 1, &length);
  struct kv_entry *entry = find(lua, key, length);

  if (entry != NULL)
    drop(lua, entry);
  lua_pushboolean(L, entry != NULL);
  return 1;
}

static int keep(lua_State *L, struct kv_entry *entry, uint64_t expires_ms) {
  if (entry == NULL)
    return luaL_error(L, "not enough memory");
  entry->expires_ms = expires_ms;
  if (!put(relay__lua_policy_of(L)->lua, entry)) {
    free(entry);
    return luaL_error(L, "relay.kv is full");
  }
  return 0;
}

static int kv_set(lua_State *L) {
  size_t key_length, length = 0;
  const char *key = luaL_checklstring(L, 1, &key_length), *text = NULL;
  uint64_t expires_ms = check_expiry(L, 3);
  struct kv_entry *entry;

  if (lua_isnil(L, 2))
    return kv_delete(L);
  if (lua_type(L, 2) == LUA_TSTRING)
    text = lua_tolstring(L, 2, &length);
  else if (lua_type(L, 2) != LUA_TNUMBER)
    return luaL_typeerror(L, 2, "string or number");
  entry = make(key, key_length, text, length);
  if (entry != NULL) {
    entry->type = text != NULL          ? KV_STRING
                  : lua_isinteger(L, 2) ? KV_INTEGER
                                        : KV_NUMBER;
    entry->integer = text == NULL ? lua_tointeger(L, 2) : 0;
    entry->number = text == NULL ? lua_tonumber(L, 2) : 0;
  }
  keep(L, entry, expires_ms);
  lua_pushboolean(L, 1);
  return 1;
}

/* (key[, by[, ttl]]): the time to live counts from the first. */
static int kv_incr(lua_State *L) {
  size_t length;
  const char *key = luaL_checklstring(L, 1, &length);
  uint64_t expires_ms = check_expiry(L, 3);
  struct kv_entry *entry = find(relay__lua_policy_of(L)->lua, key, length);

  if (!lua_isnoneornil(L, 2))
    luaL_checknumber(L, 2);
  if (entry == NULL) {
    entry = make(key, length, NULL, 0);
    keep(L, entry, expires_ms);
  }
  if (entry->type == KV_STRING)
    return luaL_error(L, "relay.kv: '%s' is a string", key);
  if (entry->type == KV_INTEGER &&
      (lua_isnoneornil(L, 2) || lua_isinteger(L, 2))) {
    entry->integer = (lua_Integer)((lua_Unsigned)entry->integer +
                                   (lua_Unsigned)luaL_optinteger(L, 2, 1));
  } else {
    if (entry->type == KV_INTEGER)
      entry->number = (lua_Number)entry->integer;
    entry->type = KV_NUMBER;
    entry->number += luaL_optnumber(L, 2, 1);
  }
  return push(L, entry);
}

void relay__lua_open_kv(lua_State *L) {
  static const luaL_Reg functions[] = {{"get", kv_get},
                                       {"set", kv_set},
                                       {"incr", kv_incr},
                                       {"delete", kv_delete},
                                       {NULL, NULL}};

  luaL_newlib(L, functions);
  lua_setfield(L, -2, "kv");
}

void relay__lua_kv_close(struct relay_lua *lua) {
  struct kv_entry *entry, *next;

  HASH_ITER(hh, lua->kv, entry, next)
  drop(lua, entry);
}
