/* SPDX-License-Identifier: MIT */
/*
 * PROXY protocol headers, versions 1 and 2, as a balancer puts them in front
 * of a connection. Pure: bytes in, two addresses out.
 */
#ifndef RELAY_PROXY_H
#define RELAY_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* The longest header that is taken: version 2 with extensions. */
#define PROXY_HEADER_MAX 1024

/* `told` false (UNKNOWN, LOCAL, not TCP): the connection's own addresses
   count. Else unmapped. */
struct proxy_header {
  bool told;
  struct sockaddr_storage from;
  struct sockaddr_storage to;
};

/* > 0: the length of the header that `bytes` begin with; 0: it is not whole
   yet, and none of the bytes are behind it; UV_EINVAL: no header begins so. */
int relay__proxy_parse(const void *bytes, size_t count,
                       struct proxy_header *header);

#endif
