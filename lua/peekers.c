/* SPDX-License-Identifier: MIT */
/*
 * See peekers.h. Bytes come from anybody: each length is checked against what
 * there is before it is used.
 */
#include "peekers.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* ---- TLS -------------------------------------------------------------- */

/* A reader over a part of a message that is wholly there. */
struct reader {
  const unsigned char *at;
  size_t left;
};

static size_t number(struct reader *reader, size_t size) {
  size_t value = 0;

  if (reader->left < size) {
    reader->left = 0;
    return 0;
  }
  reader->left -= size;
  while (size-- > 0)
    value = value << 8 | *reader->at++;
  return value;
}

/* What follows a length of `size` bytes; empty if it is not all there. */
static struct reader part(struct reader *reader, size_t size) {
  size_t length = number(reader, size);
  struct reader inner = {reader->at, length};

  if (length > reader->left) {
    inner.left = reader->left = 0;
    return inner;
  }
  reader->at += length;
  reader->left -= length;
  return inner;
}

static int read_names(struct reader extension, struct span *name) {
  struct reader names = part(&extension, 2);

  while (names.left > 0) {
    size_t kind = number(&names, 1);
    struct reader entry = part(&names, 2);

    if (kind == 0 && entry.left > 0) {
      if (memchr(entry.at, '\0', entry.left) != NULL)
        return 0;
      name->text = (const char *)entry.at;
      name->length = entry.left;
      return 1;
    }
  }
  return 0;
}

static int read_hello(struct reader hello, struct span *name) {
  struct reader extensions;

  number(&hello, 2); /* version */
  if (hello.left < 32)
    return 0;
  hello.at += 32; /* random */
  hello.left -= 32;
  part(&hello, 1); /* session */
  part(&hello, 2); /* ciphers */
  part(&hello, 1); /* compression */
  extensions = part(&hello, 2);
  while (extensions.left > 0) {
    size_t kind = number(&extensions, 2);
    struct reader extension = part(&extensions, 2);

    if (kind == 0)
      return read_names(extension, name);
  }
  return 0;
}

int relay__lua_peek_sni(const void *bytes, size_t count, struct span *name) {
  const unsigned char *b = bytes;
  size_t length;

  if (count >= 1 && b[0] != 22)
    return 0; /* no handshake record */
  if (count >= 2 && b[1] != 3)
    return 0;
  if (count >= 6 && b[5] != 1)
    return 0; /* no client hello */
  if (count < 9)
    return -9;
  length = (size_t)b[6] << 16 | (size_t)b[7] << 8 | b[8];
  /* A hello that is spread over records is not put together here. */
  if (length + 4 > ((size_t)b[3] << 8 | b[4]))
    return 0;
  if (count < length + 9)
    return -(int)(length + 9);
  return read_hello((struct reader){b + 9, length}, name);
}

/* ---- HTTP ------------------------------------------------------------- */

static const char *find_line_end(const char *at, const char *end) {
  return memchr(at, '\n', (size_t)(end - at));
}

/* Upper-case letters and a space, as far as it is there. */
static bool is_request(const char *text, size_t count) {
  size_t i;

  for (i = 0; i < count && i < 16; i++)
    if (text[i] == ' ' && i > 0)
      return true;
    else if (text[i] < 'A' || text[i] > 'Z')
      return false;
  return count < 16;
}

static size_t length_to(const char *text, size_t length, char stop) {
  const char *found = memchr(text, stop, length);

  return found != NULL ? (size_t)(found - text) : length;
}

int relay__lua_peek_host(const void *bytes, size_t count, struct span *host) {
  const char *at = bytes, *end = at + count, *line_end;
  size_t length;

  if (!is_request(at, count))
    return 0;
  line_end = find_line_end(at, end);
  while (line_end != NULL) {
    at = line_end + 1;
    line_end = find_line_end(at, end);
    if (line_end == NULL)
      break;
    length = (size_t)(line_end - at);
    if (length == 0 || (length == 1 && *at == '\r'))
      return 0; /* the headers are over */
    if (length < 5 || strncasecmp(at, "host:", 5) != 0)
      continue;
    at += 5;
    while (at < line_end && (*at == ' ' || *at == '\t'))
      at++;
    while (line_end > at && (line_end[-1] == '\r' || line_end[-1] == ' '))
      line_end--;
    host->text = at;
    host->length = (size_t)(line_end - at);
    if (*at == '[')
      host->length = length_to(at, host->length, ']') + 1;
    else
      host->length = length_to(at, host->length, ':');
    return host->length > 0 && host->length <= (size_t)(line_end - at);
  }
  return -(int)(count + 1);
}

/* ---- SSH -------------------------------------------------------------- */

int relay__lua_peek_ssh(const void *bytes, size_t count, struct span *banner) {
  static const char prefix[] = "SSH-2.0-";
  const char *text = bytes, *line_end;
  size_t size = sizeof(prefix) - 1;

  if (memcmp(text, prefix, count < size ? count : size) != 0)
    return 0;
  line_end = find_line_end(text, text + count);
  if (line_end == NULL)
    return count < 255 ? -(int)(count + 1) : 0;
  if (line_end > text + size && line_end[-1] == '\r')
    line_end--;
  banner->text = text + size;
  banner->length = (size_t)(line_end - banner->text);
  return banner->length > 0;
}
