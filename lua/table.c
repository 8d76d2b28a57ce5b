/* SPDX-License-Identifier: MIT */
/*
 * The policy table: each of the core's calls, made into an event for hooks.c.
 */
#include "private.h"

static int on_auth(void *data, uint64_t call, const relay_agent_info *agent,
                   const relay_credentials *credentials,
                   relay_verdict *verdict) {
  struct event event = {
      .hook = HOOK_AUTH, .call = call, .agent = *agent, .cred = *credentials};

  return relay__lua_ask(data, &event, verdict);
}

static int on_allocate(void *data, uint64_t call, const relay_agent_info *agent,
                       const relay_want *want, relay_verdict *verdict) {
  struct event event = {
      .hook = HOOK_ALLOCATE, .call = call, .agent = *agent, .want = *want};

  return relay__lua_ask(data, &event, verdict);
}

static int on_visitor(void *data, uint64_t call, const relay_conn_info *conn,
                      const relay_agent_info *agents, size_t agent_count,
                      relay_verdict *verdict) {
  struct event event = {.hook = HOOK_VISITOR,
                        .call = call,
                        .conn = *conn,
                        .agents = agents,
                        .agent_count = agent_count};

  return relay__lua_ask(data, &event, verdict);
}

static int on_peek(void *data, uint64_t call, const relay_conn_info *conn,
                   const void *bytes, size_t count, int eof,
                   relay_verdict *verdict) {
  struct event event = {.hook = HOOK_PEEK,
                        .call = call,
                        .conn = *conn,
                        .bytes = bytes,
                        .byte_count = count,
                        .eof = eof};

  return relay__lua_ask(data, &event, verdict);
}

static void on_open(void *data, const relay_conn_info *conn) {
  struct event event = {.hook = HOOK_OPEN, .conn = *conn};

  relay__lua_tell(data, &event);
}

static void on_close(void *data, const relay_conn_info *conn) {
  struct event event = {.hook = HOOK_CLOSE, .conn = *conn};

  relay__lua_tell(data, &event);
}

static void on_agent_gone(void *data, const relay_agent_info *agent,
                          int reason) {
  struct event event = {
      .hook = HOOK_AGENT_GONE, .agent = *agent, .reason = reason};

  relay__lua_tell(data, &event);
}

static uint64_t on_tick(void *data, uint64_t now_ms) {
  return relay__lua_tick(data, now_ms);
}

static int on_log(void *data, const relay_log_record *record) {
  struct relay_lua *lua = data;

  return relay__lua_log_hook(lua->policy, record);
}

static void on_cancel(void *data, uint64_t call) {
  relay__lua_cancel(data, call);
}

static void on_proven(void *data, uint64_t id) {
  struct call *call = relay__lua_call_find(data, id);

  if (call != NULL)
    relay__lua_proven(call->task);
}

void relay__lua_init_table(struct relay_lua *lua) {
  lua->table = (relay_policy){
      .size = sizeof(lua->table),
      .data = lua,
      .auth = on_auth,
      .allocate = on_allocate,
      .visitor = on_visitor,
      .peek = on_peek,
      .open = on_open,
      .close = on_close,
      .agent_gone = on_agent_gone,
      .tick = on_tick,
      .log = on_log,
      .cancel = on_cancel,
      .proven = on_proven,
  };
}
