/* SPDX-License-Identifier: MIT */
/*
 * Sets of networks in CIDR notation: "192.0.2.0/24", "2001:db8::/32", a single
 * address without a prefix. Pure.
 */
#ifndef RELAY_NETWORK_H
#define RELAY_NETWORK_H

#include <stdbool.h>
#include <sys/socket.h>

#define NETWORKS_MAX 32

struct network {
  int family;
  unsigned prefix; /* bits */
  unsigned char bytes[16];
};

struct networks {
  unsigned count;
  struct network list[NETWORKS_MAX];
};

/* A list with commas between. 0; UV_EINVAL, UV_E2BIG. */
int relay__networks_parse(const char *text, struct networks *networks);
/* Whether an unmapped address is in one of them. */
bool relay__networks_hold(const struct networks *networks,
                          const struct sockaddr *address);

#endif
