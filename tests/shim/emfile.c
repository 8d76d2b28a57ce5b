/* SPDX-License-Identifier: MIT */
/*
 * No descriptor is to be had, for one kind of call and as long as a file is
 * there: SHIM_CALL is accept4 or pipe2, SHIM_WHILE the file's path. Each
 * refusal adds a byte to that file.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int accept4(int fd, struct sockaddr *restrict address,
            socklen_t *restrict length, int flags);
int pipe2(int fds[2], int flags);

/* Opening the file takes a descriptor too, but only for this moment. */
static bool refuses(const char *call) {
  const char *chosen = getenv("SHIM_CALL");
  const char *path = getenv("SHIM_WHILE");
  int fd;

  if (chosen == NULL || path == NULL || strcmp(chosen, call) != 0)
    return false;
  fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0)
    return false;
  if (write(fd, ".", 1) != 1)
    abort();
  close(fd);
  errno = EMFILE;
  return true;
}

int accept4(int fd, struct sockaddr *restrict address,
            socklen_t *restrict length, int flags) {
  int (*next)(int, struct sockaddr *, socklen_t *, int);

  if (refuses("accept4"))
    return -1;
  *(void **)&next = dlsym(RTLD_NEXT, "accept4");
  return next(fd, address, length, flags);
}

int pipe2(int fds[2], int flags) {
  int (*next)(int *, int);

  if (refuses("pipe2"))
    return -1;
  *(void **)&next = dlsym(RTLD_NEXT, "pipe2");
  return next(fds, flags);
}
