/* SPDX-License-Identifier: MIT */
/*
 * See registry.h. The one place that knows of the hash table.
 */
#include "relay/registry.h"

#include <string.h>
#include <uv.h>

int relay__registry_add(struct registry *registry, struct entry *entry,
                        enum entry_kind kind, uint64_t id) {
  memset(entry, 0, sizeof(*entry));
  entry->key.id = id;
  entry->key.kind = kind;
  HASH_ADD(hh, registry->entries, key, sizeof(entry->key), entry);
  entry->listed = !entry->failed;
  return entry->failed ? UV_ENOMEM : 0;
}

void relay__registry_remove(struct registry *registry, struct entry *entry) {
  if (!entry->listed)
    return;
  HASH_DELETE(hh, registry->entries, entry);
  entry->listed = false;
}

struct entry *relay__registry_find(struct registry *registry,
                                   enum entry_kind kind, uint64_t id) {
  struct entry_key key = {id, kind};
  struct entry *entry;

  HASH_FIND(hh, registry->entries, &key, sizeof(key), entry);
  return entry;
}

int relay__id_make(char *id) {
  static const char digits[] = "0123456789abcdef";
  unsigned char random[WIRE_ID_LENGTH / 2];
  int err = uv_random(NULL, NULL, random, sizeof(random), 0, NULL);
  size_t i;

  if (err != 0)
    return err;
  for (i = 0; i < sizeof(random); i++) {
    id[2 * i] = digits[random[i] >> 4];
    id[2 * i + 1] = digits[random[i] & 15];
  }
  id[WIRE_ID_LENGTH] = '\0';
  return 0;
}

uint64_t relay__id_key(const char *id) {
  uint64_t key = 0;
  size_t i;

  for (i = 0; i < 16 && id[i] != '\0'; i++)
    key = key << 4 |
          (uint64_t)(id[i] <= '9' ? id[i] - '0' : (id[i] | 32) - 'a' + 10);
  return key;
}

bool relay__id_equals(const char *id, const char *other) {
  unsigned char difference = 0;
  size_t i;

  if (id == NULL || other == NULL || strlen(id) != strlen(other))
    return false;
  for (i = 0; id[i] != '\0'; i++)
    difference |= (unsigned char)(id[i] ^ other[i]);
  return difference == 0;
}
