/* SPDX-License-Identifier: MIT */
/*
 * What the core tells, as a value: pushed as the arguments of its hook, or
 * copied whole into the queue while no hook may run.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* ---- into a hook ------------------------------------------------------ */

static void push_text(lua_State *L, const char *key, const char *text) {
  if (text == NULL)
    return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, key);
}

static void push_number(lua_State *L, const char *key, unsigned number) {
  if (number == 0)
    return;
  lua_pushinteger(L, number);
  lua_setfield(L, -2, key);
}

static void push_want(lua_State *L, const relay_want *want) {
  lua_createtable(L, 0, 3);
  push_number(L, "port", want->port);
  push_number(L, "attempt", want->attempt);
  if (want->host != NULL && *want->host != '\0')
    push_text(L, "host", want->host);
}

static void push_agents(lua_State *L, const struct event *event) {
  size_t i;

  lua_createtable(L, (int)event->agent_count, 0);
  for (i = 0; i < event->agent_count; i++) {
    relay__lua_push_agent(L, event->agents[i].id);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static bool is_there(lua_State *L, uint64_t conn) {
  relay_t *relay = relay__lua_policy_of(L)->lua->relay;
  relay_conn_info info = {.size = sizeof(info)};

  return relay != NULL && relay_get_conn(relay, conn, &info) == 0;
}

int relay__lua_event_push(lua_State *L, const struct event *event) {
  switch (event->hook) {
  case HOOK_START:
    if (event->bytes != NULL)
      relay__lua_unpack(L, event->bytes, event->byte_count);
    else
      lua_pushnil(L);
    return 1;
  case HOOK_STOP:
    lua_pushstring(L, event->text);
    return 1;
  case HOOK_AUTH:
    relay__lua_push_agent(L, event->agent.id);
    relay__lua_push_cred(L, event);
    return 2;
  case HOOK_ALLOCATE:
    relay__lua_push_agent(L, event->agent.id);
    push_want(L, &event->want);
    return 2;
  case HOOK_VISITOR:
    relay__lua_push_conn(L, event->conn.id);
    if (!relay__lua_policy_of(L)->wants_agents)
      return 1;
    push_agents(L, event);
    return 2;
  case HOOK_PEEK:
    relay__lua_push_conn(L, event->conn.id);
    relay__lua_set_eof(L, -1, event->eof != 0);
    lua_pushlstring(L, event->bytes, event->byte_count);
    return 2;
  case HOOK_OPEN:
    /* Told late, it may be about one that has ended since. */
    if (is_there(L, event->conn.id))
      relay__lua_push_conn(L, event->conn.id);
    else
      relay__lua_push_final(L, event);
    return 1;
  case HOOK_CLOSE:
    relay__lua_push_final(L, event);
    return 1;
  case HOOK_AGENT_GONE:
    relay__lua_push_final(L, event);
    lua_pushstring(L, event->reason == 0 ? "ended"
                                         : relay_error_name(event->reason));
    return 2;
  case HOOK_TICK:
    lua_pushnumber(L, (lua_Number)uv_hrtime() / 1e9);
    return 1;
  default:
    return 0;
  }
}

uint64_t relay__lua_event_subject(const struct event *event) {
  return event->conn.id != 0 ? event->conn.id : event->agent.id;
}

/* ---- into the queue --------------------------------------------------- */

static size_t size_of(const char *text) {
  return text != NULL ? strlen(text) + 1 : 0;
}

/* Moves a borrowed text to where `*at` points. */
static void own(const char **text, char **at) {
  size_t size = size_of(*text);

  if (size == 0)
    return;
  memcpy(*at, *text, size);
  *text = *at;
  *at += size;
}

static size_t agent_size(const relay_agent_info *agent) {
  return size_of(agent->name) + size_of(agent->addr);
}

static void own_agent(relay_agent_info *agent, char **at) {
  own(&agent->name, at);
  own(&agent->addr, at);
}

static size_t cred_size(const relay_credentials *cred) {
  return size_of(cred->id) + size_of(cred->certificate) +
         size_of(cred->fingerprint);
}

static void own_cred(relay_credentials *cred, char **at) {
  own(&cred->id, at);
  own(&cred->certificate, at);
  own(&cred->fingerprint, at);
}

struct event *relay__lua_event_copy(const struct event *event) {
  size_t list = event->agent_count * sizeof(*event->agents);
  size_t size = sizeof(*event) + list + agent_size(&event->agent) +
                size_of(event->conn.addr) + size_of(event->conn.why) +
                cred_size(&event->cred) + size_of(event->want.host) +
                event->byte_count;
  relay_agent_info *agents;
  struct event *copy;
  char *at;
  size_t i;

  for (i = 0; i < event->agent_count; i++)
    size += agent_size(&event->agents[i]);
  copy = malloc(size);
  if (copy == NULL)
    return NULL;
  *copy = *event;
  agents = (relay_agent_info *)(copy + 1);
  at = (char *)agents + list;
  if (list != 0)
    memcpy(agents, event->agents, list);
  copy->agents = agents;
  for (i = 0; i < event->agent_count; i++)
    own_agent(&agents[i], &at);
  own_agent(&copy->agent, &at);
  own(&copy->conn.addr, &at);
  own(&copy->conn.why, &at);
  own_cred(&copy->cred, &at);
  own(&copy->want.host, &at);
  if (event->byte_count != 0) {
    memcpy(at, event->bytes, event->byte_count);
    copy->bytes = at;
  }
  copy->next = NULL;
  return copy;
}
