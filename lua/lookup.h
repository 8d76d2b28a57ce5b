/* SPDX-License-Identifier: MIT */
/*
 * Names and addresses, looked up while the task waits. An address in figures
 * is read at once, so that it can be used where nothing may wait.
 */
#ifndef RELAY_LUA_LOOKUP_H
#define RELAY_LUA_LOOKUP_H

#include <netdb.h>

#include "private.h"

#define ADDRESSES_MAX 16

/* What UV_EPERM means of a look-up, and EPERM of a connect. */
#define DENIED "this process has given up connections out"

struct addresses {
  int status; /* 0, or a libuv code */
  int count;
  struct sockaddr_storage list[ADDRESSES_MAX];
  char name[NI_MAXHOST]; /* the canonical one, or that of an address */
  char service[NI_MAXSERV];
};

struct query {
  const char *what; /* asks, for errors */
  const char *host; /* NULL: any address, or this machine */
  const char *service;
  struct addrinfo hints;
  uint64_t limit_ms; /* 0: none */
};

/* Both leave a `struct addresses` on top of the stack and go on with `then`,
   from within or after a wait. They raise where the task cannot wait. */
int relay__lua_look_up(lua_State *L, const struct query *query,
                       lua_KFunction then);
/* The other way round; `flags` as getnameinfo has them. */
int relay__lua_look_up_name(lua_State *L, const char *what,
                            const struct sockaddr *address, int flags,
                            lua_KFunction then);
socklen_t relay__lua_address_size(const struct sockaddr_storage *address);

#endif
