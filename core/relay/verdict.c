/* SPDX-License-Identifier: MIT */
/* Verdicts whose texts and key are their own: the policy's end with its call.
 */
#include <string.h>

#include "relay/private.h"

static void copy_text(char *to, size_t size, const char *from) {
  size_t length = strlen(from);

  if (length >= size)
    length = size - 1;
  memcpy(to, from, length);
  to[length] = '\0';
}

void relay__verdict_init(struct verdict *verdict) {
  memset(verdict, 0, sizeof(*verdict));
  verdict->given.size = sizeof(verdict->given);
}

void relay__verdict_own(struct verdict *verdict) {
  relay_verdict *given = &verdict->given;

  if (given->reason != NULL && given->reason != verdict->reason) {
    copy_text(verdict->reason, sizeof(verdict->reason), given->reason);
    given->reason = verdict->reason;
  }
  if (given->name != NULL && given->name != verdict->name) {
    copy_text(verdict->name, sizeof(verdict->name), given->name);
    given->name = verdict->name;
  }
  if (given->host != NULL && given->host != verdict->host) {
    copy_text(verdict->host, sizeof(verdict->host), given->host);
    given->host = verdict->host;
  }
  if (given->key != NULL && given->key_size != sizeof(verdict->key)) {
    given->key = NULL; /* its size tells that there was one */
  } else if (given->key != NULL && given->key != verdict->key) {
    memcpy(verdict->key, given->key, sizeof(verdict->key));
    given->key = verdict->key;
  }
}

void relay__verdict_wipe(struct verdict *verdict) {
  relay__secret_wipe(verdict->key, sizeof(verdict->key));
  verdict->given.key = NULL;
}

void relay__verdict_move(struct verdict *to, const struct verdict *from) {
  *to = *from;
  to->given.reason = from->given.reason != NULL ? to->reason : NULL;
  to->given.name = from->given.name != NULL ? to->name : NULL;
  to->given.host = from->given.host != NULL ? to->host : NULL;
  if (from->given.key == from->key)
    to->given.key = to->key;
}

void relay__verdict_deny(struct verdict *verdict, const char *reason) {
  relay__verdict_init(verdict);
  verdict->given.answer = RELAY_DENY;
  copy_text(verdict->reason, sizeof(verdict->reason), reason);
  verdict->given.reason = verdict->reason;
}
