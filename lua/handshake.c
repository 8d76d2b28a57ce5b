/* SPDX-License-Identifier: MIT */
/*
 * Beginning TLS, as a client. The peer's certificate is verified, against the
 * host that was asked for, unless the script says otherwise. What the files of
 * a certificate authority say is read once for a policy.
 */
#include "tls.h"

#ifdef RELAY_WITH_TLS
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "tcp:starttls"
#define CONTEXTS_MAX 16
#define ALPN_MAX 255

struct options {
  const char *host;
  bool verify;
  const char *cafile;
  const char *capath;
  const char *certificate;
  const char *key;
  unsigned char alpn[ALPN_MAX];
  unsigned alpn_size;
};

/* ---- options ---------------------------------------------------------- */

static const char *string_at(lua_State *L, int index, const char *name) {
  if (lua_getfield(L, index, name) != LUA_TNIL && !lua_isstring(L, -1))
    luaL_error(L, WHAT ": '%s' must be a string", name);
  if (lua_isstring(L, -1) && strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1))
    luaL_error(L, WHAT ": '%s' holds a zero byte", name);
  return lua_tostring(L, -1); /* kept by the table */
}

/* Anything but false and LuaSec's "none" means that it is to be verified. */
static bool verify_at(lua_State *L, int index) {
  if (lua_getfield(L, index, "verify") == LUA_TBOOLEAN)
    return lua_toboolean(L, -1);
  return lua_type(L, -1) != LUA_TSTRING ||
         strcmp(lua_tostring(L, -1), "none") != 0;
}

static void add_protocol(lua_State *L, struct options *options) {
  size_t size;
  const char *name = lua_tolstring(L, -1, &size);

  if (name == NULL || size == 0 || options->alpn_size + 1 + size > ALPN_MAX) {
    luaL_error(L, WHAT ": 'alpn' must be a short name, or a list of them");
    return;
  }
  options->alpn[options->alpn_size++] = (unsigned char)size;
  memcpy(options->alpn + options->alpn_size, name, size);
  options->alpn_size += (unsigned)size;
}

static void read_alpn(lua_State *L, int index, struct options *options) {
  lua_Integer i;

  if (lua_getfield(L, index, "alpn") == LUA_TNIL)
    return;
  if (!lua_istable(L, -1)) {
    add_protocol(L, options);
    return;
  }
  for (i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
    add_protocol(L, options);
    lua_pop(L, 1);
  }
}

static void check_keys(lua_State *L, int index) {
  static const char *const keys[] = {
      "host", "verify", "cafile", "capath", "certificate", "key", "alpn", NULL};
  const char *key;
  int i;

  lua_pushnil(L);
  while (lua_next(L, index) != 0) {
    key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    for (i = 0; keys[i] != NULL && strcmp(keys[i], key) != 0; i++)
      ;
    if (keys[i] == NULL)
      relay__lua_unknown(L, WHAT ": unknown option", key, keys);
    lua_pop(L, 1);
  }
}

static void read_options(lua_State *L, int index, struct options *options) {
  memset(options, 0, sizeof(*options));
  luaL_checkstack(L, 16, NULL);
  check_keys(L, index);
  options->cafile = string_at(L, index, "cafile");
  options->capath = string_at(L, index, "capath");
  options->certificate = string_at(L, index, "certificate");
  options->key = string_at(L, index, "key");
  options->verify = verify_at(L, index);
  read_alpn(L, index, options);
  options->host = string_at(L, index, "host");
  if (options->host == NULL) {
    lua_getiuservalue(L, 1, USER_HOST);
    options->host = lua_tostring(L, -1);
  }
  if (options->verify && options->host == NULL)
    luaL_error(L, WHAT ": to verify the peer, 'host' must be given");
}

/* ---- contexts --------------------------------------------------------- */

struct tls_context {
  struct tls_context *next;
  SSL_CTX *ssl;
  char key[];
};

