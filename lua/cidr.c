/* SPDX-License-Identifier: MIT */
/*
 * relay.cidr{…}: a set of addresses and networks, IPv4 and IPv6. Networks are
 * sorted by length and then by address, so a look-up is one binary search for
 * each length there is. An IPv4 address is its mapped IPv6 one.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

#define SET "relay.cidr"

struct network {
  unsigned char address[16];
  int length;  /* in bits, of 128 */
  size_t same; /* from here on as many are of this length */
};

struct set {
  size_t count;
  struct network networks[];
};

/* ---- addresses -------------------------------------------------------- */

static bool read_address(const char *text, unsigned char *address,
                         int *offset) {
  static const unsigned char mapped[12] = {0, 0, 0, 0, 0,    0,
                                           0, 0, 0, 0, 0xff, 0xff};

  if (inet_pton(AF_INET6, text, address) == 1) {
    *offset = 0;
    return true;
  }
  memcpy(address, mapped, sizeof(mapped));
  *offset = 96;
  return inet_pton(AF_INET, text, address + 12) == 1;
}

static void mask(unsigned char *address, int length) {
  int i;

  for (i = 0; i < 16; i++, length -= 8)
    if (length <= 0)
      address[i] = 0;
    else if (length < 8)
      address[i] &= (unsigned char)(0xff << (8 - length));
}

static bool read_network(const char *text, struct network *network) {
  char address[64];
  size_t size = strcspn(text, "/");
  int offset;
  char *end;
  long bits;

  if (size >= sizeof(address))
    return false;
  memcpy(address, text, size);
  address[size] = '\0';
  if (!read_address(address, network->address, &offset))
    return false;
  network->length = 128;
  if (text[size] == '/') {
    bits = strtol(text + size + 1, &end, 10);
    if (end == text + size + 1 || *end != '\0' || text[size + 1] == '+' ||
        text[size + 1] == ' ' || bits < 0 || bits > 128 - offset)
      return false;
    network->length = offset + (int)bits;
  }
  mask(network->address, network->length);
  return true;
}

static int compare(const void *a, const void *b) {
  const struct network *one = a, *other = b;

  if (one->length != other->length)
    return one->length < other->length ? 1 : -1;
  return memcmp(one->address, other->address, sizeof(one->address));
}

static void count_same(struct set *set) {
  size_t i;

  for (i = set->count; i-- > 0;) {
    struct network *at = &set->networks[i];

    at->same = 1;
    if (i + 1 < set->count && at[1].length == at->length)
      at->same += at[1].same;
  }
}

static bool has(const struct set *set, const unsigned char *address) {
  const struct network *at = set->networks, *end = at + set->count;

  while (at < end) {
    struct network key = {.length = at->length};

    memcpy(key.address, address, sizeof(key.address));
    mask(key.address, key.length);
    if (bsearch(&key, at, at->same, sizeof(*at), compare) != NULL)
      return true;
    at += at->same;
  }
  return false;
}

/* ---- what a script calls ---------------------------------------------- */

static int set_has(lua_State *L) {
  const struct set *set = luaL_checkudata(L, 1, SET);
  const char *text = relay__lua_check_text(L, 2);
  unsigned char address[16];
  int offset;

  if (!read_address(text, address, &offset))
    return luaL_error(L, "'%s' is not an address", text);
  lua_pushboolean(L, has(set, address));
  return 1;
}

/* What a list would leave out would be let in where it was to be kept out. */
static lua_Unsigned check_list(lua_State *L, int index) {
  lua_Unsigned count, keys = 0;

  luaL_checktype(L, index, LUA_TTABLE);
  count = lua_rawlen(L, index);
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1))
    keys++;
  luaL_argcheck(L, keys == count, index, "its table must be a list");
  return count;
}

int relay__lua_cidr(lua_State *L) {
  struct set *set;
  lua_Unsigned count, i;

  count = check_list(L, 1);
  set = lua_newuserdatauv(L, sizeof(*set) + count * sizeof(*set->networks), 0);
  set->count = (size_t)count;
  for (i = 0; i < count; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING ||
        !read_network(lua_tostring(L, -1), &set->networks[i]))
      return luaL_error(L, "relay.cidr: '%s' is not an address or network",
                        luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
  }
  qsort(set->networks, set->count, sizeof(*set->networks), compare);
  count_same(set);
  luaL_setmetatable(L, SET);
  return 1;
}

void relay__lua_open_cidr(lua_State *L) {
  luaL_newmetatable(L, SET);
  lua_newtable(L);
  lua_pushcfunction(L, set_has);
  lua_setfield(L, -2, "has");
  lua_setfield(L, -2, "__index");
  lua_pushstring(L, SET);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
}
