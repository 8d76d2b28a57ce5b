/* SPDX-License-Identifier: MIT */
/*
 * The relay that a policy is given here: each call by id is handed on to the
 * test, which keeps conns and agents as plain tables.
 */
#include <string.h>

#include "engine.h"

lua_State *engine_test;
int engine_core;

const char *const engine_levels[] = {"debug", "info", "warn", "error", NULL};

static char failure[512];

/* ---- calling the test ------------------------------------------------- */

void engine_begin(const char *name) {
  luaL_checkstack(engine_test, 10, NULL);
  lua_rawgeti(engine_test, LUA_REGISTRYINDEX, engine_core);
  lua_getfield(engine_test, -1, name);
  lua_remove(engine_test, -2);
}

void engine_call(int count, int results) {
  int i;

  if (lua_pcall(engine_test, count, results, 0) == LUA_OK)
    return;
  if (failure[0] == '\0')
    strncpy(failure, luaL_tolstring(engine_test, -1, NULL),
            sizeof(failure) - 1);
  lua_pop(engine_test, 2);
  for (i = 0; i < results; i++)
    lua_pushnil(engine_test);
}

void engine_check(lua_State *L) {
  if (failure[0] == '\0')
    return;
  lua_pushstring(L, failure);
  memset(failure, 0, sizeof(failure));
  lua_error(L);
}

/* Takes the result on top: an error's number, or nil. */
static int take_error(void) {
  int err = (int)lua_tointeger(engine_test, -1);

  lua_pop(engine_test, 1);
  return err;
}

/* ---- reading what the test has ---------------------------------------- */

static const char *keep(lua_State *L, int index, const char *key,
                        struct texts *texts) {
  char *at = texts->bytes + texts->used;
  size_t room = sizeof(texts->bytes) - texts->used, length;
  const char *text;

  lua_getfield(L, index, key);
  text = lua_tolstring(L, -1, &length);
  if (text == NULL || length >= room) {
    lua_pop(L, 1);
    return NULL;
  }
  memcpy(at, text, length + 1);
  texts->used += length + 1;
  lua_pop(L, 1);
  return at;
}

lua_Number engine_number(lua_State *L, int index, const char *key) {
  lua_Number value;

  lua_getfield(L, index, key);
  value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return value;
}

static uint64_t agent_of(lua_State *L, int index) {
  uint64_t id = 0;

  if (lua_getfield(L, index, "agent") == LUA_TTABLE)
    id = (uint64_t)engine_number(L, lua_gettop(L), "id");
  lua_pop(L, 1);
  return id;
}

void engine_read_conn(lua_State *L, int index, relay_conn_info *info,
                      struct texts *texts) {
  memset(info, 0, sizeof(*info));
  info->size = sizeof(*info);
  info->id = (uint64_t)engine_number(L, index, "id");
  info->agent = agent_of(L, index);
  info->addr = keep(L, index, "addr", texts);
  info->port = (unsigned)engine_number(L, index, "port");
  info->listen_port = (unsigned)engine_number(L, index, "listen_port");
  info->bytes_in = (uint64_t)engine_number(L, index, "bytes_in");
  info->bytes_out = (uint64_t)engine_number(L, index, "bytes_out");
  info->duration_ms = (uint64_t)(engine_number(L, index, "duration") * 1000);
  info->why = keep(L, index, "closed", texts);
  if (info->why == NULL)
    info->why = keep(L, index, "reason", texts);
}

void engine_read_agent(lua_State *L, int index, relay_agent_info *info,
                       struct texts *texts) {
  memset(info, 0, sizeof(*info));
  info->size = sizeof(*info);
  info->id = (uint64_t)engine_number(L, index, "id");
  info->name = keep(L, index, "name", texts);
  info->addr = keep(L, index, "addr", texts);
  info->port = (unsigned)engine_number(L, index, "port");
  info->conns = (unsigned)engine_number(L, index, "conns");
  info->since_ms = (uint64_t)(engine_number(L, index, "since") * 1000);
}

/* ---- telling it ------------------------------------------------------- */

