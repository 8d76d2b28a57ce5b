/* SPDX-License-Identifier: MIT */
/*
 * Who the process is, and what it may do beside that.
 */
#ifndef RELAY_PROGRAMS_PRIVILEGES_H
#define RELAY_PROGRAMS_PRIVILEGES_H

#include <stddef.h>

/* Becomes NAME[:GROUP], names or numbers, for good; of root's capabilities, to
   open ports below 1024 is kept. 0; or a libuv code, and `error` holds why. */
int privileges_become(const char *user, char *error, size_t size);

/* Of the capabilities it has, keeps what a relay has a use for: ports below
   1024, files of others, pipes beyond the quota. 0 or a libuv code. */
int privileges_reduce(void);

/* What is left, as words; "all" where more than those above. */
void privileges_describe(char *text, size_t size);

#endif
