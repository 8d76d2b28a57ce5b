/* SPDX-License-Identifier: MIT */
/*
 * One look-up of a name; see resolve.h. uv_cancel only stops what has not
 * started, and its callback runs in either case: that is where the request is
 * freed, and nowhere else.
 */
#include "net/resolve.h"

#include <stdio.h>
#include <stdlib.h>

#define RESOLVE_NAME_MAX 256

struct resolve {
  uv_getaddrinfo_t request;
  struct plane *plane;
  resolve_done_fn on_done; /* NULL: cancelled */
  void *owner;
  char name[RESOLVE_NAME_MAX];
};

static void on_resolved(uv_getaddrinfo_t *request, int status,
                        struct addrinfo *addresses) {
  struct resolve *resolve = request->data;
  struct plane *plane = resolve->plane;
  if (resolve->on_done == NULL) {
    uv_freeaddrinfo(addresses);
  } else if (status == 0 && addresses == NULL) {
    resolve->on_done(resolve->owner, UV_EAI_NONAME, NULL);
  } else {
    resolve->on_done(resolve->owner, status, addresses);
  }
  free(resolve);
  relay__plane_release(plane); /* may be the last: nothing after it */
}

int relay__resolve_start(struct resolve **out, struct plane *plane,
                         const char *host, unsigned port,
                         resolve_done_fn on_done, void *owner) {
  struct addrinfo hints = {0};
  char service[16];
  struct resolve *resolve = calloc(1, sizeof(*resolve));
  if (resolve == NULL)
    return UV_ENOMEM;
  resolve->request.data = resolve;
  resolve->plane = plane;
  resolve->on_done = on_done;
  resolve->owner = owner;
  snprintf(resolve->name, sizeof(resolve->name), "%s", host);
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  snprintf(service, sizeof(service), "%u", port);
  int status = uv_getaddrinfo(plane->loop, &resolve->request, on_resolved, host,
                              service, &hints);
  if (status != 0) {
    free(resolve);
    return status;
  }
  relay__plane_retain(plane);
  *out = resolve;
  return 0;
}

void relay__resolve_cancel(struct resolve *resolve) {
  if (resolve == NULL)
    return;
  resolve->on_done = NULL;
  (void)uv_cancel((uv_req_t *)&resolve->request);
}

const char *relay__resolve_name(const struct resolve *resolve) {
  return resolve->name;
}
