/* SPDX-License-Identifier: MIT */
/*
 * What is in force, as a person is told. Where the kernel can be asked, it is
 * what the kernel says.
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "confine.h"
#include "confine_build.h"
#include "privileges.h"

#define TEXT_MAX (2 * CONFINE_WHY_MAX)

bool confine_is_on(const struct confine *confine) {
  return confine->landlock != 0;
}

static const char *word_of(const struct confine_need *need) {
  return need->why[0] != '\0' ? "yes: " : "no";
}

static void describe_landlock(const struct confine *confine, char *text,
                              size_t size) {
  if (confine->landlock < 0)
    snprintf(text, size, "no: %s",
             confine->landlock == UV_ENOTSUP
                 ? "this kernel has none"
                 : relay_strerror(confine->landlock));
  else if (confine->threads > 0)
    snprintf(text, size, "version %d, but for %d threads of the script",
             confine->landlock, confine->threads);
  else
    snprintf(text, size, "version %d", confine->landlock);
}

static const char *describe_seccomp(const struct confine *confine) {
  if (confine->seccomp == UV_ENOTSUP)
    return "no: not on this processor";
  return confine->seccomp == 0 ? "yes" : relay_strerror(confine->seccomp);
}

/* ---- all of it -------------------------------------------------------- */

static void say_limits(void) {
  struct rlimit files = {0, 0}, cores = {0, 0};

  getrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_CORE, &cores);
  cli_say("descriptors: %llu", (unsigned long long)files.rlim_cur);
  cli_say("core dumps: %s", cores.rlim_cur == 0 ? "no" : "yes");
}

static void say_identity(void) {
  char text[TEXT_MAX];
  int no_new_privs = 0;

#ifdef __linux__
  no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
#endif
  cli_say("user: %u", (unsigned)getuid());
  cli_say("group: %u", (unsigned)getgid());
  privileges_describe(text, sizeof(text));
  cli_say("capabilities: %s", text);
  cli_say("no new privileges: %s", no_new_privs == 1 ? "yes" : "no");
}

static void say_files(const struct confine *confine) {
  static const char *const words[] = {"read", "write", "execute"};

  for (size_t i = 0; i < confine->path_count; i++)
    if (confine->paths[i].why != NULL)
      cli_say("%s: %s (%s)", words[confine->paths[i].access],
              confine->paths[i].path, confine->paths[i].why);
}

static void say_calls(const struct confine *confine) {
  struct seccomp_needs needs;
  const char *name;

  confine_calls(confine, &needs);
  cli_say("sockets: %s", !needs.connect ? "TCP"
                         : needs.local  ? "TCP, UDP, local"
                                        : "TCP, UDP");
  printf("denied:");
  for (size_t i = 0; (name = seccomp_denied(&needs, i)) != NULL; i++)
    printf(" %s", name);
  printf("\n");
}

void confine_say(const struct confine *confine) {
  char text[TEXT_MAX];

  cli_say("sandbox: %s", confine_is_on(confine) ? "on" : "off");
  say_identity();
  say_limits();
  if (!confine_is_on(confine))
    return;
  cli_say("connections out: %s%s", word_of(&confine->connect),
          confine->connect.why);
  cli_say("other programs: %s%s", word_of(&confine->exec), confine->exec.why);
  cli_say("any file: %s%s", word_of(&confine->files), confine->files.why);
  describe_landlock(confine, text, sizeof(text));
  cli_say("landlock: %s", text);
  if (confine->landlock > 0)
    say_files(confine);
  cli_say("seccomp: %s", describe_seccomp(confine));
  if (confine->seccomp == 0)
    say_calls(confine);
  if (CONFINE_SANITIZED)
    cli_say("sanitizers: this build leaves them what they need");
}

/* ---- one record ------------------------------------------------------- */

static const char *short_of(const struct confine_need *need) {
  return need->why[0] != '\0' ? need->why : "no";
}

void confine_log(const struct confine *confine, relay_log_fn log, void *data) {
  char landlock[TEXT_MAX];
  bool whole =
      confine->landlock > 0 && confine->seccomp == 0 && confine->threads == 0;
  relay_log_field fields[] = {
      {"user", NULL, (int64_t)getuid()},
      {"connect", short_of(&confine->connect), 0},
      {"exec", short_of(&confine->exec), 0},
      {"files",
       confine->files.why[0] != '\0' ? confine->files.why : "those it needs",
       0},
      {"landlock", landlock, 0},
      {"seccomp", describe_seccomp(confine), 0}};
  relay_log_record record = {
      sizeof(record),
      !confine_is_on(confine) || whole ? RELAY_LOG_INFO : RELAY_LOG_WARN,
      !confine_is_on(confine) ? "not confined"
      : whole                 ? "confined"
                              : "confined in part",
      fields, confine_is_on(confine) ? sizeof(fields) / sizeof(*fields) : 1};

  if (confine_is_on(confine))
    describe_landlock(confine, landlock, sizeof(landlock));
  log(data, &record);
}
