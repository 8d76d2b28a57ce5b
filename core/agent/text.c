/* SPDX-License-Identifier: MIT */
/*
 * What a relay says, made fit for terminals, logs and scripts: it is a
 * stranger, and its words go to all three. And the relay's own name.
 */
#include <stdio.h>
#include <string.h>

#include "agent/private.h"

void relay__text_sanitize(char *out, size_t size, const char *text) {
  const char *in = text;
  size_t used = 0;

  while (*in != '\0') {
    size_t length = relay__log_shown(in);
    size_t step = length != 0 ? length : 1;

    if (used + step >= size)
      break;
    if (length != 0)
      memcpy(out + used, in, length);
    else
      out[used] = '?';
    used += step;
    in += step;
  }
  out[used] = '\0';
}

void relay__text_relay(const struct relay_agent *agent, char *text,
                       size_t size) {
  const char *host = agent->options.host;

  snprintf(text, size, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host,
           agent->options.port);
}