static void set_text(lua_State *L, const char *key, const char *text) {
  if (text == NULL)
    return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, key);
}

static void set_number(lua_State *L, const char *key, uint64_t value) {
  if (value == 0)
    return;
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, key);
}

static void set_true(lua_State *L, const char *key) {
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, key);
}

void engine_push_verdict(lua_State *L, const relay_verdict *verdict) {
  /* Without a tokens file, no hook lets in. */
  static const char *const answers[] = {"allow", "deny",    NULL,
                                        NULL,    "pending", "allow"};

  lua_newtable(L);
  if (answers[verdict->answer] != NULL)
    set_true(L, answers[verdict->answer]);
  set_text(L, "reason", verdict->reason);
  set_text(L, "name", verdict->name);
  set_text(L, "host", verdict->host);
  if (verdict->answer == RELAY_PICK) {
    set_number(L, "agent", verdict->agent);
    set_number(L, "port", verdict->port);
  }
  if (verdict->share)
    set_true(L, "share");
  if (verdict->answer == RELAY_NEED)
    set_number(L, "need", verdict->need);
}

void engine_push_record(lua_State *L, const relay_log_record *record) {
  size_t i;

  lua_newtable(L);
  set_text(L, "level", engine_levels[record->level]);
  set_text(L, "msg", record->event);
  lua_newtable(L);
  for (i = 0; i < record->field_count; i++) {
    const relay_log_field *field = &record->fields[i];

    if (field->text != NULL)
      lua_pushstring(L, field->text);
    else
      lua_pushinteger(L, field->number);
    lua_setfield(L, -2, field->key);
  }
  lua_setfield(L, -2, "fields");
}

/* ---- the relay's calls ------------------------------------------------ */

int relay_settle(relay_t *r, uint64_t call, const relay_verdict *verdict) {
  (void)r;
  engine_begin("settle");
  lua_pushinteger(engine_test, (lua_Integer)call);
  engine_push_verdict(engine_test, verdict);
  engine_call(2, 0);
  return 0;
}

/* Pushes the test's table of an id; false: it is not there. */
static bool get(const char *kind, uint64_t id) {
  engine_begin("get");
  lua_pushstring(engine_test, kind);
  lua_pushinteger(engine_test, (lua_Integer)id);
  engine_call(2, 1);
  if (lua_istable(engine_test, -1))
    return true;
  lua_pop(engine_test, 1);
  return false;
}

/* Good until the next one is read: so the relay lends it. */
static struct texts lent;

int relay_get_conn(relay_t *r, uint64_t conn, relay_conn_info *info) {
  (void)r;
  if (!get("conn", conn))
    return UV_ENOENT;
  lent.used = 0;
  engine_read_conn(engine_test, lua_gettop(engine_test), info, &lent);
  lua_pop(engine_test, 1);
  return 0;
}

int relay_get_agent(relay_t *r, uint64_t agent, relay_agent_info *info) {
  (void)r;
  if (!get("agent", agent))
    return UV_ENOENT;
  lent.used = 0;
  engine_read_agent(engine_test, lua_gettop(engine_test), info, &lent);
  lua_pop(engine_test, 1);
  return 0;
}

static int close_one(const char *kind, uint64_t id, const char *reason) {
  if (!get(kind, id))
    return UV_ENOENT;
  engine_begin("close");
  lua_insert(engine_test, -2);
  lua_pushstring(engine_test, reason);
  engine_call(2, 0);
  return 0;
}

int relay_close_conn(relay_t *r, uint64_t conn, const char *reason) {
  (void)r;
  return close_one("conn", conn, reason);
}

int relay_close_agent(relay_t *r, uint64_t agent, const char *reason) {
  (void)r;
  return close_one("agent", agent, reason);
}

static int limit(const char *kind, uint64_t id, const relay_limits *limits) {
  lua_State *L = engine_test;

  if (!get(kind, id))
    return UV_ENOENT;
  engine_begin("limit");
  lua_insert(L, -2);
  lua_newtable(L);
  if (limits->rate_in >= 0) {
    lua_pushinteger(L, limits->rate_in);
    lua_setfield(L, -2, "rate_in");
  }
  if (limits->rate_out >= 0) {
    lua_pushinteger(L, limits->rate_out);
    lua_setfield(L, -2, "rate_out");
  }
  if (limits->idle_ms >= 0) {
    lua_pushnumber(L, (lua_Number)limits->idle_ms / 1000);
    lua_setfield(L, -2, "idle");
  }
  engine_call(2, 0);
  return 0;
}

