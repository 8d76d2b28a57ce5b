/* SPDX-License-Identifier: MIT */
/*
 * The client's end of TLS, as bytes: what it says is returned and what it hears
 * is given, so that a test may send it in pieces, twice, somewhere else, or not
 * at all. Many can be made in little time.
 */
#include "sys.h"

#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <string.h>

#define SYS_TLS "sys.tls"
#define KEY_SIZE 32

struct client {
  SSL *ssl;
  BIO *heard;
  BIO *said;
  unsigned char key[KEY_SIZE];
  char identity[256]; /* "": it offers no key */
};

static struct client *check_client(lua_State *L) {
  return luaL_checkudata(L, 1, SYS_TLS);
}

/* ---- the key --------------------------------------------------------------
 */

static int use_session(SSL *ssl, const EVP_MD *digest,
                       const unsigned char **identity, size_t *length,
                       SSL_SESSION **session) {
  static const unsigned char suite[] = {0x13, 0x01};
  struct client *client = SSL_get_app_data(ssl);

  (void)digest;
  *session = NULL;
  if (client->identity[0] == '\0')
    return 1;
  *session = SSL_SESSION_new();
  SSL_SESSION_set1_master_key(*session, client->key, KEY_SIZE);
  SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, suite));
  SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION);
  *identity = (const unsigned char *)client->identity;
  *length = strlen(client->identity);
  return 1;
}

/* One for all of them, as long as the process lives. */
static SSL_CTX *context(lua_State *L) {
  static SSL_CTX *ctx;

  if (ctx == NULL) {
    ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL)
      luaL_error(L, "no TLS context");
    SSL_CTX_set_psk_use_session_callback(ctx, use_session);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  }
  return ctx;
}

/* ---- a client -------------------------------------------------------------
 */

static void set_up(lua_State *L, struct client *client) {
  const char *version = sys_field_string(L, 1, "version");
  const char *group = sys_field_string(L, 1, "group");
  const char *name = sys_field_string(L, 1, "name");
  int number = version != NULL && strcmp(version, "1.2") == 0 ? TLS1_2_VERSION
                                                              : TLS1_3_VERSION;

  SSL_set_app_data(client->ssl, client);
  SSL_set_min_proto_version(client->ssl, number);
  SSL_set_max_proto_version(client->ssl, number);
  SSL_set_ciphersuites(client->ssl, "TLS_AES_128_GCM_SHA256");
  if (SSL_set1_groups_list(client->ssl, group != NULL ? group : "X25519") != 1)
    luaL_error(L, "no such group");
  if (name != NULL)
    SSL_set_tlsext_host_name(client->ssl, name);
  client->heard = BIO_new(BIO_s_mem());
  client->said = BIO_new(BIO_s_mem());
  BIO_set_mem_eof_return(client->heard, -1);
  SSL_set_bio(client->ssl, client->heard, client->said);
  SSL_set_connect_state(client->ssl);
}

/* tls{identity=, key=32 BYTES, version="1.2" | "1.3", group=, name=}: a client
   that has said nothing yet. Without an identity it offers no key. */
static int new_client(lua_State *L) {
  const char *identity, *key;
  struct client *client;

  luaL_checktype(L, 1, LUA_TTABLE);
  identity = sys_field_string(L, 1, "identity");
  key = sys_field_string(L, 1, "key");
  client = lua_newuserdatauv(L, sizeof *client, 0);
  memset(client, 0, sizeof *client);
  luaL_setmetatable(L, SYS_TLS);
  if (identity != NULL) {
    luaL_argcheck(L, strlen(identity) < sizeof client->identity, 1,
                  "the identity is too long");
    memcpy(client->identity, identity, strlen(identity) + 1);
    lua_getfield(L, 1, "key");
    luaL_argcheck(L, key != NULL && lua_rawlen(L, -1) == KEY_SIZE, 1,
                  "a key is 32 bytes");
    memcpy(client->key, key, KEY_SIZE);
    lua_pop(L, 1);
  }
  client->ssl = SSL_new(context(L));
  if (client->ssl == NULL)
    return luaL_error(L, "no TLS client");
  set_up(L, client);
  return 1;
}

static void push_said(lua_State *L, struct client *client) {
  char *bytes;
  long count = BIO_get_mem_data(client->said, &bytes);

  lua_pushlstring(L, bytes, (size_t)count);
  (void)BIO_reset(client->said);
}

