/* SPDX-License-Identifier: MIT */
/*
 * The credentials that `auth` is shown: what the agent says it is, and a way
 * to have it prove that before the hook goes on. A key that it cannot prove
 * ends the hook where it waits.
 */
#include <string.h>

#include "private.h"

static int digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_hex(const char *text, unsigned char *key) {
  size_t i;

  for (i = 0; i < RELAY_KEY_SIZE; i++) {
    int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

    if (high < 0 || low < 0)
      return false;
    key[i] = (unsigned char)(high << 4 | low);
  }
  return true;
}

/* Bytes, or as the tokens file has them. */
static void read_key(lua_State *L, int index, unsigned char *key) {
  size_t length;
  const char *text = luaL_checklstring(L, index, &length);

  if (length == RELAY_KEY_SIZE)
    memcpy(key, text, length);
  else
    luaL_argcheck(L, length == 2 * RELAY_KEY_SIZE && read_hex(text, key), index,
                  "a key is 32 bytes, or 64 hexadecimal digits");
}

/* ---- proof ------------------------------------------------------------ */

static void on_proof_end(void *wait, bool killed) {
  (void)wait;
  (void)killed;
}

static int after_proof(lua_State *L, int status, lua_KContext context) {
  (void)status;
  (void)context;
  lua_pushboolean(L, 1);
  return 1;
}

void relay__lua_proven(struct task *task) {
  if (task != NULL && task->busy && task->on_wait_end == on_proof_end)
    relay__lua_task_soon(task); /* not within the core's call */
}

/* (cred, key) Upvalue 1: the number of the question. */
static int cred_verify(lua_State *L) {
  uint64_t call = (uint64_t)lua_tointeger(L, lua_upvalueindex(1));
  unsigned char key[RELAY_KEY_SIZE];
  struct task *task;
  int err;

  task = relay__lua_wait_begin(L, "cred:verify");
  if (task->call != call)
    return luaL_error(L, "cred:verify is for the hook that was given it");
  read_key(L, 2, key);
  err = relay_verify(task->policy->lua->relay, call, key, sizeof(key));
  memset(key, 0, sizeof(key));
  if (err != 0)
    return luaL_error(L, "cred:verify: %s",
                      err == UV_EALREADY ? "a key was given before"
                                         : relay_strerror(err));
  task->on_wait_end = on_proof_end;
  task->wait = task;
  return relay__lua_wait(L, 0, after_proof);
}

/* Upvalue 1: whether the core would let it in. */
static int cred_known(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  return 1;
}

static void set_text(lua_State *L, const char *name, const char *text) {
  if (text == NULL)
    return;
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

static const char *name_kind(relay_credential_kind kind) {
  if (kind == RELAY_CREDENTIAL_NONE)
    return NULL;
  return kind == RELAY_CREDENTIAL_TOKEN ? "token" : "certificate";
}

void relay__lua_push_cred(lua_State *L, const struct event *event) {
  const relay_credentials *cred = &event->cred;

  lua_createtable(L, 0, 6);
  set_text(L, "id", cred->id);
  set_text(L, "kind", name_kind(cred->kind));
  set_text(L, "certificate", cred->certificate);
  set_text(L, "fingerprint", cred->fingerprint);
  lua_pushinteger(L, (lua_Integer)event->call);
  lua_pushcclosure(L, cred_verify, 1);
  lua_setfield(L, -2, "verify");
  lua_pushboolean(L, cred->known);
  lua_pushcclosure(L, cred_known, 1);
  lua_setfield(L, -2, "known");
}
