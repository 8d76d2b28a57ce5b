/* SPDX-License-Identifier: MIT */
/*
 * See confine.h. The order is the law: files are looked up by name while they
 * may still be, privileges go next, then no_new_privs, Landlock, and the filter
 * of system calls last, as it denies what the others are made of.
 */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <dirent.h>
#include <sys/prctl.h>
#endif

#include "confine_build.h"
#include "privileges.h"

enum { SANDBOX_AUTO, SANDBOX_ON, SANDBOX_OFF };

void confine_list(struct confine *confine, struct cli_option *table) {
  const struct cli_option options[] = {
      {"user", "NAME[:GROUP]", CLI_TEXT, &confine->user,
       "become this user, for good", "stay who it is", 0, 0, NULL},
      {"sandbox", "WHETHER", CLI_CHOICE, &confine->sandbox,
       "give up what it has no need of (auto: where the system can)", NULL, 0,
       0, "auto|on|off"},
      {"allow", "WHAT,...", CLI_TEXT, &confine->allow,
       "what the sandbox lets through: nothing, connect, exec, files, "
       "read=PATH, write=PATH",
       "what the script is seen to use", 0, 0, NULL},
      {"print-sandbox", NULL, CLI_FLAG, &confine->print,
       "go into the sandbox, say what is in force, and exit", NULL, 0, 0, NULL},
      {NULL, NULL, CLI_FLAG, NULL, NULL, NULL, 0, 0, NULL}};

  memcpy(table, options, sizeof(options));
}

/* ---- needs ------------------------------------------------------------ */

static void note(struct confine_need *need, const char *why) {
  if (need->why[0] == '\0')
    snprintf(need->why, sizeof(need->why), "%s", why);
}

void confine_need(struct confine *confine, struct confine_need *need,
                  const char *why) {
  if (confine->allow == NULL)
    note(need, why);
}

void confine_need_path(struct confine *confine, const char *path,
                       enum landlock_access access, const char *why) {
  struct confine_path *paths =
      realloc(confine->paths, (confine->path_count + 1) * sizeof(*paths));
  char *copy = strdup(path);

  if (paths != NULL)
    confine->paths = paths;
  if (paths == NULL || copy == NULL) {
    free(copy);
    confine->failed = true;
    return;
  }
  paths += confine->path_count++;
  paths->path = copy;
  paths->access = access;
  paths->why = why;
}

static void need_directory_of(struct confine *confine, const char *path,
                              const char *why) {
  const char *slash = strrchr(path, '/');
  char directory[PATH_MAX];

  if (slash == NULL)
    snprintf(directory, sizeof(directory), ".");
  else
    snprintf(directory, sizeof(directory), "%.*s",
             slash == path ? 1 : (int)(slash - path), path);
  confine_need_path(confine, directory, LANDLOCK_READ, why);
}

void confine_need_file(struct confine *confine, const char *path,
                       const char *why) {
  char *real = realpath(path, NULL);

  need_directory_of(confine, path, why);
  if (real != NULL && strcmp(real, path) != 0)
    need_directory_of(confine, real, why);
  free(real);
}

/* Whatever else is wrong with it, the relay says. */
/* One that may be listed; it is made if it is not there. */
static bool is_directory(const char *path) {
  int fd = mkdir(path, 0700) == 0 || errno == EEXIST
               ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
               : -1;

  return fd >= 0 && close(fd) == 0;
}

int confine_need_state(struct confine *confine, const struct cli *cli,
                       const char *path) {
  if (path == NULL)
    return CLI_GO;
  if (!is_directory(path))
    return cli_fail(cli, "--state: %s cannot be used: %s", path,
                    relay_strerror(-errno));
  if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0)
    return cli_fail(cli, "--state: %s cannot be written: %s", path,
                    relay_strerror(-errno));
  confine_need_path(confine, path, LANDLOCK_WRITE, "--state");
  return CLI_GO;
}

