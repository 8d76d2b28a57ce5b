/* SPDX-License-Identifier: MIT */
/*
 * What a connection's first bytes say. Pure: bytes in, a span of them out.
 * More than 0: found; 0: there is none, whatever follows; less than 0: more
 * bytes are needed, -n in all.
 */
#ifndef RELAY_LUA_PEEKERS_H
#define RELAY_LUA_PEEKERS_H

#include <stddef.h>

struct span {
  const char *text;
  size_t length;
};

/* The server name a TLS client asks for. */
int relay__lua_peek_sni(const void *bytes, size_t count, struct span *name);
/* The Host of an HTTP/1 request, without its port. */
int relay__lua_peek_host(const void *bytes, size_t count, struct span *host);
/* The software an SSH client says it is: "OpenSSH_9.2p1 Debian-2". */
int relay__lua_peek_ssh(const void *bytes, size_t count, struct span *banner);

#endif
