/* SPDX-License-Identifier: MIT */
/*
 * Boxes: what a script holds of conns and agents. A box is an id; its fields
 * are asked of the relay when they are read, so it cannot dangle. There is one
 * box for each id and script, kept in a table until the end is told; the last
 * hook reads from a snapshot.
 */
#include <string.h>

#include "box.h"

#define CONN_FIELDS(X)                                                         \
  X(id)                                                                        \
  X(addr)                                                                      \
  X(port)                                                                      \
  X(listen_port)                                                               \
  X(agent)                                                                     \
  X(bytes_in) X(bytes_out) X(duration) X(reason) X(eof) X(alive) X(data)
#define AGENT_FIELDS(X)                                                        \
  X(id) X(name) X(addr) X(ports) X(conns) X(since) X(alive) X(data)

#define FIELD_ENUM(name) FIELD_##name,
#define FIELD_NAME(name) #name,
enum conn_field { CONN_FIELDS(FIELD_ENUM) CONN_FIELD_COUNT };
static const char *const conn_fields[] = {CONN_FIELDS(FIELD_NAME) "close",
                                          "limit", "tag", "peek", NULL};
#undef FIELD_ENUM
#define FIELD_ENUM(name) AGENT_FIELD_##name,
enum agent_field { AGENT_FIELDS(FIELD_ENUM) AGENT_FIELD_COUNT };
static const char *const agent_fields[] = {AGENT_FIELDS(FIELD_NAME) "close",
                                           "limit", NULL};

/* ---- making and ending ------------------------------------------------ */

static struct box *push_box(lua_State *L, uint64_t id, bool is_conn) {
  struct policy *policy = relay__lua_policy_of(L);
  struct box *box;

  lua_rawgeti(L, LUA_REGISTRYINDEX, policy->boxes);
  if (lua_rawgeti(L, -1, (lua_Integer)id) == LUA_TUSERDATA) {
    lua_remove(L, -2);
    return lua_touserdata(L, -1);
  }
  lua_pop(L, 1);
  box = lua_newuserdatauv(L, sizeof(*box), 2);
  memset(box, 0, sizeof(*box));
  box->id = id;
  box->is_conn = is_conn;
  lua_rawgeti(L, LUA_REGISTRYINDEX,
              is_conn ? policy->classes.conn.ref : policy->classes.agent.ref);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawseti(L, -3, (lua_Integer)id);
  lua_remove(L, -2);
  return box;
}

void relay__lua_push_conn(lua_State *L, uint64_t id) {
  push_box(L, id, true);
}

void relay__lua_push_agent(lua_State *L, uint64_t id) {
  push_box(L, id, false);
}

static const char *copy_text(char *to, size_t size, const char *from) {
  size_t length = strlen(from);

  if (length >= size)
    length = size - 1;
  memcpy(to, from, length);
  to[length] = '\0';
  return to;
}

void relay__lua_push_final(lua_State *L, const struct event *event) {
  bool is_conn = event->conn.id != 0;
  struct box *box = push_box(L, relay__lua_event_subject(event), is_conn);
  struct final *final = lua_newuserdatauv(L, sizeof(*final), 0);

  final->conn = event->conn;
  final->agent = event->agent;
  if (is_conn) {
    final->conn.addr =
        copy_text(final->addr, sizeof(final->addr), event->conn.addr);
    if (event->conn.why != NULL)
      final->conn.why =
          copy_text(final->why, sizeof(final->why), event->conn.why);
  } else {
    final->agent.addr =
        copy_text(final->addr, sizeof(final->addr), event->agent.addr);
    final->agent.name =
        copy_text(final->name, sizeof(final->name), event->agent.name);
  }
  lua_setiuservalue(L, -2, 2);
  box->final = final;
}

void relay__lua_set_eof(lua_State *L, int index, bool eof) {
  struct box *box = lua_touserdata(L, index);

  box->eof = eof;
}

void relay__lua_box_forget(struct policy *policy, uint64_t id) {
  lua_State *L = policy->L;
  int top = lua_gettop(L);

  lua_rawgeti(L, LUA_REGISTRYINDEX, policy->boxes);
  if (lua_rawgeti(L, -1, (lua_Integer)id) == LUA_TUSERDATA) {
    struct box *box = lua_touserdata(L, -1);

    box->dead = true;
    box->final = NULL;
    lua_pushnil(L); /* over a key that is there: this takes no memory */
    lua_rawseti(L, top + 1, (lua_Integer)id);
  }
  lua_settop(L, top);
}

