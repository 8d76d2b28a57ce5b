/* SPDX-License-Identifier: MIT */
/*
 * What the files of the engine program share. Words: the test is the Lua
 * state that drives; the policy is the state that is driven.
 */
#ifndef RELAY_TESTS_ENGINE_H
#define RELAY_TESTS_ENGINE_H

#include <lauxlib.h>
#include <lua.h>
#include <relay/lua.h>
#include <stdbool.h>
#include <uv.h>

#define INFO_TEXTS 512

/* Texts that an info read from the test points to. */
struct texts {
  char bytes[INFO_TEXTS];
  size_t used;
};

/* The state of the test, and its table of functions: there is one test. */
extern lua_State *engine_test;
extern int engine_core;

/* Names of log levels, NULL-terminated. */
extern const char *const engine_levels[];

/* What every monotonic clock of the process shows. */
extern uint64_t engine_clock_ms;

/* A field of the table at `index`; 0: none. */
lua_Number engine_number(lua_State *L, int index, const char *key);
/* Reads the table at `index` of the test's stack. */
void engine_read_conn(lua_State *L, int index, relay_conn_info *info,
                      struct texts *texts);
void engine_read_agent(lua_State *L, int index, relay_agent_info *info,
                       struct texts *texts);
/* Pushes it as relay.testing would: { deny = true, reason = … }. */
void engine_push_verdict(lua_State *L, const relay_verdict *verdict);
void engine_push_record(lua_State *L, const relay_log_record *record);

/* Pushes the test's function of this name; engine_call then calls it with
   `count` arguments. An error of the test's is kept for engine_check. */
void engine_begin(const char *name);
void engine_call(int count, int results);
/* Raises what was kept. */
void engine_check(lua_State *L);

#endif
