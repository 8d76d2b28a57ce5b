/* SPDX-License-Identifier: MIT */
/*
 * Networks. See network.h.
 */
#include "wire/network.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "wire/address.h"

/* The bits of an address; how many there are, 0 for other families. */
static unsigned load(const struct sockaddr *address, unsigned char *bytes) {
  if (address->sa_family == AF_INET) {
    memcpy(bytes, &((const struct sockaddr_in *)address)->sin_addr, 4);
    return 32;
  }
  if (address->sa_family == AF_INET6) {
    memcpy(bytes, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
    return 128;
  }
  return 0;
}

static int parse_prefix(const char *text, unsigned most, unsigned *prefix) {
  size_t length = strlen(text);
  unsigned long number;

  if (length == 0 || length > 3 || strspn(text, "0123456789") != length)
    return UV_EINVAL;
  number = strtoul(text, NULL, 10);
  if (number > most)
    return UV_EINVAL;
  *prefix = (unsigned)number;
  return 0;
}

static int parse_one(char *text, struct network *network) {
  char *slash = strchr(text, '/');
  struct sockaddr_storage address;
  unsigned bits;

  if (slash != NULL)
    *slash = '\0';
  if (relay__address_parse_host(text, 0, &address) != 0)
    return UV_EINVAL;
  memset(network, 0, sizeof(*network));
  network->family = address.ss_family;
  bits = load((struct sockaddr *)&address, network->bytes);
  network->prefix = bits;
  return slash != NULL ? parse_prefix(slash + 1, bits, &network->prefix) : 0;
}

int relay__networks_parse(const char *text, struct networks *networks) {
  struct networks all = {0};
  char word[ADDRESS_HOST_MAX + 4];

  while (text != NULL) {
    size_t length = strcspn(text, ",");

    if (length >= sizeof(word))
      return UV_EINVAL;
    if (all.count == NETWORKS_MAX)
      return UV_E2BIG;
    memcpy(word, text, length);
    word[length] = '\0';
    if (parse_one(word, &all.list[all.count]) != 0)
      return UV_EINVAL;
    all.count++;
    text = text[length] == ',' ? text + length + 1 : NULL;
  }
  *networks = all;
  return 0;
}

static bool holds(const struct network *network, const unsigned char *bytes) {
  unsigned whole = network->prefix / 8;
  unsigned rest = network->prefix % 8;
  unsigned char mask = (unsigned char)(0xff << (8 - rest));

  return memcmp(network->bytes, bytes, whole) == 0 &&
         (rest == 0 || ((network->bytes[whole] ^ bytes[whole]) & mask) == 0);
}

bool relay__networks_hold(const struct networks *networks,
                          const struct sockaddr *address) {
  unsigned char bytes[16] = {0};
  unsigned i;

  if (load(address, bytes) == 0)
    return false;
  for (i = 0; i < networks->count; i++)
    if (networks->list[i].family == address->sa_family &&
        holds(&networks->list[i], bytes))
      return true;
  return false;
}
