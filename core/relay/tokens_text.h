/* SPDX-License-Identifier: MIT */
/*
 * What the files about the tokens file share: a line of it both ways, and its
 * bytes. For the rest of the relay there is tokens.h.
 */
#ifndef RELAY_TOKENS_TEXT_H
#define RELAY_TOKENS_TEXT_H

#include <sys/stat.h>

#include "relay/tokens.h"

/* A file that is being read, for what is wrong there. */
struct tokens_reading {
  const char *path; /* NULL: there is none, and none is named */
  unsigned line;    /* 0: it is about the file as a whole */
  char *error;
  size_t size;
};

/* Says "path:line: …" and returns UV_EFTYPE. */
int relay__tokens_complain(const struct tokens_reading *reading,
                           const char *format, ...)
    __attribute__((format(__printf__, 2, 3)));
/* Says the words for an error, and returns it. */
int relay__tokens_fail(const struct tokens_reading *reading, int error);

/* ---- tokens_line.c ---------------------------------------------------- */

/* Reads a line, `length` characters without its LF, with a NUL behind it; the
   token points into it. 1; 0: no token is in it; else a negative code was
   complained of. What was allocated is the token's, also then. */
int relay__tokens_read_line(const struct tokens_reading *reading, char *line,
                            size_t length, struct token *token);
/* 0, or complains of what is no id. */
int relay__tokens_check_id(const struct tokens_reading *reading,
                           const char *id);
/* Writes the line, with an LF. Its length, without the NUL; 0: it does not fit
   TOKENS_LINE_MAX. */
size_t relay__tokens_write_line(const struct token *token,
                                char line[TOKENS_LINE_MAX + 2]);
/* Reads "8081,9000-9100" into an array that the caller frees. 1; 0: it is not
   so; or UV_ENOMEM. */
int relay__tokens_read_ports(const char *text, struct token_ports **ports,
                             size_t *count);

/* ---- tokens.c --------------------------------------------------------- */

/* All of a file, and what the system says of it, once it was found to be a
   private one. 0, or a negative code and a line in `error`. */
int relay__tokens_load(const char *path, struct stat *file, char **text,
                       size_t *length, char *error, size_t size);
/* Wipes and frees that. */
void relay__tokens_unload(char *text, size_t length);

#endif
