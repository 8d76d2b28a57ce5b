/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a PROXY header: it is whole only once, at its own length, and
 * no beginning of it is ever an error. A broken promise aborts.
 */
#include "wire/proxy.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define PROMISE(cond)                                                          \
  do {                                                                         \
    if (!(cond)) {                                                             \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);       \
      abort();                                                                 \
    }                                                                          \
  } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
  struct proxy_header header;
  int length = relay__proxy_parse(bytes, count, &header);
  size_t part;

  PROMISE(length <= (int)count && length <= PROXY_HEADER_MAX);
  if (length == 0)
    PROMISE(count < PROXY_HEADER_MAX);
  for (part = 0; length > 0 && part < (size_t)length; part++)
    PROMISE(relay__proxy_parse(bytes, part, &header) == 0);
  if (length > 0)
    PROMISE(relay__proxy_parse(bytes, (size_t)length, &header) == length);
  return 0;
}
