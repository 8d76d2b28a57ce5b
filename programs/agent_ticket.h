/* SPDX-License-Identifier: MIT */
/*
 * A file that keeps the ticket of an agent's address from one process to the
 * next: one line, readable by its owner alone.
 */
#ifndef RELAY_PROGRAMS_AGENT_TICKET_H
#define RELAY_PROGRAMS_AGENT_TICKET_H

#include <stddef.h>

/* The ticket, or "" while there is no file. 0 or a libuv code; UV_EILSEQ, and
   "": it is not one whole line. */
int agent_ticket_read(const char *path, char *ticket, size_t size);
/* Written beside the file and put in its place, so that there is always a
   whole one. 0 or a libuv code. */
int agent_ticket_write(const char *path, const char *ticket);

#endif
