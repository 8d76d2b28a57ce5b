/* SPDX-License-Identifier: MIT */
/*
 * Addresses as text and back. Everything is copied out of and into sockaddrs,
 * so that no caller's alignment or declared type matters.
 */
#include "wire/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <uv.h>

#define PORT_MAX 65535

/* An address of either family, out of its sockaddr, unmapped. */
struct ip {
  int family; /* AF_INET, AF_INET6, or what it was */
  unsigned port;
  uint32_t scope; /* 0 but for link-local */
  unsigned char bytes[16];
};

static bool is_link_local(const struct in6_addr *address) {
  return IN6_IS_ADDR_LINKLOCAL(address) || IN6_IS_ADDR_MC_LINKLOCAL(address);
}

static void load(struct ip *ip, const struct sockaddr *address) {
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;

  memset(ip, 0, sizeof *ip);
  ip->family = address != NULL ? address->sa_family : AF_UNSPEC;
  if (ip->family == AF_INET) {
    memcpy(&v4, address, sizeof v4);
    ip->port = ntohs(v4.sin_port);
    memcpy(ip->bytes, &v4.sin_addr, 4);
  } else if (ip->family == AF_INET6) {
    memcpy(&v6, address, sizeof v6);
    ip->port = ntohs(v6.sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
      ip->family = AF_INET;
      memcpy(ip->bytes, v6.sin6_addr.s6_addr + 12, 4);
      return;
    }
    memcpy(ip->bytes, &v6.sin6_addr, 16);
    if (is_link_local(&v6.sin6_addr))
      ip->scope = v6.sin6_scope_id;
  }
}

static void store(const struct ip *ip, struct sockaddr_storage *address) {
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

  memset(address, 0, sizeof *address);
  if (ip->family == AF_INET) {
    v4.sin_port = htons((uint16_t)ip->port);
    memcpy(&v4.sin_addr, ip->bytes, 4);
    memcpy(address, &v4, sizeof v4);
  } else {
    v6.sin6_port = htons((uint16_t)ip->port);
    v6.sin6_scope_id = ip->scope;
    memcpy(&v6.sin6_addr, ip->bytes, 16);
    memcpy(address, &v6, sizeof v6);
  }
}

static void print_host(const struct ip *ip, char *text, size_t size) {
  char host[INET6_ADDRSTRLEN];
  const char *other = ip->family == AF_UNIX ? "unix" : "unknown";

  if (ip->family != AF_INET && ip->family != AF_INET6)
    snprintf(text, size, "%s", other);
  else if (inet_ntop(ip->family, ip->bytes, host, sizeof host) == NULL)
    snprintf(text, size, "unknown");
  else if (ip->scope != 0)
    snprintf(text, size, "%s%%%u", host, (unsigned)ip->scope);
  else
    snprintf(text, size, "%s", host);
}

void relay__address_unmap(struct sockaddr_storage *address) {
  struct ip ip;

  if (address->ss_family != AF_INET6)
    return;
  load(&ip, (const struct sockaddr *)address);
  if (ip.family == AF_INET)
    store(&ip, address);
}

void relay__address_text(const struct sockaddr *address, char *text,
                         size_t size) {
  char host[ADDRESS_HOST_MAX];
  struct ip ip;

  load(&ip, address);
  print_host(&ip, host, sizeof host);
  if (ip.family == AF_INET)
    snprintf(text, size, "%s:%u", host, ip.port);
  else if (ip.family == AF_INET6)
    snprintf(text, size, "[%s]:%u", host, ip.port);
  else
    snprintf(text, size, "%s", host);
}

void relay__address_host(const struct sockaddr *address, char *text,
                         size_t size) {
  struct ip ip;

  load(&ip, address);
  print_host(&ip, text, size);
}

unsigned relay__address_port(const struct sockaddr *address) {
  struct ip ip;

  load(&ip, address);
  return ip.port;
}

