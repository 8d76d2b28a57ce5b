/* SPDX-License-Identifier: MIT */
/*
 * LuaSocket's table `dns`, on the resolver of the loop. It knows no aliases, so
 * their list is always empty.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

#include "lookup.h"
#include "socket.h"

/* ---- toip, tohostname ------------------------------------------------- */

static int fail_host(lua_State *L, int status) {
  const char *text = "Unknown server error";

  if (status == UV_EAI_NONAME || status == UV_EAI_NODATA)
    text = "host not found";
  else if (status == UV_EAI_AGAIN)
    text = "Host name lookup failure";
  else if (status == UV_EPERM)
    text = DENIED;
  lua_pushnil(L);
  lua_pushstring(L, text);
  return 2;
}

static const char *push_ip(lua_State *L,
                           const struct sockaddr_storage *address) {
  char text[INET6_ADDRSTRLEN] = "";

  uv_ip_name((const struct sockaddr *)address, text, sizeof(text));
  return lua_pushstring(L, text);
}

/* { name =, alias = {}, ip = {…} } */
static void push_resolved(lua_State *L, const struct addresses *found) {
  int i;

  lua_createtable(L, 0, 3);
  lua_pushstring(L, found->name);
  lua_setfield(L, -2, "name");
  lua_newtable(L);
  lua_setfield(L, -2, "alias");
  lua_createtable(L, found->count, 0);
  for (i = 0; i < found->count; i++) {
    push_ip(L, &found->list[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "ip");
}

/* The address was one already, at 2; its name is on top. */
static int after_name(lua_State *L, int status, lua_KContext context) {
  struct addresses *found = lua_touserdata(L, -1);

  (void)status;
  (void)context;
  if (found->status != 0)
    return fail_host(L, found->status);
  memcpy(&found->list[0], lua_touserdata(L, 2), sizeof(found->list[0]));
  found->count = 1;
  if (lua_toboolean(L, 1))
    push_ip(L, &found->list[0]);
  else
    lua_pushstring(L, found->name);
  push_resolved(L, found);
  return 2;
}

static int after_host(lua_State *L, int status, lua_KContext context) {
  const struct addresses *found = lua_touserdata(L, -1);

  (void)status;
  (void)context;
  if (found->status != 0 || found->count == 0)
    return fail_host(L, found->status != 0 ? found->status : UV_EAI_NODATA);
  if (lua_toboolean(L, 1))
    push_ip(L, &found->list[0]);
  else
    lua_pushstring(L, found->name);
  push_resolved(L, found);
  return 2;
}

/* What is asked for stays at 1 of the stack: whether it is the address. */
static int ask_host(lua_State *L, const char *what, bool wants_ip) {
  const char *host = relay__lua_check_text(L, 1);
  struct query query = {.what = what,
                        .host = host,
                        .hints = {.ai_family = AF_INET,
                                  .ai_socktype = SOCK_STREAM,
                                  .ai_flags = AI_CANONNAME}};
  struct sockaddr_in *address;
  struct in_addr figures;

  lua_settop(L, 1);
  lua_pushboolean(L, wants_ip);
  lua_insert(L, 1);
  if (inet_aton(host, &figures) == 0)
    return relay__lua_look_up(L, &query, after_host);
  address = lua_newuserdatauv(L, sizeof(struct sockaddr_storage), 0);
  memset(address, 0, sizeof(struct sockaddr_storage));
  address->sin_family = AF_INET;
  address->sin_addr = figures;
  lua_replace(L, 2);
  return relay__lua_look_up_name(L, what, (struct sockaddr *)address,
                                 NI_NAMEREQD, after_name);
}

static int dns_toip(lua_State *L) {
  return ask_host(L, "dns.toip", true);
}

static int dns_tohostname(lua_State *L) {
  return ask_host(L, "dns.tohostname", false);
}

/* ---- getaddrinfo, getnameinfo ----------------------------------------- */

static int fail_info(lua_State *L, int status) {
  lua_pushnil(L);
  lua_pushstring(L, relay__lua_gai_error(status));
  return 2;
}

static int after_addresses(lua_State *L, int status, lua_KContext context) {
  const struct addresses *found = lua_touserdata(L, -1);
  int i;

  (void)status;
  (void)context;
  if (found->status != 0)
    return fail_info(L, found->status);
  lua_createtable(L, found->count, 0);
  for (i = 0; i < found->count; i++) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, found->list[i].ss_family == AF_INET ? "inet" : "inet6");
    lua_setfield(L, -2, "family");
    push_ip(L, &found->list[i]);
    lua_setfield(L, -2, "addr");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int dns_getaddrinfo(lua_State *L) {
  struct query query = {.what = "dns.getaddrinfo",
                        .host = relay__lua_check_text(L, 1),
                        .hints.ai_socktype = SOCK_STREAM};

  return relay__lua_look_up(L, &query, after_addresses);
}

/* The stack of a getnameinfo: host and service, addresses, names. */
enum { AT_HOST = 1, AT_SERVICE, AT_ADDRESSES, AT_NAMES };

static int after_one_name(lua_State *L, int status, lua_KContext context);

static int next_name(lua_State *L) {
  const struct addresses *found = lua_touserdata(L, AT_ADDRESSES);
  size_t done = lua_rawlen(L, AT_NAMES);

  return relay__lua_look_up_name(L, "dns.getnameinfo",
                                 (const struct sockaddr *)&found->list[done], 0,
                                 after_one_name);
}

static int after_one_name(lua_State *L, int status, lua_KContext context) {
  const struct addresses *found = lua_touserdata(L, AT_ADDRESSES);
  const struct addresses *name = lua_touserdata(L, -1);

  (void)status;
  (void)context;
  if (name->status != 0)
    return fail_info(L, name->status);
  lua_pushstring(L, name->name);
  lua_rawseti(L, AT_NAMES, (lua_Integer)lua_rawlen(L, AT_NAMES) + 1);
  if (!lua_isnil(L, AT_HOST) &&
      lua_rawlen(L, AT_NAMES) < (size_t)found->count) {
    lua_settop(L, AT_NAMES);
    return next_name(L);
  }
  if (lua_isnil(L, AT_HOST)) {
    lua_newtable(L);
    lua_replace(L, AT_NAMES);
  }
  lua_pushvalue(L, AT_NAMES);
  if (lua_isnil(L, AT_SERVICE))
    return 1;
  lua_pushstring(L, name->service);
  return 2;
}

static int after_info(lua_State *L, int status, lua_KContext context) {
  const struct addresses *found = lua_touserdata(L, AT_ADDRESSES);

  (void)status;
  (void)context;
  if (found->status != 0 || found->count == 0)
    return fail_info(L, found->status != 0 ? found->status : UV_EAI_NONAME);
  lua_newtable(L);
  return next_name(L);
}

static int dns_getnameinfo(lua_State *L) {
  struct query query = {.what = "dns.getnameinfo",
                        .host = relay__lua_opt_text(L, 1, NULL),
                        .service = relay__lua_opt_text(L, 2, NULL),
                        .hints.ai_socktype = SOCK_STREAM};

  if (query.host == NULL && query.service == NULL)
    return luaL_error(L, "host and serv cannot be both nil");
  lua_settop(L, 2);
  return relay__lua_look_up(L, &query, after_info);
}

/* ---- the table -------------------------------------------------------- */

static int dns_gethostname(lua_State *L) {
  char name[UV_MAXHOSTNAMESIZE];
  size_t size = sizeof(name);
  int err = uv_os_gethostname(name, &size);

  if (err != 0) {
    lua_pushnil(L);
    lua_pushstring(L, uv_strerror(err));
    return 2;
  }
  lua_pushlstring(L, name, size);
  return 1;
}

void relay__lua_open_dns(lua_State *L) {
  static const luaL_Reg functions[] = {{"toip", dns_toip},
                                       {"tohostname", dns_tohostname},
                                       {"getaddrinfo", dns_getaddrinfo},
                                       {"getnameinfo", dns_getnameinfo},
                                       {"gethostname", dns_gethostname},
                                       {NULL, NULL}};

  luaL_newlib(L, functions);
}
