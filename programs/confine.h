/* SPDX-License-Identifier: MIT */
/*
 * What the relay program gives up before anybody can reach it: privileges,
 * files and ways out that its options and its script have no need of. The
 * options of it, the plan they make, and what became of that.
 *
 *   confine_list      its options, for the command line
 *   confine_become    --user, before the script is read
 *   confine_need_*    what else is needed
 *   confine           puts it all in force, before the script's `start` and
 *                     before any thread of libuv's
 *   confine_say,      what is in force: all of it, or one record
 *   confine_log
 */
#ifndef RELAY_PROGRAMS_CONFINE_H
#define RELAY_PROGRAMS_CONFINE_H

#include "cli.h"
#include "landlock.h"
#include "seccomp.h"

#define CONFINE_WHY_MAX 256

struct confine_path {
  char *path;
  enum landlock_access access;
  const char *why; /* static */
};

/* A need, and why; "": there is none. */
struct confine_need {
  char why[CONFINE_WHY_MAX];
};

struct confine {
  const char *user;
  const char *allow;
  int sandbox; /* auto, on, off */
  int print;
  struct confine_need connect;
  struct confine_need exec;
  struct confine_need files; /* any */
  struct confine_path *paths;
  size_t path_count;
  bool failed;  /* a path had no memory */
  int landlock; /* its version, or a libuv code */
  int seccomp;  /* 0, or a libuv code */
  int threads;  /* that Landlock does not reach */
};

/* Fills a table of options, its end included. */
void confine_list(struct confine *confine, struct cli_option *table);

/* Becomes the user of --user. CLI_GO or a status. */
int confine_become(const struct confine *confine, const struct cli *cli);

/* Once all options are read: whether --allow is well-formed. CLI_GO or a
   status. */
int confine_check(const struct confine *confine, const struct cli *cli);

/* `path` itself and what is beneath it; a copy is kept. */
void confine_need_path(struct confine *confine, const char *path,
                       enum landlock_access access, const char *why);
/* To read a file that may be replaced: the directories it is in. */
void confine_need_file(struct confine *confine, const char *path,
                       const char *why);
/* A directory that is written, NULL: none; it is made if it is not there.
   CLI_GO or a status: it cannot be written. */
int confine_need_state(struct confine *confine, const struct cli *cli,
                       const char *path);
/* What --allow says is needed counts instead, if it is given. */
void confine_need(struct confine *confine, struct confine_need *need,
                  const char *why);

/* CLI_GO, or a status: with --sandbox on, where some of it cannot be had. */
int confine(struct confine *confine, const struct cli *cli);

/* The needs, once confined, as the filter of calls takes them. */
void confine_calls(const struct confine *confine, struct seccomp_needs *needs);
/* Whether any of it is in force. */
bool confine_is_on(const struct confine *confine);

/* On standard output, line by line. */
void confine_say(const struct confine *confine);
/* As one record, handed to `log`. */
void confine_log(const struct confine *confine, relay_log_fn log, void *data);

void confine_free(struct confine *confine);

#endif
