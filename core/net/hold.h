/* SPDX-License-Identifier: MIT */
/*
 * A hold keeps the bytes of one flow between its source and its sink: a kernel
 * pipe, or a buffer. A flow borrows one when it first reads and gives it back
 * as soon as it is empty, so a pair at rest holds none.
 */
#ifndef RELAY_HOLD_H
#define RELAY_HOLD_H

#include <stdbool.h>
#include <stddef.h>

struct plane;

/* Aim for the size of a pipe, and the size of a buffer. */
#define HOLD_PIPE_BYTES (256 * 1024)
#define HOLD_BUFFER_BYTES (64 * 1024)

struct hold {
  struct hold *next; /* in the pool */
  bool is_pipe;
  int pipe_read; /* is_pipe only */
  int pipe_write;
  size_t capacity;
  size_t length; /* bytes held */
  size_t start;  /* buffer: where they begin */
  char bytes[];  /* buffer only */
};

struct hold_pool {
  struct hold *pipes; /* free ones, last used first */
  struct hold *buffers;
  unsigned pipes_free;
  unsigned buffers_free;
};

/* A pipe, or NULL when none is to be had (descriptors, quota, memory). */
struct hold *relay__hold_pipe(struct plane *plane);
/* A buffer, or NULL when there is no memory. */
struct hold *relay__hold_buffer(struct plane *plane);
/* Gives a hold back. A pipe that still holds bytes is destroyed, or one
   client's bytes would reach another. */
void relay__hold_return(struct plane *plane, struct hold *hold);
/* Destroys a kept pipe to free its descriptors; false if there is none. */
bool relay__hold_trim(struct plane *plane);
void relay__hold_pool_close(struct plane *plane);

#endif