static void hear(lua_State *L, struct client *client, int arg) {
  size_t count = 0;
  const char *bytes = luaL_optlstring(L, arg, "", &count);

  if (count > 0)
    BIO_write(client->heard, bytes, (int)count);
  ERR_clear_error();
}

/* client:shake([BYTES]): hears them; what it says to that, and "open",
   "shaking", or why it failed. */
static int shake(lua_State *L) {
  struct client *client = check_client(L);
  int status;

  hear(L, client, 2);
  status = SSL_do_handshake(client->ssl);
  push_said(L, client);
  if (status == 1)
    lua_pushliteral(L, "open");
  else if (SSL_get_error(client->ssl, status) == SSL_ERROR_WANT_READ)
    lua_pushliteral(L, "shaking");
  else
    lua_pushstring(L, ERR_reason_error_string(ERR_peek_error()));
  ERR_clear_error();
  return 2;
}

/* client:read([BYTES]): hears them; the text in it, "" for none; nil and "eof"
   after close_notify, or nil and why it failed. */
static int read_text(lua_State *L) {
  struct client *client = check_client(L);
  luaL_Buffer buffer;
  int count, error;

  hear(L, client, 2);
  luaL_buffinit(L, &buffer);
  do {
    char *room = luaL_prepbuffsize(&buffer, 16384);
    count = SSL_read(client->ssl, room, 16384);
    luaL_addsize(&buffer, count > 0 ? (size_t)count : 0);
  } while (count > 0);
  error = SSL_get_error(client->ssl, count);
  luaL_pushresult(&buffer);
  if (error == SSL_ERROR_WANT_READ || lua_rawlen(L, -1) > 0)
    return 1;
  lua_pushnil(L);
  if (error == SSL_ERROR_ZERO_RETURN)
    lua_pushliteral(L, "eof");
  else
    lua_pushstring(L, ERR_reason_error_string(ERR_peek_error()));
  ERR_clear_error();
  return 2;
}

/* client:write(TEXT): the records that hold it. */
static int write_text(lua_State *L) {
  struct client *client = check_client(L);
  size_t count;
  const char *text = luaL_checklstring(L, 2, &count);

  ERR_clear_error();
  if (SSL_write(client->ssl, text, (int)count) != (int)count)
    return luaL_error(L, "it is not open");
  push_said(L, client);
  return 1;
}

/* client:finish(): its close_notify. */
static int finish(lua_State *L) {
  struct client *client = check_client(L);

  SSL_shutdown(client->ssl);
  push_said(L, client);
  return 1;
}

/* client:update(): has it change its keys, and ask the other end to. */
static int update(lua_State *L) {
  struct client *client = check_client(L);

  if (SSL_key_update(client->ssl, SSL_KEY_UPDATE_REQUESTED) != 1)
    return luaL_error(L, "it is not open");
  SSL_do_handshake(client->ssl);
  push_said(L, client);
  return 1;
}

/* client:export(LABEL): 32 bytes that only the two ends have. */
static int export(lua_State *L) {
  struct client *client = check_client(L);
  size_t length;
  const char *label = luaL_checklstring(L, 2, &length);
  unsigned char key[KEY_SIZE];

  if (SSL_export_keying_material(client->ssl, key, sizeof key, label, length,
                                 NULL, 0, 0) != 1)
    return luaL_error(L, "it is not open");
  lua_pushlstring(L, (const char *)key, sizeof key);
  return 1;
}

static int collect(lua_State *L) {
  struct client *client = check_client(L);

  SSL_free(client->ssl);
  client->ssl = NULL;
  return 0;
}

/* hmac(KEY, TEXT): SHA-256, 32 bytes. */
static int hmac(lua_State *L) {
  size_t key_size, size;
  const char *key = luaL_checklstring(L, 1, &key_size);
  const char *text = luaL_checklstring(L, 2, &size);
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned length = 0;

  HMAC(EVP_sha256(), key, (int)key_size, (const unsigned char *)text, size, mac,
       &length);
  lua_pushlstring(L, (const char *)mac, length);
  return 1;
}

static const luaL_Reg methods[] = {{"shake", shake},      {"read", read_text},
                                   {"write", write_text}, {"finish", finish},
                                   {"update", update},    {"export", export},
                                   {"__gc", collect},     {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"tls", new_client}, {"hmac", hmac}, {NULL, NULL}};

void sys_open_tls(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, SYS_TLS);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
