/* SPDX-License-Identifier: MIT */
/*
 * The ticket's file. See agent_ticket.h.
 */
#include "agent_ticket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

int agent_ticket_read(const char *path, char *ticket, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t count;
  int err;

  ticket[0] = '\0';
  if (fd < 0)
    return errno == ENOENT ? 0 : -errno;
  count = read(fd, ticket, size - 1);
  err = count < 0 ? -errno : 0;
  close(fd);
  ticket[count > 0 ? count : 0] = '\0';
  if (err == 0 && (count == 0 || strcspn(ticket, "\n") != (size_t)count - 1))
    err = UV_EILSEQ;
  ticket[err == 0 ? count - 1 : 0] = '\0';
  return err;
}

static int write_line(int fd, const char *text) {
  size_t length = strlen(text);
  ssize_t count = write(fd, text, length);

  if (count == (ssize_t)length)
    count = write(fd, "\n", 1);
  else if (count >= 0)
    return UV_ENOSPC;
  return count < 0 ? -errno : 0;
}

static int write_file(const char *path, const char *ticket) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  int err;

  if (fd < 0)
    return -errno;
  err = write_line(fd, ticket);
  if (close(fd) != 0 && err == 0)
    err = -errno;
  return err;
}

int agent_ticket_write(const char *path, const char *ticket) {
  size_t size = strlen(path) + sizeof(".new");
  char *fresh = malloc(size);
  int err;

  if (fresh == NULL)
    return UV_ENOMEM;
  snprintf(fresh, size, "%s.new", path);
  err = write_file(fresh, ticket);
  if (err == 0 && rename(fresh, path) != 0)
    err = -errno;
  if (err != 0)
    unlink(fresh);
  free(fresh);
  return err;
}