/* Nobody is asked for the password of a key. */
static int no_password(char *buffer, int size, int writes, void *data) {
  (void)buffer;
  (void)size;
  (void)writes;
  (void)data;
  return -1;
}

static const char *load(SSL_CTX *ssl, const struct options *options) {
  if (options->cafile != NULL || options->capath != NULL) {
    if (SSL_CTX_load_verify_locations(ssl, options->cafile, options->capath) !=
        1)
      return options->cafile != NULL ? options->cafile : options->capath;
  } else {
    SSL_CTX_set_default_verify_paths(ssl);
  }
  if (options->certificate != NULL &&
      SSL_CTX_use_certificate_chain_file(ssl, options->certificate) != 1)
    return options->certificate;
  if (options->key != NULL &&
      SSL_CTX_use_PrivateKey_file(ssl, options->key, SSL_FILETYPE_PEM) != 1)
    return options->key;
  return NULL;
}

static void set_up(SSL_CTX *ssl, const struct options *options) {
  SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION);
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_default_passwd_cb(ssl, no_password);
  SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_verify(ssl, options->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE,
                     NULL);
}

static void free_context(struct tls_context *context) {
  SSL_CTX_free(context->ssl);
  free(context);
}

void relay__lua_tls_close(struct policy *policy) {
  while (policy->tls_contexts != NULL) {
    struct tls_context *context = policy->tls_contexts;

    policy->tls_contexts = context->next;
    free_context(context);
  }
}

/* The oldest go first. */
static void keep_context(struct policy *policy, struct tls_context *context) {
  struct tls_context **at = &policy->tls_contexts;
  int count = 1;

  context->next = *at;
  *at = context;
  for (at = &context->next; *at != NULL && ++count <= CONTEXTS_MAX;)
    at = &(*at)->next;
  if (*at != NULL) {
    free_context(*at);
    *at = NULL;
  }
}

static struct tls_context *make_context(const char *key, size_t size) {
  struct tls_context *context = malloc(sizeof(*context) + size + 1);

  if (context == NULL)
    return NULL;
  memcpy(context->key, key, size + 1);
  context->ssl = SSL_CTX_new(TLS_client_method());
  if (context->ssl == NULL) {
    free(context);
    return NULL;
  }
  return context;
}

/* Or NULL, and why is on top. */
static SSL_CTX *find_context(lua_State *L, const struct options *options) {
  struct policy *policy = relay__lua_policy_of(L);
  const char *key =
      lua_pushfstring(L, "%d\n%s\n%s\n%s\n%s", options->verify, options->cafile,
                      options->capath, options->certificate, options->key);
  struct tls_context *context = policy->tls_contexts;
  const char *wrong;

  while (context != NULL && strcmp(context->key, key) != 0)
    context = context->next;
  if (context != NULL)
    return context->ssl;
  ERR_clear_error();
  context = make_context(key, strlen(key));
  if (context == NULL) {
    lua_pushliteral(L, "not enough memory");
    return NULL;
  }
  wrong = load(context->ssl, options);
  if (wrong != NULL) {
    SSL_CTX_free(context->ssl);
    free(context);
    lua_pushfstring(L, "cannot use '%s': %s", wrong, relay__lua_tls_reason());
    return NULL;
  }
  set_up(context->ssl, options);
  keep_context(policy, context);
  return context->ssl;
}

/* ---- the handshake ---------------------------------------------------- */

static int fail(lua_State *L, struct socket *s, int outcome) {
  relay__lua_socket_fail(L, s, outcome);
  relay__lua_socket_close(s);
  return 2;
}

/* What connect and starttls return. */
static int succeed(lua_State *L, const struct socket *s) {
  const unsigned char *name;
  unsigned size;

  if (lua_getiuservalue(L, 1, USER_TLS) == LUA_TTABLE) {
    lua_pushnumber(L, 1);
    return 1;
  }
  lua_pushboolean(L, 1);
  SSL_get0_alpn_selected(s->tls->ssl, &name, &size);
  if (size == 0)
    return 1;
  lua_pushlstring(L, (const char *)name, size);
  return 2;
}

