/* SPDX-License-Identifier: MIT */
/*
 * What the loop of luv (luv.c) and its module (luv_module.c) share.
 */
#ifndef RELAY_LUA_LUV_H
#define RELAY_LUA_LUV_H

#include "private.h"

struct luv {
  struct policy *policy;
  int functions; /* a table: the module as luv made it */
  int module;    /* what the script gets */
  bool opened;
  bool polling;
  bool turning;
  bool again; /* it called back */
  bool alive;
  bool closing;
  int timeout;
  unsigned handles;
  uv_poll_t poll;
  uv_prepare_t prepare;
  uv_timer_t timer;
};

struct luv *relay__lua_luv_new(struct policy *policy);
/* Has the relay's loop watch that of luv. Raises. */
void relay__lua_luv_nest(lua_State *L, struct luv *luv);
/* Calls `body` on the main state, with `luv`, caught and without the cap on
   memory. */
bool relay__lua_luv_enter(struct luv *luv, lua_CFunction body);
/* Pushes one of luv's own functions. */
void relay__lua_luv_push(lua_State *L, const struct luv *luv, const char *name);
/* A handle that is always active: with none, luv's loop would see no timer that
   was unref'd, and have no time-out. */
void relay__lua_luv_keep_alive(lua_State *L, const struct luv *luv);
/* Every callback of luv goes through this. Luv's own would print an error and
   end the process. */
int relay__lua_luv_call(lua_State *L, int count, int results, int flags);

#endif
