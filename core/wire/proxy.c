/* SPDX-License-Identifier: MIT */
/*
 * Reading PROXY protocol headers. See proxy.h. A byte that cannot belong to a
 * header is an error at once: nothing that might be payload is waited on.
 */
#include "wire/proxy.h"

#include <netinet/in.h>
#include <string.h>
#include <uv.h>

#include "wire/address.h"

/* The longest line of version 1, its CR LF included. */
#define LINE_MAX_BYTES 107
#define SIGNATURE_BYTES 12
#define FIXED_BYTES 16

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";
static const char verb[] = "PROXY ";

/* ---- version 1 -------------------------------------------------------- */

/* Cuts the next word off; NULL when there is none. */
static char *next_word(char **at) {
  char *word = *at;
  char *end;

  if (word == NULL || *word == '\0')
    return NULL;
  end = strchr(word, ' ');
  *at = end != NULL ? end + 1 : NULL;
  if (end != NULL)
    *end = '\0';
  return *word != '\0' ? word : NULL;
}

static int read_end(const char *host, const char *port, int family,
                    struct sockaddr_storage *address) {
  char text[ADDRESS_TEXT_MAX], copy[ADDRESS_HOST_MAX];
  size_t length;
  unsigned number;
  int err;

  if (host == NULL || port == NULL || strpbrk(host, "[]%") != NULL ||
      (strchr(host, ':') != NULL) != (family == AF_INET6))
    return UV_EINVAL;
  length = strlen(port);
  if (length > 5 || (length > 1 && *port == '0'))
    return UV_EINVAL;
  text[0] = 'x'; /* any host: only the port is looked at */
  text[1] = ':';
  memcpy(text + 2, port, length + 1);
  err = relay__address_split(text, copy, sizeof(copy), &number);
  return err == 0 ? relay__address_parse_host(host, number, address) : err;
}

/* "TCP4 192.0.2.1 192.0.2.2 56324 443", behind the verb. */
static int read_words(char *line, struct proxy_header *header) {
  char *family = next_word(&line);
  char *from, *to, *from_port, *to_port;
  int kind;

  if (family != NULL && strcmp(family, "UNKNOWN") == 0)
    return 0; /* whatever follows */
  if (family == NULL ||
      (strcmp(family, "TCP4") != 0 && strcmp(family, "TCP6") != 0))
    return UV_EINVAL;
  kind = family[3] == '4' ? AF_INET : AF_INET6;
  from = next_word(&line);
  to = next_word(&line);
  from_port = next_word(&line);
  to_port = next_word(&line);
  if (line != NULL || read_end(from, from_port, kind, &header->from) != 0 ||
      read_end(to, to_port, kind, &header->to) != 0)
    return UV_EINVAL;
  header->told = true;
  return 0;
}

static int parse_v1(const char *bytes, size_t count,
                    struct proxy_header *header) {
  size_t known = count < sizeof(verb) - 1 ? count : sizeof(verb) - 1;
  const char *end = memchr(bytes, '\n', count);
  size_t length = end != NULL ? (size_t)(end - bytes) + 1 : count;
  char line[LINE_MAX_BYTES + 1];

  if (memcmp(bytes, verb, known) != 0 || length > LINE_MAX_BYTES ||
      (end == NULL && count == LINE_MAX_BYTES) ||
      memchr(bytes, '\0', length) != NULL)
    return UV_EINVAL;
  if (end == NULL)
    return 0;
  if (length < sizeof(verb) + 1 || end[-1] != '\r')
    return UV_EINVAL;
  memcpy(line, bytes, length - 2);
  line[length - 2] = '\0';
  return read_words(line + sizeof(verb) - 1, header) == 0 ? (int)length
                                                          : UV_EINVAL;
}

/* ---- version 2 -------------------------------------------------------- */

static void take_v4(const unsigned char *bytes, const unsigned char *port,
                    struct sockaddr_storage *address) {
  struct sockaddr_in v4 = {.sin_family = AF_INET};

  memcpy(&v4.sin_addr, bytes, 4);
  memcpy(&v4.sin_port, port, 2);
  memset(address, 0, sizeof(*address));
  memcpy(address, &v4, sizeof(v4));
}

static void take_v6(const unsigned char *bytes, const unsigned char *port,
                    struct sockaddr_storage *address) {
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

  memcpy(&v6.sin6_addr, bytes, 16);
  memcpy(&v6.sin6_port, port, 2);
  memset(address, 0, sizeof(*address));
  memcpy(address, &v6, sizeof(v6));
  relay__address_unmap(address);
}

/* What follows the fixed part of a header whose command is PROXY. */
static int read_addresses(const unsigned char *at, unsigned kind, size_t length,
                          struct proxy_header *header) {
  switch (kind) {
  case 0x11: /* TCP over IPv4 */
    if (length < 12)
      return UV_EINVAL;
    take_v4(at, at + 8, &header->from);
    take_v4(at + 4, at + 10, &header->to);
    break;
  case 0x21: /* TCP over IPv6 */
    if (length < 36)
      return UV_EINVAL;
    take_v6(at, at + 32, &header->from);
    take_v6(at + 16, at + 34, &header->to);
    break;
  default:
    return 0;
  }
  header->told = true;
  return 0;
}

static int parse_v2(const unsigned char *bytes, size_t count,
                    struct proxy_header *header) {
  size_t known = count < SIGNATURE_BYTES ? count : SIGNATURE_BYTES;
  size_t length;

  if (memcmp(bytes, signature, known) != 0)
    return UV_EINVAL;
  if (count > SIGNATURE_BYTES && bytes[12] != 0x20 && bytes[12] != 0x21)
    return UV_EINVAL;
  if (count < FIXED_BYTES)
    return 0;
  length = (size_t)bytes[14] << 8 | bytes[15];
  if (FIXED_BYTES + length > PROXY_HEADER_MAX)
    return UV_EINVAL;
  if (count < FIXED_BYTES + length)
    return 0;
  if (bytes[12] == 0x21 &&
      read_addresses(bytes + FIXED_BYTES, bytes[13], length, header) != 0)
    return UV_EINVAL;
  return (int)(FIXED_BYTES + length);
}

int relay__proxy_parse(const void *bytes, size_t count,
                       struct proxy_header *header) {
  memset(header, 0, sizeof(*header));
  if (count == 0)
    return 0;
  return *(const char *)bytes == signature[0] ? parse_v2(bytes, count, header)
                                              : parse_v1(bytes, count, header);
}