int relay_limit_conn(relay_t *r, uint64_t conn, const relay_limits *limits) {
  (void)r;
  return limit("conn", conn, limits);
}

int relay_limit_agent(relay_t *r, uint64_t agent, const relay_limits *limits) {
  (void)r;
  return limit("agent", agent, limits);
}

int relay_tag_conn(relay_t *r, uint64_t conn, const char *key,
                   const char *value) {
  (void)r;
  if (!get("conn", conn))
    return UV_ENOENT;
  engine_begin("tag");
  lua_insert(engine_test, -2);
  lua_pushstring(engine_test, key);
  lua_pushstring(engine_test, value);
  engine_call(3, 1);
  return take_error();
}

int relay_peek_conn(relay_t *r, uint64_t conn, uint64_t ms) {
  (void)r;
  if (!get("conn", conn))
    return UV_ENOENT;
  engine_begin("peek");
  lua_insert(engine_test, -2);
  lua_pushnumber(engine_test, (lua_Number)ms / 1000);
  engine_call(2, 1);
  return take_error();
}

int relay_listen(relay_t *r, const char *host, unsigned port) {
  (void)r;
  engine_begin("listen");
  lua_pushinteger(engine_test, port);
  lua_pushstring(engine_test, host);
  engine_call(2, 1);
  return take_error();
}

int relay_unlisten(relay_t *r, unsigned port) {
  (void)r;
  engine_begin("unlisten");
  lua_pushinteger(engine_test, port);
  engine_call(1, 0);
  return 0;
}

/* Leaves the test's list of a kind on top; returns its length. */
static lua_Unsigned list(const char *kind) {
  engine_begin("list");
  lua_pushstring(engine_test, kind);
  engine_call(1, 1);
  return lua_istable(engine_test, -1) ? lua_rawlen(engine_test, -1) : 0;
}

#define EACH(kind)                                                             \
  int relay_each_##kind(relay_t *r,                                            \
                        int (*visit)(void *, const relay_##kind##_info *),     \
                        void *data) {                                          \
    lua_Unsigned count = list(#kind), i;                                       \
    relay_##kind##_info info;                                                  \
    int stop = 0;                                                              \
                                                                               \
    (void)r;                                                                   \
    for (i = 1; i <= count && stop == 0; i++) {                                \
      struct texts texts = {.used = 0};                                        \
                                                                               \
      lua_rawgeti(engine_test, -1, (lua_Integer)i);                            \
      engine_read_##kind(engine_test, lua_gettop(engine_test), &info, &texts); \
      lua_pop(engine_test, 1);                                                 \
      stop = visit(data, &info);                                               \
    }                                                                          \
    lua_pop(engine_test, 1);                                                   \
    return stop;                                                               \
  }

EACH(conn)
EACH(agent)

/* No agent of this core's has a key. */
int relay_verify(relay_t *r, uint64_t call, const void *key, size_t key_size) {
  (void)r, (void)call, (void)key, (void)key_size;
  return UV_ENOENT;
}

void relay_get_stats(const relay_t *r, relay_stats *stats) {
  (void)r;
  engine_begin("stats");
  engine_call(0, 1);
  memset((char *)stats + sizeof(stats->size), 0,
         sizeof(*stats) - sizeof(stats->size));
  if (lua_istable(engine_test, -1)) {
    stats->agents = (uint64_t)engine_number(engine_test, -1, "agents");
    stats->visitors = (uint64_t)engine_number(engine_test, -1, "visitors");
    stats->pairs = (uint64_t)engine_number(engine_test, -1, "pairs");
    stats->bytes_in = (uint64_t)engine_number(engine_test, -1, "bytes_in");
  }
  lua_pop(engine_test, 1);
}