void relay__lua_forget(struct relay_lua *lua, uint64_t id,
                       const struct policy *except) {
  struct policy *policy;

  if (lua->policy != NULL && lua->policy != except)
    relay__lua_box_forget(lua->policy, id);
  if (lua->coming != NULL && lua->coming != except)
    relay__lua_box_forget(lua->coming, id);
  for (policy = lua->retired; policy != NULL; policy = policy->next)
    if (policy != except)
      relay__lua_box_forget(policy, id);
}

void relay__lua_forget_denied(struct relay_lua *lua, enum hook hook,
                              uint64_t subject) {
  if (hook == HOOK_VISITOR || hook == HOOK_AUTH)
    relay__lua_forget(lua, subject, NULL);
}

bool relay__lua_is_agent(lua_State *L, int index, uint64_t *id) {
  struct box *box = luaL_testudata(L, index, AGENT);

  if (box == NULL)
    return false;
  *id = box->dead || box->final != NULL ? 0 : box->id;
  return true;
}

/* ---- what all have ---------------------------------------------------- */

static int raise_closed(lua_State *L, const struct box *box) {
  return luaL_error(L, "%s is closed", box->is_conn ? "connection" : "agent");
}

relay_t *relay__lua_box_relay(lua_State *L, const struct box *box) {
  relay_t *relay = relay__lua_policy_of(L)->lua->relay;

  if (box->dead || box->final != NULL || relay == NULL)
    raise_closed(L, box);
  return relay;
}

static bool is_alive(lua_State *L, const struct box *box) {
  relay_t *relay = relay__lua_policy_of(L)->lua->relay;
  relay_conn_info conn = {.size = sizeof(conn)};
  relay_agent_info agent = {.size = sizeof(agent)};

  if (box->dead || box->final != NULL || relay == NULL)
    return false;
  return box->is_conn ? relay_get_conn(relay, box->id, &conn) == 0
                      : relay_get_agent(relay, box->id, &agent) == 0;
}

/* Without a look-up by name, which each field would pay for. */
static struct box *test_box(lua_State *L, int index) {
  const struct policy *policy = relay__lua_policy_of(L);
  struct box *box = lua_touserdata(L, index);
  const void *meta;

  if (box == NULL || !lua_getmetatable(L, index))
    return NULL;
  meta = lua_topointer(L, -1);
  lua_pop(L, 1);
  return meta == policy->classes.conn.meta || meta == policy->classes.agent.meta
             ? box
             : NULL;
}

struct box *relay__lua_check_box(lua_State *L, int index) {
  struct box *box = test_box(L, index);

  if (box == NULL)
    box = luaL_testudata(L, index, AGENT);
  if (box == NULL)
    luaL_typeerror(L, index, "conn or agent");
  return box;
}

static int box_tostring(lua_State *L) {
  const struct box *box = relay__lua_check_box(L, 1);

  lua_pushfstring(L, "%s %I", box->is_conn ? "conn" : "agent",
                  (LUAI_UACINT)box->id);
  return 1;
}

static int box_newindex(lua_State *L) {
  const struct box *box = relay__lua_check_box(L, 1);
  const char *key = luaL_tolstring(L, 2, NULL);

  if (strcmp(key, "data") != 0)
    return luaL_error(L, "%s.%s cannot be assigned; only data can",
                      box->is_conn ? "conn" : "agent", key);
  lua_settop(L, 3);
  lua_setiuservalue(L, 1, 1);
  return 0;
}

/* ---- fields ----------------------------------------------------------- */

static void push_reason(lua_State *L, const struct box *box,
                        const relay_conn_info *info) {
  if (box->final == NULL)
    lua_pushnil(L);
  else if (info->why != NULL)
    lua_pushstring(L, info->why);
  else
    lua_pushstring(L, info->reason == 0 ? "ended"
                                        : relay_error_name(info->reason));
}

/* One that is gone has no box any more, and gets none. */
static void push_conn_agent(lua_State *L, uint64_t id) {
  relay_t *relay = relay__lua_policy_of(L)->lua->relay;
  relay_agent_info info = {.size = sizeof(info)};

  if (id != 0 && relay != NULL && relay_get_agent(relay, id, &info) == 0)
    relay__lua_push_agent(L, id);
  else
    lua_pushnil(L);
}

