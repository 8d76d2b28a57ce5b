/* SPDX-License-Identifier: MIT */
/*
 * Asking policy: what is asked, and what comes back. See private.h.
 */
#ifndef RELAY_POLICY_H
#define RELAY_POLICY_H

#include "relay/private.h"

/* A verdict whose texts are its own. */
struct verdict {
  relay_verdict given;
  uint8_t key[SECRET_SIZE];
  char reason[256];
  char name[NAME_MAX_LENGTH + 1];
  char host[HOST_MAX_LENGTH + 1];
};

/* A hook that is being called right now; they nest. */
struct asking {
  struct asking *outer;
  uint64_t call;
  bool settled;
  bool of_proof; /* so relay_verify may give a key */
  bool keyed;
  uint8_t key[SECRET_SIZE];
  struct verdict verdict;
};

/* A question to the policy that may be settled later. */
struct question {
  uint64_t call;
  struct entry entry; /* listed while it is open */
};

/* ---- verdict.c -------------------------------------------------------- */
/* ALLOW, and nothing beside it. */
void relay__verdict_init(struct verdict *verdict);
void relay__verdict_deny(struct verdict *verdict, const char *reason);
/* What it points to is copied into it. */
void relay__verdict_own(struct verdict *verdict);
/* Its key is gone from memory. */
void relay__verdict_wipe(struct verdict *verdict);
/* The same verdict in another place. */
void relay__verdict_move(struct verdict *to, const struct verdict *from);

/* ---- policy.c --------------------------------------------------------- */
/* Each asks its hook; true: `verdict` is decided; false: it was deferred, and
   the owner's *_decide will be called, or its deadline expires. */
bool relay__ask_auth(struct session *session, struct verdict *verdict);
/* The same of one that has an id. `keyed`: relay_verify was called meanwhile,
   with this `key`, whatever the answer. */
bool relay__ask_proof(struct proof *proof, struct verdict *verdict, bool *keyed,
                      uint8_t key[SECRET_SIZE]);
bool relay__ask_allocate(struct session *session, struct verdict *verdict);
bool relay__ask_visitor(struct visitor *visitor, struct verdict *verdict);
bool relay__ask_peek(struct visitor *visitor, const void *bytes, size_t count,
                     bool eof, struct verdict *verdict);
/* The subject has died, or the deadline passed: tells cancel. Idempotent. */
void relay__question_drop(struct relay *relay, struct question *question);
void relay__tell_open(struct visitor *visitor);
void relay__tell_close(struct visitor *visitor);
void relay__tell_agent_gone(struct relay *relay, const relay_agent_info *agent,
                            int reason);
void relay__tell_proven(struct relay *relay, uint64_t call);
int relay__policy_init(struct relay *relay);
void relay__policy_log(void *data, const relay_log_record *record);

#endif
