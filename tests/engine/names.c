/* SPDX-License-Identifier: MIT */
/*
 * Names are looked up in a table of the test.
 */
#include <netdb.h>
#include <stdlib.h>

#include "engine.h"

struct lookup {
  uv_timer_t timer;
  uv_getaddrinfo_t *request;
  uv_getaddrinfo_cb done;
  struct addrinfo *found;
  int status;
};

static void on_lookup_closed(uv_handle_t *handle) {
  free(handle->data);
}

static void on_lookup(uv_timer_t *timer) {
  struct lookup *lookup = timer->data;

  lookup->done(lookup->request, lookup->status, lookup->found);
  uv_close((uv_handle_t *)timer, on_lookup_closed);
}

/* Chains the addresses of the list on top of the test's stack. */
static struct addrinfo *read_list(void) {
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST,
                           .ai_socktype = SOCK_STREAM};
  struct addrinfo *all = NULL, **end = &all;
  lua_Unsigned i;

  for (i = 1; i <= lua_rawlen(engine_test, -1); i++) {
    lua_rawgeti(engine_test, -1, (lua_Integer)i);
    if (getaddrinfo(lua_tostring(engine_test, -1), NULL, &hints, end) == 0)
      end = &(*end)->ai_next;
    lua_pop(engine_test, 1);
  }
  return all;
}

/* In the place of libuv's: the test has the answer, and how long it takes. */
int uv_getaddrinfo(uv_loop_t *loop, uv_getaddrinfo_t *request,
                   uv_getaddrinfo_cb done, const char *host,
                   const char *service, const struct addrinfo *hints) {
  struct lookup *lookup = calloc(1, sizeof(*lookup));
  uint64_t delay_ms = 0;

  (void)service;
  (void)hints;
  if (lookup == NULL)
    return UV_ENOMEM;
  engine_begin("resolve");
  lua_pushstring(engine_test, host);
  engine_call(1, 1);
  lookup->status = UV_EAI_NONAME;
  if (lua_istable(engine_test, -1)) {
    delay_ms = (uint64_t)(engine_number(engine_test, lua_gettop(engine_test),
                                        "delay") *
                          1000);
    lookup->status = 0;
    lookup->found = read_list();
  }
  lua_pop(engine_test, 1);
  lookup->request = request;
  lookup->done = done;
  lookup->timer.data = lookup;
  uv_timer_init(loop, &lookup->timer);
  uv_timer_start(&lookup->timer, on_lookup, delay_ms, 0);
  return 0;
}