static int push_conn_field(lua_State *L, const struct box *box, int field) {
  relay_conn_info info = {.size = sizeof(info)};

  if (box->final != NULL)
    info = box->final->conn;
  else if (box->dead || relay__lua_policy_of(L)->lua->relay == NULL ||
           relay_get_conn(relay__lua_policy_of(L)->lua->relay, box->id,
                          &info) != 0)
    return raise_closed(L, box);
  switch (field) {
  case FIELD_id:
    lua_pushinteger(L, (lua_Integer)info.id);
    break;
  case FIELD_addr:
    lua_pushstring(L, info.addr);
    break;
  case FIELD_port:
    lua_pushinteger(L, info.port);
    break;
  case FIELD_listen_port:
    lua_pushinteger(L, info.listen_port);
    break;
  case FIELD_agent:
    push_conn_agent(L, info.agent);
    break;
  case FIELD_bytes_in:
    lua_pushinteger(L, (lua_Integer)info.bytes_in);
    break;
  case FIELD_bytes_out:
    lua_pushinteger(L, (lua_Integer)info.bytes_out);
    break;
  case FIELD_duration:
    lua_pushnumber(L, (lua_Number)info.duration_ms / 1000);
    break;
  case FIELD_eof:
    lua_pushboolean(L, box->eof);
    break;
  default:
    push_reason(L, box, &info);
  }
  return 1;
}

static int push_agent_field(lua_State *L, const struct box *box, int field) {
  relay_agent_info info = {.size = sizeof(info)};

  if (box->final != NULL)
    info = box->final->agent;
  else if (box->dead || relay__lua_policy_of(L)->lua->relay == NULL ||
           relay_get_agent(relay__lua_policy_of(L)->lua->relay, box->id,
                           &info) != 0)
    return raise_closed(L, box);
  switch (field) {
  case AGENT_FIELD_id:
    lua_pushinteger(L, (lua_Integer)info.id);
    break;
  case AGENT_FIELD_name:
    lua_pushstring(L, info.name);
    break;
  case AGENT_FIELD_addr:
    lua_pushstring(L, info.addr);
    break;
  case AGENT_FIELD_ports:
    lua_createtable(L, 1, 0);
    if (info.port != 0) {
      lua_pushinteger(L, info.port);
      lua_rawseti(L, -2, 1);
    }
    break;
  case AGENT_FIELD_conns:
    lua_pushinteger(L, info.conns);
    break;
  default:
    lua_pushnumber(L, (lua_Number)info.since_ms / 1000);
  }
  return 1;
}

/* Upvalue 1: names to numbers of fields or to methods. */
static int box_index(lua_State *L) {
  const struct box *box = relay__lua_check_box(L, 1);
  int field;

  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  if (lua_isfunction(L, -1))
    return 1;
  if (lua_isnil(L, -1))
    return relay__lua_unknown(
        L, box->is_conn ? "conn has no field" : "agent has no field",
        luaL_tolstring(L, 2, NULL), box->is_conn ? conn_fields : agent_fields);
  field = (int)lua_tointeger(L, -1);
  if (field == (box->is_conn ? FIELD_alive : AGENT_FIELD_alive)) {
    lua_pushboolean(L, is_alive(L, box));
    return 1;
  }
  if (field == (box->is_conn ? FIELD_data : AGENT_FIELD_data)) {
    lua_getiuservalue(L, 1, 1);
    return 1;
  }
  return box->is_conn ? push_conn_field(L, box, field)
                      : push_agent_field(L, box, field);
}

static void make_class(lua_State *L, struct box_class *class, const char *name,
                       const char *const *fields, int count,
                       const luaL_Reg *methods) {
  int i;

  luaL_newmetatable(L, name);
  class->meta = lua_topointer(L, -1);
  lua_newtable(L);
  for (i = 0; i < count; i++) {
    lua_pushinteger(L, i);
    lua_setfield(L, -2, fields[i]);
  }
  luaL_setfuncs(L, methods, 0);
  lua_pushcclosure(L, box_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, box_newindex);
  lua_setfield(L, -2, "__newindex");
  lua_pushcfunction(L, box_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__metatable");
  class->ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* For the policy that is being set up; for none, in a state of the host's. */
void relay__lua_open_objects(lua_State *L) {
  struct relay_lua *lua = relay__lua_owner_of(L);
  struct box_classes *classes =
      lua->running != NULL ? &lua->running->classes : &lua->classes;

  make_class(L, &classes->conn, CONN, conn_fields, CONN_FIELD_COUNT,
             relay__lua_conn_methods);
  make_class(L, &classes->agent, AGENT, agent_fields, AGENT_FIELD_COUNT,
             relay__lua_agent_methods);
}
