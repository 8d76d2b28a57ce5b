/* SPDX-License-Identifier: MIT */
/*
 * PROXY protocol headers, versions 1 and 2, for the two addresses of a
 * visitor. What is not a pair of addresses of one family is told as UNKNOWN
 * (version 1) or LOCAL (version 2): the receiver then uses the connection's
 * own.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <relay/agent.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "wire/address.h"

/* The two addresses of a visitor, and their family; AF_UNSPEC: not told. */
struct ends {
  int family;
  struct sockaddr_storage from;
  struct sockaddr_storage to;
};

static int parse_end(const char *text, struct sockaddr_storage *address) {
  char host[ADDRESS_HOST_MAX];
  unsigned port;
  if (text == NULL)
    return UV_EINVAL;
  int status = relay__address_split(text, host, sizeof(host), &port);
  if (status != 0)
    return status;
  return relay__address_parse_host(host, port, address);
}

static void parse_ends(struct ends *ends, const char *from, const char *to) {
  ends->family = AF_UNSPEC;
  if (parse_end(from, &ends->from) != 0)
    return;
  if (parse_end(to, &ends->to) != 0)
    return;
  if (ends->from.ss_family == ends->to.ss_family)
    ends->family = ends->from.ss_family;
}

/* The bytes of the address itself, in network order. */
static const void *address_bytes(const struct sockaddr_storage *address) {
  if (address->ss_family == AF_INET)
    return &((const struct sockaddr_in *)address)->sin_addr;
  return &((const struct sockaddr_in6 *)address)->sin6_addr;
}

static unsigned end_port(const struct sockaddr_storage *address) {
  return relay__address_port((const struct sockaddr *)address);
}

static int write_v1(const struct ends *ends, char *buffer, size_t size) {
  char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
  int length;
  if (ends->family == AF_UNSPEC) {
    length = snprintf(buffer, size, "PROXY UNKNOWN\r\n");
  } else {
    inet_ntop(ends->family, address_bytes(&ends->from), from, sizeof(from));
    inet_ntop(ends->family, address_bytes(&ends->to), to, sizeof(to));
    length = snprintf(buffer, size, "PROXY %s %s %s %u %u\r\n",
                      ends->family == AF_INET ? "TCP4" : "TCP6", from, to,
                      end_port(&ends->from), end_port(&ends->to));
  }
  return length < 0 || (size_t)length >= size ? UV_ENOBUFS : length;
}

static unsigned char *put_port(unsigned char *at, unsigned port) {
  at[0] = (unsigned char)(port >> 8);
  at[1] = (unsigned char)port;
  return at + 2;
}

static int write_v2(const struct ends *ends, unsigned char *buffer,
                    size_t size) {
  static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";
  size_t width = ends->family == AF_UNSPEC ? 0
                 : ends->family == AF_INET ? 4
                                           : 16;
  size_t payload = width == 0 ? 0 : 2 * width + 4;
  if (16 + payload > size)
    return UV_ENOBUFS;
  memcpy(buffer, signature, 12);
  buffer[12] = width == 0 ? 0x20 : 0x21; /* version 2: LOCAL, PROXY */
  buffer[13] = width == 0 ? 0x00 : width == 4 ? 0x11 : 0x21; /* over TCP */
  buffer[14] = 0;
  buffer[15] = (unsigned char)payload;
  if (width > 0) {
    unsigned char *at = buffer + 16;
    memcpy(at, address_bytes(&ends->from), width);
    memcpy(at + width, address_bytes(&ends->to), width);
    at = put_port(at + 2 * width, end_port(&ends->from));
    put_port(at, end_port(&ends->to));
  }
  return (int)(16 + payload);
}

int relay_proxy_header(int version, const char *from, const char *to,
                       void *buffer, size_t size) {
  struct ends ends;
  if (version != 1 && version != 2)
    return UV_EINVAL;
  parse_ends(&ends, from, to);
  return version == 1 ? write_v1(&ends, buffer, size)
                      : write_v2(&ends, buffer, size);
}