void confine_free(struct confine *confine) {
  for (size_t i = 0; i < confine->path_count; i++)
    free(confine->paths[i].path);
  free(confine->paths);
  confine->paths = NULL;
  confine->path_count = 0;
}

/* ---- --allow ---------------------------------------------------------- */

/* One word of --allow, which is noted unless `confine` is NULL. */
static bool take_word(struct confine *confine, const char *word) {
  static const char *const whys[] = {"--allow read", "--allow write"};
  struct confine nowhere = {.user = NULL};
  struct confine *self = confine != NULL ? confine : &nowhere;
  bool writes = strncmp(word, "write=", 6) == 0;
  const char *equals = strchr(word, '=');

  if (strcmp(word, "nothing") == 0)
    return true;
  if (strcmp(word, "connect") == 0)
    note(&self->connect, "--allow connect");
  else if (strcmp(word, "exec") == 0)
    note(&self->exec, "--allow exec");
  else if (strcmp(word, "files") == 0)
    note(&self->files, "--allow files");
  else if ((writes || strncmp(word, "read=", 5) == 0) && equals[1] != '\0') {
    if (confine != NULL)
      confine_need_path(confine, equals + 1,
                        writes ? LANDLOCK_WRITE : LANDLOCK_READ, whys[writes]);
  } else
    return false;
  return true;
}

/* The first word that is none, in `allow`; NULL: all are good. */
static const char *take_allow(const char *allow, struct confine *confine) {
  while (allow != NULL) {
    size_t length = strcspn(allow, ",");
    char word[PATH_MAX + 8];

    snprintf(word, sizeof(word), "%.*s", (int)length, allow);
    if (length >= sizeof(word) || !take_word(confine, word))
      return allow;
    allow = allow[length] == ',' ? allow + length + 1 : NULL;
  }
  return NULL;
}

int confine_check(const struct confine *confine, const struct cli *cli) {
  const char *bad = take_allow(confine->allow, NULL);

  if (bad == NULL)
    return CLI_GO;
  return cli_usage(cli,
                   "--allow: '%.*s' is not nothing, connect, exec, files, "
                   "read=PATH or write=PATH",
                   (int)strcspn(bad, ","), bad);
}

int confine_become(const struct confine *confine, const struct cli *cli) {
  char text[CONFINE_WHY_MAX];

  if (confine->user != NULL &&
      privileges_become(confine->user, text, sizeof(text)) != 0)
    return cli_fail(cli, "--user %s: %s", confine->user, text);
  return CLI_GO;
}

/* ---- limits ----------------------------------------------------------- */

