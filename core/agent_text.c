/* SPDX-License-Identifier: MIT */
/*
 * What a relay says, made fit for terminals, logs and scripts: it is a
 * stranger, and its words go to all three. And the relay's own name.
 */
#include <stdio.h>
#include <string.h>

#include "agent_private.h"

/* Length of the UTF-8 sequence at `text`, if it is one, and no C1 control. */
static size_t utf8_length(const unsigned char *text) {
  size_t length = *text >= 0xf0 ? 4 : *text >= 0xe0 ? 3 : 2;

  if (*text < 0xc2 || *text > 0xf4 || (*text == 0xc2 && text[1] < 0xa0))
    return 0;
  for (size_t i = 1; i < length; i++)
    if ((text[i] & 0xc0) != 0x80)
      return 0;
  return length;
}

void relay__text_sanitize(char *out, size_t size, const char *text) {
  const unsigned char *in = (const unsigned char *)text;
  size_t used = 0;

  while (*in != '\0') {
    size_t length = *in >= 0x20 && *in < 0x7f ? 1 : utf8_length(in);
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

bool relay__text_is_host(const char *host) {
  if (*host == '\0' || strlen(host) >= NI_MAXHOST)
    return false;
  for (; *host != '\0'; host++)
    if ((unsigned char)*host <= 0x20 || (unsigned char)*host >= 0x7f)
      return false;
  return true;
}

void relay__text_relay(const struct relay_agent *agent, char *text,
                       size_t size) {
  const char *host = agent->options.host;

  snprintf(text, size, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host,
           agent->options.port);
}
