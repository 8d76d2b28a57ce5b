/* SPDX-License-Identifier: MIT */
/*
 * Landlock: what this thread, and those it starts, may open from now on. A rule
 * is about the file or directory that a path leads to now, and all beneath it;
 * another file that takes its place later is not meant, so what is replaced in
 * one piece has to be allowed by its directory.
 */
#ifndef RELAY_PROGRAMS_LANDLOCK_H
#define RELAY_PROGRAMS_LANDLOCK_H

#include <stdbool.h>

enum landlock_access {
  LANDLOCK_READ,  /* files are read, directories listed */
  LANDLOCK_WRITE, /* and files written, made, renamed and removed */
  LANDLOCK_EXEC   /* read, and executed */
};

struct landlock {
  int version; /* the kernel's; 0: it has none */
  int fd;
};

/* Begins a set of rules: none of files and, without `connect`, none of TCP
   connections. 0 or a libuv code; UV_ENOTSUP: this kernel has no Landlock. */
int landlock_begin(struct landlock *landlock, bool connect);

/* Adds a rule. What is not there is UV_ENOENT. */
int landlock_allow(struct landlock *landlock, const char *path,
                   enum landlock_access access);

/* Puts the rules in force; needs no_new_privs. Ends the set in any case. */
int landlock_confine(struct landlock *landlock);

#endif