void relay__address_set_port(struct sockaddr *address, unsigned port) {
  in_port_t number = htons((uint16_t)port);
  char *bytes = (char *)address;

  if (address->sa_family == AF_INET)
    memcpy(bytes + offsetof(struct sockaddr_in, sin_port), &number,
           sizeof number);
  else if (address->sa_family == AF_INET6)
    memcpy(bytes + offsetof(struct sockaddr_in6, sin6_port), &number,
           sizeof number);
}

socklen_t relay__address_length(const struct sockaddr *address) {
  switch (address->sa_family) {
  case AF_INET:
    return sizeof(struct sockaddr_in);
  case AF_INET6:
    return sizeof(struct sockaddr_in6);
  case AF_UNIX:
    return sizeof(struct sockaddr_un);
  default:
    return 0;
  }
}

/* Digits only, up to `max`; no sign, no space, nothing after. */
static int parse_number(const char *text, uint32_t max, uint32_t *number) {
  uint64_t value = 0;

  if (*text == '\0')
    return UV_EINVAL;
  for (; *text != '\0'; text++) {
    if (*text < '0' || *text > '9')
      return UV_EINVAL;
    value = value * 10 + (uint64_t)(*text - '0');
    if (value > max)
      return UV_EINVAL;
  }
  *number = (uint32_t)value;
  return 0;
}

/* An IPv6 literal, with its scope where that means something. */
static int parse_v6(char *host, struct sockaddr_in6 *v6) {
  char *mark = strchr(host, '%');
  uint32_t scope = 0;

  if (mark != NULL) {
    *mark = '\0';
    if (parse_number(mark + 1, UINT32_MAX, &scope) != 0)
      return UV_EINVAL;
  }
  if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1)
    return UV_EINVAL;
  if (mark != NULL && !is_link_local(&v6->sin6_addr))
    return UV_EINVAL;
  v6->sin6_family = AF_INET6;
  v6->sin6_scope_id = scope;
  return 0;
}

int relay__address_parse_host(const char *host, unsigned port,
                              struct sockaddr_storage *address) {
  struct sockaddr_in6 v6 = {0};
  struct ip ip = {.family = AF_INET};
  char copy[ADDRESS_HOST_MAX];
  size_t length = strlen(host);

  if (port > PORT_MAX || length >= sizeof copy)
    return UV_EINVAL;
  if (inet_pton(AF_INET, host, ip.bytes) != 1) {
    if (*host == '[' && length > 2 && host[length - 1] == ']') {
      host++;
      length -= 2;
    }
    memcpy(copy, host, length);
    copy[length] = '\0';
    if (parse_v6(copy, &v6) != 0)
      return UV_EINVAL;
    load(&ip, (const struct sockaddr *)&v6);
  }
  ip.port = port;
  store(&ip, address);
  return 0;
}

bool relay__address_is_host(const char *host) {
  if (*host == '\0' || strlen(host) >= NI_MAXHOST)
    return false;
  for (; *host != '\0'; host++)
    if ((unsigned char)*host <= 0x20 || (unsigned char)*host >= 0x7f)
      return false;
  return true;
}

int relay__address_split(const char *text, char *host, size_t size,
                         unsigned *port) {
  const char *colon = strrchr(text, ':');
  const char *start = text;
  const char *end = colon;
  uint32_t number;

  if (colon == NULL || parse_number(colon + 1, PORT_MAX, &number) != 0)
    return UV_EINVAL;
  if (*start == '[') {
    if (end - start < 3 || end[-1] != ']')
      return UV_EINVAL;
    start++;
    end--;
    /* Brackets are for what has colons, and colons are for brackets. */
    if (memchr(start, ':', (size_t)(end - start)) == NULL)
      return UV_EINVAL;
  } else if (memchr(start, ':', (size_t)(end - start)) != NULL) {
    return UV_EINVAL;
  }
  if (start == end || (size_t)(end - start) >= size ||
      strcspn(start, "[]") < (size_t)(end - start))
    return UV_EINVAL;
  memcpy(host, start, (size_t)(end - start));
  host[end - start] = '\0';
  *port = number;
  return 0;
}
