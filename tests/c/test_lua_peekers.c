/* SPDX-License-Identifier: MIT */
/*
 * What policies ask of first bytes, on buffers that end where the bytes do: a
 * byte read beyond is seen by the sanitizers.
 */
#include "peekers.h"

#include <stdlib.h>

#include "check.h"

typedef int (*peek_fn)(const void *bytes, size_t count, struct span *found);

static const peek_fn peeks[] = {relay__lua_peek_sni, relay__lua_peek_host,
                                relay__lua_peek_ssh};

/* In a block of exactly that size. What is found lies within it. */
static int peek(peek_fn call, const char *bytes, size_t count) {
  char *block = malloc(count + (count == 0));
  struct span found = {NULL, 0};
  int status;

  memcpy(block, bytes, count);
  status = call(block, count, &found);
  if (status > 0)
    CHECK(found.length > 0 && found.text >= block &&
          found.text + found.length <= block + count);
  if (status < 0)
    CHECK((size_t)-status > count);
  free(block);
  return status;
}

static const char hello[] = "\x16\x03\x01\x00\x44\x01\x00\x00\x40\x03\x03"
                            "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr"
                            "\x00\x00\x02\x13\x01\x01\x00\x00\x15"
                            "\x00\x00\x00\x0c\x00\x0a\x00\x00\x07"
                            "a.b.org"
                            "\x00\x17\x00\x01\x00";
static const char request[] = "GET / HTTP/1.1\r\nAccept: *\r\nHost: a.b:80\r\n"
                              "\r\n";
static const char banner[] = "SSH-2.0-OpenSSH_9.2p1\r\n";

TEST(finds_what_is_there) {
  CHECK(peek(peeks[0], hello, sizeof(hello) - 1) > 0);
  CHECK(peek(peeks[1], request, sizeof(request) - 1) > 0);
  CHECK(peek(peeks[2], banner, sizeof(banner) - 1) > 0);
}

TEST(asks_for_more_at_each_cut) {
  for (size_t i = 0; i < sizeof(hello) - 1; i++)
    CHECK(peek(peeks[0], hello, i) < 0);
  for (size_t i = 0; i < sizeof(request) - 5; i++)
    CHECK(peek(peeks[1], request, i) < 0);
  for (size_t i = 0; i < sizeof(banner) - 2; i++)
    CHECK(peek(peeks[2], banner, i) < 0);
}

TEST(never_looks_beyond) {
  static const struct {
    const char *text;
    size_t size;
  } seeds[] = {{hello, sizeof(hello) - 1},
               {request, sizeof(request) - 1},
               {banner, sizeof(banner) - 1}};
  char copy[256];
  unsigned random = 1;

  for (size_t s = 0; s < 3; s++)
    for (size_t i = 0; i < seeds[s].size * 2000; i++) {
      size_t size = seeds[s].size;

      memcpy(copy, seeds[s].text, size);
      for (int changes = 0; changes < 3; changes++) {
        random = random * 1103515245 + 12345;
        copy[(random >> 8) % size] = (char)(random >> 16);
      }
      random = random * 1103515245 + 12345;
      if (random >> 31)
        size = (random >> 8) % (size + 1);
      for (size_t p = 0; p < 3; p++)
        peek(peeks[p], copy, size);
    }
}

int main(void) {
  RUN(finds_what_is_there);
  RUN(asks_for_more_at_each_cut);
  RUN(never_looks_beyond);
  return check_report();
}
