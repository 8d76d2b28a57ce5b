/* SPDX-License-Identifier: MIT */
/*
 * One look-up of a name, off the loop's thread (uv_getaddrinfo). The request
 * belongs to libuv until its callback has run, whatever happens to who asked:
 * a cancelled look-up is let go of and frees itself then. It counts as a
 * handle of its plane, so that nothing is torn down under it.
 */
#ifndef RELAY_RESOLVE_H
#define RELAY_RESOLVE_H

#include <netdb.h>

#include "net/plane.h"

struct resolve;

/* status 0: `addresses` is a list of at least one, the callee's, to be freed
   with uv_freeaddrinfo. Else why not, and NULL. */
typedef void (*resolve_done_fn)(void *owner, int status,
                                struct addrinfo *addresses);

/* Looks `host` up, a name or a literal, for a TCP connection to `port`.
   on_done runs once, later. 0, or a negative libuv code at once. */
int relay__resolve_start(struct resolve **out, struct plane *plane,
                         const char *host, unsigned port,
                         resolve_done_fn on_done, void *owner);

/* on_done will not run. NULL is allowed. */
void relay__resolve_cancel(struct resolve *resolve);

/* What is being looked up, for a log: cut if it is very long. */
const char *relay__resolve_name(const struct resolve *resolve);

#endif
