/* SPDX-License-Identifier: MIT */
/*
 * The insides of a box, for its fields (objects.c) and methods (methods.c).
 */
#ifndef RELAY_LUA_BOX_H
#define RELAY_LUA_BOX_H

#include "private.h"

#define CONN "relay.conn"
#define AGENT "relay.agent"

struct final {
  relay_conn_info conn;
  relay_agent_info agent;
  char addr[64];
  char name[128];
  char why[256];
};

struct box {
  uint64_t id;
  struct final *final; /* in the last hook; kept by user value 2 */
  bool is_conn;
  bool dead;
  bool eof;
};

/* Raises when the value is no box. */
struct box *relay__lua_check_box(lua_State *L, int index);
/* Raises once the box is closed. */
relay_t *relay__lua_box_relay(lua_State *L, const struct box *box);

extern const luaL_Reg relay__lua_conn_methods[];
extern const luaL_Reg relay__lua_agent_methods[];

#endif