static int handshake_step(lua_State *L, int status, lua_KContext context) {
  struct socket *s = lua_touserdata(L, 1);
  int outcome = IO_CLOSED;

  (void)status;
  if (relay__lua_socket_is_another(s, context))
    return relay__lua_socket_fail(L, s, IO_CLOSED);
  if (s->fd >= 0 && s->tls != NULL) {
    ERR_clear_error();
    errno = 0;
    outcome = relay__lua_tls_outcome(s->tls, SSL_do_handshake(s->tls->ssl));
  }
  if (outcome == IO_DONE)
    return succeed(L, s);
  if (outcome == IO_READ || outcome == IO_WRITE) {
    if (!relay__lua_socket_is_late(s, SIDE_WRITE))
      return relay__lua_socket_wait(L, s, SIDE_WRITE, outcome, WHAT,
                                    handshake_step);
    outcome = IO_TIMEOUT;
  }
  return fail(L, s, outcome == IO_TRUNCATED ? IO_CLOSED : outcome);
}

static bool is_address(const char *host) {
  struct in6_addr address;

  return inet_pton(AF_INET, host, &address) == 1 ||
         inet_pton(AF_INET6, host, &address) == 1;
}

/* A final dot makes a name absolute; no certificate has it. */
static bool set_host(SSL *ssl, const char *host, bool verify) {
  X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
  char name[256];
  size_t size = strlen(host);

  if (is_address(host))
    return !verify || X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1;
  if (size > 1 && host[size - 1] == '.')
    size--;
  if (size == 0 || size >= sizeof(name))
    return false;
  memcpy(name, host, size);
  name[size] = '\0';
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set_tlsext_host_name(ssl, name) == 1 &&
         (!verify || X509_VERIFY_PARAM_set1_host(param, name, size) == 1);
}

static bool make(struct socket *s, SSL_CTX *context,
                 const struct options *options) {
  struct tls *tls = calloc(1, sizeof(*tls));

  if (tls == NULL)
    return false;
  tls->ssl = SSL_new(context);
  if (tls->ssl == NULL || SSL_set_fd(tls->ssl, s->fd) != 1 ||
      (options->alpn_size != 0 &&
       SSL_set_alpn_protos(tls->ssl, options->alpn, options->alpn_size) != 0) ||
      (options->host != NULL &&
       !set_host(tls->ssl, options->host, options->verify))) {
    SSL_free(tls->ssl);
    free(tls);
    return false;
  }
  SSL_set_connect_state(tls->ssl);
  s->tls = tls;
  return true;
}

int relay__lua_tls_begin(lua_State *L, struct socket *s) {
  struct options options;
  SSL_CTX *context;

  read_options(L, lua_gettop(L), &options);
  s->slots[SIDE_WRITE].began_ns = uv_hrtime();
  relay__lua_socket_progress(s, SIDE_WRITE);
  if (s->fd < 0)
    return relay__lua_socket_fail(L, s, IO_CLOSED);
  if (s->tls != NULL)
    return luaL_error(L, WHAT ": it is under TLS already");
  context = find_context(L, &options);
  if (context == NULL || !make(s, context, &options)) {
    relay__lua_socket_close(s);
    if (context != NULL)
      lua_pushliteral(L, WHAT ": bad host name, or not enough memory");
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  lua_settop(L, 1);
  return handshake_step(L, LUA_OK, (lua_KContext)s->serial);
}

/* Bytes that came in the clear must not be taken for encrypted ones. */
int relay__lua_socket_starttls(lua_State *L) {
  struct socket *s = relay__lua_socket_check(L, "client");

  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  relay__lua_socket_begin(L, s, SIDE_WRITE, WHAT);
  if (s->first < s->last) {
    relay__lua_socket_close(s);
    lua_pushnil(L);
    lua_pushliteral(L, WHAT ": there are bytes from before TLS");
    return 2;
  }
  return relay__lua_tls_begin(L, s);
}
#endif
