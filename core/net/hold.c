/* SPDX-License-Identifier: MIT */
/*
 * Holds and their pools. See hold.h. Free pipes are kept for the next flow,
 * since making one costs several system calls, but only a few, and they are
 * the first to go when descriptors are short.
 */
#include "net/hold.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/plane.h"

#define PIPES_KEPT 64
#define BUFFERS_KEPT 16
/* Pipes may take at most this share of the descriptors: two each. */
#define PIPE_DESCRIPTOR_SHARE 4

#ifdef __linux__
static bool open_pipe(struct hold *hold) {
  int fds[2];
  int size;

  if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
    return false;
  /* Refused beyond a user's quota: then what the kernel gave serves. */
  size = fcntl(fds[1], F_SETPIPE_SZ, HOLD_PIPE_BYTES);
  if (size < 0)
    size = fcntl(fds[1], F_GETPIPE_SZ);
  hold->pipe_read = fds[0];
  hold->pipe_write = fds[1];
  hold->capacity = size > 0 ? (size_t)size : 4096;
  return true;
}
#else
static bool open_pipe(struct hold *hold) {
  (void)hold;
  return false; /* no splice(2): flows copy */
}
#endif

static void destroy_pipe(struct plane *plane, struct hold *hold) {
  close(hold->pipe_read);
  close(hold->pipe_write);
  free(hold);
  atomic_fetch_sub_explicit(&plane->budget->pipes, 1, memory_order_relaxed);
  relay__plane_give_descriptors(plane, 2);
}

struct hold *relay__hold_pipe(struct plane *plane) {
  struct hold_pool *pool = &plane->pool;
  struct descriptors *fds = plane->budget;
  struct hold *hold = pool->pipes;

  if (hold != NULL) {
    pool->pipes = hold->next;
    pool->pipes_free--;
    return hold;
  }
  if ((atomic_load_explicit(&fds->pipes, memory_order_relaxed) + 1) * 2 >
          fds->limit / PIPE_DESCRIPTOR_SHARE ||
      !relay__plane_has_descriptors(plane, 2))
    return NULL;
  hold = calloc(1, sizeof(*hold));
  if (hold == NULL)
    return NULL;
  hold->is_pipe = true;
  if (!open_pipe(hold)) {
    free(hold);
    return NULL;
  }
  atomic_fetch_add_explicit(&fds->pipes, 1, memory_order_relaxed);
  relay__plane_take_descriptors(plane, 2);
  return hold;
}

struct hold *relay__hold_buffer(struct plane *plane) {
  struct hold_pool *pool = &plane->pool;
  struct hold *hold = pool->buffers;

  if (hold != NULL) {
    pool->buffers = hold->next;
    pool->buffers_free--;
    return hold;
  }
  hold = malloc(sizeof(*hold) + HOLD_BUFFER_BYTES);
  if (hold == NULL)
    return NULL;
  *hold = (struct hold){.capacity = HOLD_BUFFER_BYTES};
  return hold;
}

static void return_pipe(struct plane *plane, struct hold *hold) {
  struct hold_pool *pool = &plane->pool;

  if (hold->length != 0 || pool->pipes_free >= PIPES_KEPT ||
      atomic_load_explicit(&plane->budget->wanted, memory_order_relaxed) != 0) {
    destroy_pipe(plane, hold);
    return;
  }
  hold->next = pool->pipes;
  pool->pipes = hold;
  pool->pipes_free++;
  relay__plane_note_descriptors(plane); /* it may be trimmed */
}

void relay__hold_return(struct plane *plane, struct hold *hold) {
  struct hold_pool *pool = &plane->pool;

  if (hold->is_pipe) {
    return_pipe(plane, hold);
  } else if (pool->buffers_free >= BUFFERS_KEPT) {
    free(hold);
  } else {
    hold->start = hold->length = 0;
    hold->next = pool->buffers;
    pool->buffers = hold;
    pool->buffers_free++;
  }
}

bool relay__hold_trim(struct plane *plane) {
  struct hold_pool *pool = &plane->pool;
  struct hold *hold = pool->pipes;

  if (hold == NULL)
    return false;
  pool->pipes = hold->next;
  pool->pipes_free--;
  destroy_pipe(plane, hold);
  return true;
}

void relay__hold_pool_close(struct plane *plane) {
  struct hold_pool *pool = &plane->pool;

  while (relay__hold_trim(plane))
    ;
  while (pool->buffers != NULL) {
    struct hold *hold = pool->buffers;

    pool->buffers = hold->next;
    free(hold);
  }
  pool->buffers_free = 0;
}
