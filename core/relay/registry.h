/* SPDX-License-Identifier: MIT */
/*
 * Finding what an id stands for. An entry is embedded in the object it names;
 * keys are small counters, or the first 64 of an id's 128 random bits, which
 * the caller then compares in full.
 */
#ifndef RELAY_REGISTRY_H
#define RELAY_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(entry) ((entry)->failed = true)
#include <uthash.h>

enum entry_kind {
  ENTRY_CONN,       /* a visitor, by number */
  ENTRY_AGENT,      /* a session, by number */
  ENTRY_PROVING,    /* a handshake that is to be one, by that number */
  ENTRY_VISITOR_ID, /* an unjoined visitor, by wire id */
  ENTRY_SESSION_ID, /* a session, by wire id */
  ENTRY_CONN_CALL,  /* a visitor whose policy question is open */
  ENTRY_AGENT_CALL, /* a session whose policy question is open */
  ENTRY_PROOF_CALL  /* a handshake whose policy question is open */
};

struct entry {
  struct entry_key {
    uint64_t id;
    uint64_t kind;
  } key;
  bool listed;
  bool failed;
  UT_hash_handle hh;
};

struct registry {
  struct entry *entries;
};

/* 0 or UV_ENOMEM. */
int relay__registry_add(struct registry *registry, struct entry *entry,
                        enum entry_kind kind, uint64_t id);
/* Harmless for what is not there. */
void relay__registry_remove(struct registry *registry, struct entry *entry);
struct entry *relay__registry_find(struct registry *registry,
                                   enum entry_kind kind, uint64_t id);

/* Ids on the wire: 128 random bits as 32 hexadecimal digits. */
#define WIRE_ID_LENGTH 32

/* Fills id[WIRE_ID_LENGTH + 1]. 0, or a negative libuv code. */
int relay__id_make(char *id);
/* The key an id is found by; any text is safe. */
uint64_t relay__id_key(const char *id);
/* Compares in constant time; NULL equals nothing. */
bool relay__id_equals(const char *id, const char *other);

#endif
