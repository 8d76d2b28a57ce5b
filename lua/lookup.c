/* SPDX-License-Identifier: MIT */
/*
 * A request to the resolver. It writes into a userdata on the stack of the
 * coroutine that waits; once that is killed or tired of waiting, the request
 * goes on alone and its answer is dropped.
 */
#include "lookup.h"

#include <stdlib.h>
#include <string.h>

struct lookup {
  union {
    uv_getaddrinfo_t addresses;
    uv_getnameinfo_t name;
    uv_req_t any;
  } request;
  struct policy *policy;
  struct task *task;
  struct addresses *into; /* NULL: nobody waits for it any more */
};

socklen_t relay__lua_address_size(const struct sockaddr_storage *address) {
  return address->ss_family == AF_INET ? sizeof(struct sockaddr_in)
                                       : sizeof(struct sockaddr_in6);
}

static void keep(struct addresses *into, const struct addrinfo *found) {
  size_t length;

  if (found != NULL && found->ai_canonname != NULL) {
    length = strlen(found->ai_canonname);
    if (length < sizeof(into->name))
      memcpy(into->name, found->ai_canonname, length + 1);
  }
  for (; found != NULL && into->count < ADDRESSES_MAX; found = found->ai_next)
    if (found->ai_family == AF_INET || found->ai_family == AF_INET6)
      memcpy(&into->list[into->count++], found->ai_addr, found->ai_addrlen);
}

/* ---- the request ------------------------------------------------------ */

static void on_wait_end(void *wait, bool killed) {
  struct lookup *lookup = wait;

  (void)killed;
  lookup->into = NULL;
  uv_cancel(&lookup->request.any);
}

/* Where nothing can be asked, that is no failure which will pass. */
static int status_for(const struct policy *policy, int status) {
  bool denied = (policy->lua->denied & 1U << RELAY_LUA_NEEDS_SOCKETS) != 0;

  return denied && (status == UV_EAI_AGAIN || status == UV_EAI_FAIL) ? UV_EPERM
                                                                     : status;
}

static void finish(struct lookup *lookup, int status) {
  struct policy *policy = lookup->policy;
  struct task *task = lookup->task;

  if (lookup->into != NULL) {
    lookup->into->status = status_for(policy, status);
    task->on_wait_end = NULL;
    relay__lua_task_wake(task, task->generation);
  }
  free(lookup);
  relay__lua_policy_unhold(policy);
}

static void on_addresses(uv_getaddrinfo_t *request, int status,
                         struct addrinfo *found) {
  struct lookup *lookup = request->data;

  if (lookup->into != NULL)
    keep(lookup->into, found);
  uv_freeaddrinfo(found);
  finish(lookup, status);
}

static void on_name(uv_getnameinfo_t *request, int status, const char *name,
                    const char *service) {
  struct lookup *lookup = request->data;

  if (lookup->into != NULL && status == 0) {
    memcpy(lookup->into->name, name, strlen(name) + 1);
    memcpy(lookup->into->service, service, strlen(service) + 1);
  }
  finish(lookup, status);
}

static struct addresses *push_addresses(lua_State *L) {
  struct addresses *into = lua_newuserdatauv(L, sizeof(*into), 0);

  memset(into, 0, sizeof(*into));
  into->status = UV_ETIMEDOUT; /* unless an answer comes before */
  return into;
}

static struct lookup *make(struct task *task, struct addresses *into) {
  struct lookup *lookup = calloc(1, sizeof(*lookup));

  if (lookup == NULL)
    return NULL;
  lookup->policy = task->policy;
  lookup->task = task;
  lookup->into = into;
  lookup->request.any.data = lookup;
  return lookup;
}

/* Waits for a request that was made, or goes on with why it was not. */
static int await(lua_State *L, struct lookup *lookup, struct addresses *into,
                 int err, lua_KFunction then) {
  if (err != 0) {
    free(lookup);
    into->status = err;
    return then(L, LUA_OK, 0);
  }
  lookup->policy->handles++;
  lookup->task->wait = lookup;
  lookup->task->on_wait_end = on_wait_end;
  return relay__lua_wait(L, 0, then);
}

/* ---- what others call ------------------------------------------------- */

static bool read_figures(const struct query *query, struct addresses *into) {
  struct addrinfo hints = query->hints;
  struct addrinfo *found;

  hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
  if (getaddrinfo(query->host, query->service, &hints, &found) != 0)
    return false;
  keep(into, found);
  freeaddrinfo(found);
  into->status = 0;
  return true;
}

int relay__lua_look_up(lua_State *L, const struct query *query,
                       lua_KFunction then) {
  struct addresses *into = push_addresses(L);
  struct lookup *lookup;
  struct task *task;
  int err = UV_ENOMEM;

  if (read_figures(query, into))
    return then(L, LUA_OK, 0);
  task = relay__lua_wait_begin(L, query->what);
  lookup = make(task, into);
  if (lookup != NULL)
    err = uv_getaddrinfo(task->policy->lua->loop, &lookup->request.addresses,
                         on_addresses, query->host, query->service,
                         &query->hints);
  if (err == 0 && query->limit_ms != 0)
    relay__lua_task_sleep(task, query->limit_ms);
  return await(L, lookup, into, err, then);
}

int relay__lua_look_up_name(lua_State *L, const char *what,
                            const struct sockaddr *address, int flags,
                            lua_KFunction then) {
  struct addresses *into = push_addresses(L);
  struct task *task = relay__lua_wait_begin(L, what);
  struct lookup *lookup = make(task, into);
  int err = UV_ENOMEM;

  if (lookup != NULL)
    err = uv_getnameinfo(task->policy->lua->loop, &lookup->request.name,
                         on_name, address, flags);
  return await(L, lookup, into, err, then);
}

/* ---- relay.resolve ---------------------------------------------------- */

static int after_resolve(lua_State *L, int status, lua_KContext context) {
  const struct addresses *found = lua_touserdata(L, -1);
  char text[INET6_ADDRSTRLEN];
  int i, count = 0;

  (void)status;
  (void)context;
  if (found->status != 0) {
    lua_pushnil(L);
    lua_pushstring(L, found->status == UV_EPERM ? DENIED
                                                : uv_strerror(found->status));
    return 2;
  }
  lua_createtable(L, found->count, 0);
  for (i = 0; i < found->count; i++)
    if (uv_ip_name((const struct sockaddr *)&found->list[i], text,
                   sizeof(text)) == 0) {
      lua_pushstring(L, text);
      lua_rawseti(L, -2, ++count);
    }
  return 1;
}

int relay__lua_resolve(lua_State *L) {
  struct query query = {.what = "relay.resolve",
                        .host = relay__lua_check_text(L, 1),
                        .hints.ai_socktype = SOCK_STREAM};

  return relay__lua_look_up(L, &query, after_resolve);
}
