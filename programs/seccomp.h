/* SPDX-License-Identifier: MIT */
/*
 * A filter of system calls, for this process and all it will ever start. What
 * it denies fails with EPERM; what it does not know, with ENOSYS, which
 * libraries take for an older kernel.
 */
#ifndef RELAY_PROGRAMS_SECCOMP_H
#define RELAY_PROGRAMS_SECCOMP_H

#include <stdbool.h>
#include <stddef.h>

/* What is let through beside what every relay needs. */
struct seccomp_needs {
  bool connect; /* connections out, and the datagrams that look names up */
  bool local;   /* with it: to sockets that are files */
  bool exec;    /* other programs */
};

/* Puts it in force, on every thread there is. Needs no_new_privs. 0 or a libuv
   code: UV_ENOTSUP where none is known for this processor. */
int seccomp_confine(const struct seccomp_needs *needs);

/* The name of the call at `index` that is denied whatever its arguments; NULL
   past the last. */
const char *seccomp_denied(const struct seccomp_needs *needs, size_t index);

#endif