static void raise_descriptors(void) {
  struct rlimit limit;

  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

/* Keys are in memory, and would be in a core. */
static void forbid_cores(void) {
  struct rlimit none = {0, 0};

  setrlimit(RLIMIT_CORE, &none);
}

/* ---- files ------------------------------------------------------------ */

static void need_base(struct confine *confine) {
  static const char *const libraries[] = {
      "/usr",           "/lib",         "/lib64",     "/etc/ld.so.cache",
      "/etc/localtime", "/dev/urandom", "/dev/random"};
  static const char *const tls[] = {"/etc/ssl/openssl.cnf", "/etc/ssl/certs",
                                    "/etc/pki/tls", "/etc/crypto-policies"};

  for (size_t i = 0; i < sizeof(libraries) / sizeof(*libraries); i++)
    confine_need_path(confine, libraries[i], LANDLOCK_READ, "libraries");
  for (size_t i = 0; i < sizeof(tls) / sizeof(*tls); i++)
    confine_need_path(confine, tls[i], LANDLOCK_READ, "settings of TLS");
  confine_need_path(confine, "/dev/null", LANDLOCK_WRITE, "libraries");
  confine_need_path(confine, CONFINE_SANITIZED ? "/proc" : "/proc/self",
                    LANDLOCK_READ, "itself");
  if (CONFINE_SANITIZED)
    confine_need_path(confine, "/proc/self/exe", LANDLOCK_READ, "itself");
}

static void need_resolver(struct confine *confine) {
  static const char *const files[] = {"/etc/hosts",     "/etc/nsswitch.conf",
                                      "/etc/host.conf", "/etc/gai.conf",
                                      "/etc/services",  "/etc/protocols"};

  for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
    confine_need_path(confine, files[i], LANDLOCK_READ, "names of hosts");
  confine_need_file(confine, "/etc/resolv.conf", "names of hosts");
}

static void complete(struct confine *confine) {
  (void)take_allow(confine->allow, confine);
  need_base(confine);
  if (confine->connect.why[0] != '\0')
    need_resolver(confine);
  if (confine->files.why[0] != '\0')
    confine_need_path(confine, "/", LANDLOCK_WRITE, "any file");
  if (confine->exec.why[0] != '\0')
    confine_need_path(confine, "/", LANDLOCK_EXEC, "other programs");
}

/* Threads beside this one; those of a sanitizer do not count. */
static int count_others(void) {
  int count = 0;
#ifdef __linux__
  DIR *directory = CONFINE_SANITIZED ? NULL : opendir("/proc/self/task");

  if (directory == NULL)
    return 0;
  while (readdir(directory) != NULL)
    count++;
  closedir(directory);
  count -= 3; /* ".", ".." and this one */
#endif
  return count;
}

/* What is not there, or not to be looked at, is no loss: it cannot be opened
   then either. */
static int confine_files(struct confine *confine) {
  struct landlock landlock;
  int err = landlock_begin(&landlock, confine->connect.why[0] != '\0');

  for (size_t i = 0; i < confine->path_count && err == 0; i++) {
    struct confine_path *path = &confine->paths[i];
    int missing = landlock_allow(&landlock, path->path, path->access);

    if (missing != 0)
      path->why = NULL;
    if (missing == UV_ENOMEM)
      err = missing;
  }
  if (landlock.fd < 0)
    return err;
  if (err == 0)
    err = landlock_confine(&landlock);
  else
    close(landlock.fd);
  return err == 0 ? landlock.version : err;
}

void confine_calls(const struct confine *confine, struct seccomp_needs *needs) {
  needs->connect = confine->connect.why[0] != '\0';
  needs->local = confine->files.why[0] != '\0';
  needs->exec = confine->exec.why[0] != '\0';
}

/* ---- all of it -------------------------------------------------------- */

static int give_up_privileges(const struct confine *confine) {
  int err = 0;

  /* Other programs may be wanted for what only root can do. */
  if (confine->user == NULL && confine->exec.why[0] == '\0')
    err = privileges_reduce();
#ifdef __linux__
  if (err == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    err = -errno;
#endif
  return err;
}

static int go_in(struct confine *confine) {
  struct seccomp_needs needs;
  int err;

  confine->landlock = confine->seccomp = UV_ENOTSUP;
  complete(confine);
  if (confine->failed)
    return UV_ENOMEM;
  forbid_cores();
  confine->threads = count_others();
  err = give_up_privileges(confine);
  if (err != 0)
    return err;
  confine->landlock = confine_files(confine);
  confine_calls(confine, &needs);
  confine->seccomp = seccomp_confine(&needs);
  return 0;
}

int confine(struct confine *confine, const struct cli *cli) {
  int err;

  raise_descriptors();
  if (confine->sandbox == SANDBOX_OFF)
    return CLI_GO;
  err = go_in(confine);
  if (err != 0)
    return cli_fail(cli, "--sandbox: %s", relay_strerror(err));
  if (confine->sandbox != SANDBOX_ON)
    return CLI_GO;
  if (confine->landlock < 0)
    return cli_fail(cli, "--sandbox on: Landlock: %s",
                    relay_strerror(confine->landlock));
  if (confine->seccomp != 0)
    return cli_fail(cli, "--sandbox on: seccomp: %s",
                    relay_strerror(confine->seccomp));
  if (confine->threads > 0)
    return cli_fail(cli, "--sandbox on: the script has begun threads");
  return CLI_GO;
}
