/* SPDX-License-Identifier: MIT */
/*
 * Plain values as bytes, for what `save` hands to the next script's `start`:
 * nil, booleans, numbers, strings, and tables of these. Packing calls nothing
 * in Lua that can raise, so its memory cannot be lost.
 */
#include <stdlib.h>
#include <string.h>

#include "private.h"

#define DEPTH_MAX 64

struct bytes {
  char *text;
  size_t size;
  size_t room;
  size_t limit; /* one string in many places is many strings here */
};

enum tag {
  TAG_FALSE,
  TAG_TRUE,
  TAG_INTEGER,
  TAG_NUMBER,
  TAG_STRING,
  TAG_TABLE,
  TAG_END
};

/* ---- writing ---------------------------------------------------------- */

static const char *add(struct bytes *bytes, const void *from, size_t size) {
  if (bytes->room - bytes->size < size) {
    size_t room = bytes->room * 2 + size + 256;
    char *more = room <= bytes->limit ? realloc(bytes->text, room) : NULL;

    if (more == NULL)
      return "more than memory holds";
    bytes->text = more;
    bytes->room = room;
  }
  memcpy(bytes->text + bytes->size, from, size);
  bytes->size += size;
  return NULL;
}

static const char *add_tag(struct bytes *bytes, enum tag tag) {
  unsigned char byte = (unsigned char)tag;

  return add(bytes, &byte, 1);
}

static const char *add_tagged(struct bytes *bytes, enum tag tag,
                              const void *from, size_t size) {
  const char *why = add_tag(bytes, tag);

  return why != NULL ? why : add(bytes, from, size);
}

static const char *add_string(lua_State *L, int index, struct bytes *bytes) {
  size_t length;
  const char *text = lua_tolstring(L, index, &length);
  const char *why = add_tagged(bytes, TAG_STRING, &length, sizeof(length));

  return why != NULL ? why : add(bytes, text, length);
}

static const char *add_value(lua_State *L, int index, struct bytes *bytes,
                             int depth);

static const char *add_table(lua_State *L, int index, struct bytes *bytes,
                             int depth) {
  const char *why = add_tag(bytes, TAG_TABLE);

  if (depth >= DEPTH_MAX || !lua_checkstack(L, 4))
    return "tables within tables without end";
  lua_pushnil(L);
  while (why == NULL && lua_next(L, index) != 0) {
    int value = lua_gettop(L);

    why = add_value(L, value - 1, bytes, depth + 1);
    if (why == NULL)
      why = add_value(L, value, bytes, depth + 1);
    lua_settop(L, value - 1);
  }
  return why != NULL ? why : add_tag(bytes, TAG_END);
}

static const char *add_value(lua_State *L, int index, struct bytes *bytes,
                             int depth) {
  lua_Integer integer;
  lua_Number number;

  switch (lua_type(L, index)) {
  case LUA_TBOOLEAN:
    return add_tag(bytes, lua_toboolean(L, index) ? TAG_TRUE : TAG_FALSE);
  case LUA_TNUMBER:
    integer = lua_tointeger(L, index);
    number = lua_tonumber(L, index);
    return lua_isinteger(L, index)
               ? add_tagged(bytes, TAG_INTEGER, &integer, sizeof(integer))
               : add_tagged(bytes, TAG_NUMBER, &number, sizeof(number));
  case LUA_TSTRING:
    return add_string(L, index, bytes);
  case LUA_TTABLE:
    return add_table(L, index, bytes, depth);
  case LUA_TFUNCTION:
    return "a function";
  case LUA_TTHREAD:
    return "a coroutine";
  default:
    return "an object";
  }
}

void *relay__lua_pack(lua_State *L, int index, size_t *size, const char **why) {
  struct bytes bytes = {.limit =
                            relay__lua_policy_of(L)->lua->options.memory_bytes};

  *why = add_value(L, index, &bytes, 0);
  if (*why != NULL) {
    free(bytes.text);
    return NULL;
  }
  *size = bytes.size;
  return bytes.text;
}

/* ---- reading ---------------------------------------------------------- */

static void take(const char **at, void *to, size_t size) {
  memcpy(to, *at, size);
  *at += size;
}

/* Pushes one value; false at the end of a table. */
static bool push(lua_State *L, const char **at) {
  unsigned char tag;
  lua_Integer integer;
  lua_Number number;
  size_t length;

  luaL_checkstack(L, 4, NULL);
  take(at, &tag, 1);
  switch (tag) {
  case TAG_END:
    return false;
  case TAG_FALSE:
  case TAG_TRUE:
    lua_pushboolean(L, tag == TAG_TRUE);
    return true;
  case TAG_INTEGER:
    take(at, &integer, sizeof(integer));
    lua_pushinteger(L, integer);
    return true;
  case TAG_NUMBER:
    take(at, &number, sizeof(number));
    lua_pushnumber(L, number);
    return true;
  case TAG_STRING:
    take(at, &length, sizeof(length));
    lua_pushlstring(L, *at, length);
    *at += length;
    return true;
  default:
    lua_newtable(L);
    while (push(L, at)) {
      push(L, at);
      lua_rawset(L, -3);
    }
    return true;
  }
}

void relay__lua_unpack(lua_State *L, const void *bytes, size_t size) {
  const char *at = bytes;

  (void)size;
  push(L, &at);
}
