/* SPDX-License-Identifier: MIT */
/*
 * sys: what the Lua tests need of the system, each call with a time-out.
 * Here: clock, watchdog, /proc and small things. Sockets, processes, TLS and
 * the pump, which moves patterned bytes over many sockets, have their own
 * files.
 */
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- time -----------------------------------------------------------------
 */

static double default_timeout = 10;

double sys_now(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double sys_deadline(lua_State *L, int arg) {
  return sys_now() + luaL_optnumber(L, arg, default_timeout);
}

int sys_left_ms(double deadline) {
  double left = ceil((deadline - sys_now()) * 1000);

  if (left <= 0)
    return 0;
  return left > 1e9 ? 1000000000 : (int)left;
}

static int now(lua_State *L) {
  lua_pushnumber(L, sys_now());
  return 1;
}

static int timeout(lua_State *L) {
  lua_pushnumber(L, default_timeout);
  default_timeout = luaL_optnumber(L, 1, default_timeout);
  return 1;
}

static int sleep_for(lua_State *L) {
  double deadline = sys_now() + luaL_checknumber(L, 1);

  while (sys_left_ms(deadline) > 0) {
    poll(NULL, 0, sys_left_ms(deadline));
    sys_check_watchdog(L);
  }
  return 0;
}

/* ---- watchdog -------------------------------------------------------------
 */

#define BARKS_MAX 20 /* a second apart; then the whole process ends */

static lua_State *watched;
static volatile sig_atomic_t barked;
static volatile sig_atomic_t barks;

static void raise_expired(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  sys_check_watchdog(L);
}

static void on_alarm(int number) {
  static const char last[] = "watchdog: the test does not end; giving up\n";

  (void)number;
  barked = 1;
  if (++barks < BARKS_MAX) {
    if (barks == 1)
      lua_sethook(watched, raise_expired,
                  LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
    return;
  }
  if (write(STDERR_FILENO, last, sizeof last - 1) >= 0)
    _exit(124);
  _exit(124);
}

void sys_check_watchdog(lua_State *L) {
  if (barked) {
    barked = 0;
    lua_sethook(L, NULL, 0, 0);
    luaL_error(L, "the test took longer than it may");
  }
}

/* watchdog(SECONDS): after so long the test that runs gets an error, and if it
   still runs 20 s later, the process ends. 0 calls it off. */
static int watchdog(lua_State *L) {
  double seconds = luaL_checknumber(L, 1);
  struct itimerval timer = {{0, 0}, {0, 0}};
  struct sigaction action;

  memset(&action, 0, sizeof action);
  action.sa_handler = on_alarm; /* no SA_RESTART: waits must notice */
  sigaction(SIGALRM, &action, NULL);
  timer.it_value.tv_sec = (time_t)seconds;
  timer.it_value.tv_usec =
      (suseconds_t)((seconds - (double)timer.it_value.tv_sec) * 1e6);
  if (seconds > 0)
    timer.it_interval.tv_sec = 1;
  watched = L;
  barked = barks = 0;
  setitimer(ITIMER_REAL, &timer, NULL);
  return 0;
}

int sys_wait_fd(lua_State *L, int fd, short events, double deadline) {
  struct pollfd entry = {fd, events, 0};

  for (;;) {
    int count = poll(&entry, 1, sys_left_ms(deadline));
    if (count > 0)
      return 1;
    if (count < 0 && errno != EINTR)
      return luaL_error(L, "poll: %s", strerror(errno));
    sys_check_watchdog(L);
    if (count == 0 && sys_left_ms(deadline) == 0)
      return 0;
  }
}

/* ---- errors and fields ----------------------------------------------------
 */

const char *sys_error_name(int error) {
  const char *name;

  switch (error) {
  case 0:
    return "timeout";
  case ECONNRESET:
  case EPIPE:
    return "reset";
  default:
    name = strerrorname_np(error);
    return name != NULL ? name : "unknown";
  }
}

int sys_fail(lua_State *L, int error) {
  lua_pushnil(L);
  lua_pushstring(L, sys_error_name(error));
  return 2;
}

lua_Integer sys_field_integer(lua_State *L, int table, const char *key,
                              lua_Integer fallback) {
  lua_Integer value = fallback;

  if (lua_getfield(L, table, key) != LUA_TNIL) {
    int is_integer;
    value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer)
      return luaL_error(L, "%s: an integer is needed", key);
  }
  lua_pop(L, 1);
  return value;
}

bool sys_field_bool(lua_State *L, int table, const char *key) {
  bool value;

  lua_getfield(L, table, key);
  value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

const char *sys_field_string(lua_State *L, int table, const char *key) {
  const char *value;

  lua_getfield(L, table, key);
  value = lua_tostring(L, -1);
  lua_pop(L, 1);
  return value;
}

/* ---- /proc ----------------------------------------------------------------
 */

static bool read_proc(lua_Integer pid, const char *name, char *text,
                      size_t size) {
  char path[64];
  size_t count;
  FILE *file;

  snprintf(path, sizeof path, "/proc/%lld/%s", (long long)pid, name);
  file = fopen(path, "r");
  if (file == NULL)
    return false;
  count = fread(text, 1, size - 1, file);
  text[count] = '\0';
  fclose(file);
  return true;
}

/* fds(PID): how many descriptors it has open, and a list of what they are. */
static int fds(lua_State *L) {
  lua_Integer pid = luaL_optinteger(L, 1, getpid());
  char path[512], target[256];
  struct dirent *entry;
  lua_Integer count = 0;
  DIR *directory;

  snprintf(path, sizeof path, "/proc/%lld/fd", (long long)pid);
  directory = opendir(path);
  if (directory == NULL)
    return sys_fail(L, errno);
  lua_newtable(L);
  while ((entry = readdir(directory)) != NULL) {
    ssize_t length;
    if (entry->d_name[0] == '.' ||
        (pid == getpid() && atoi(entry->d_name) == dirfd(directory)))
      continue;
    snprintf(path, sizeof path, "/proc/%lld/fd/%s", (long long)pid,
             entry->d_name);
    length = readlink(path, target, sizeof target);
    if (length < 0)
      continue;
    lua_pushfstring(L, "%s ", entry->d_name);
    lua_pushlstring(L, target, (size_t)length);
    lua_concat(L, 2);
    lua_rawseti(L, -2, ++count);
  }
  closedir(directory);
  lua_pushinteger(L, count);
  lua_insert(L, -2);
  return 2;
}

static lua_Integer status_kib(const char *text, const char *key) {
  const char *at = strstr(text, key);

  return at != NULL ? atoll(at + strlen(key)) : 0;
}

/* usage(PID): {cpu = seconds, rss, peak = bytes, threads, state = "S"}. */
static int usage(lua_State *L) {
  lua_Integer pid = luaL_optinteger(L, 1, getpid());
  unsigned long user, kernel;
  char text[8192], state;
  const char *at;

  if (!read_proc(pid, "stat", text, sizeof text))
    return sys_fail(L, errno);
  at = strrchr(text, ')');
  if (at == NULL || sscanf(at + 2,
                           "%c %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                           "%*s %lu %lu",
                           &state, &user, &kernel) != 3)
    return luaL_error(L, "cannot read /proc/%I/stat", pid);
  lua_newtable(L);
  lua_pushnumber(L, (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK));
  lua_setfield(L, -2, "cpu");
  lua_pushlstring(L, &state, 1);
  lua_setfield(L, -2, "state");
  if (!read_proc(pid, "status", text, sizeof text))
    return sys_fail(L, errno);
  lua_pushinteger(L, status_kib(text, "VmRSS:") * 1024);
  lua_setfield(L, -2, "rss");
  lua_pushinteger(L, status_kib(text, "VmHWM:") * 1024);
  lua_setfield(L, -2, "peak");
  lua_pushinteger(L, status_kib(text, "Threads:"));
  lua_setfield(L, -2, "threads");
  return 1;
}

/* children(): ids of this process's children, dead ones included. */
static int children(lua_State *L) {
  char name[64], text[65536];
  char *at = text, *end;
  lua_Integer count = 0;

  snprintf(name, sizeof name, "task/%ld/children", (long)getpid());
  if (!read_proc(getpid(), name, text, sizeof text))
    return sys_fail(L, errno);
  lua_newtable(L);
  for (;;) {
    long pid = strtol(at, &end, 10);
    if (end == at)
      break;
    lua_pushinteger(L, pid);
    lua_rawseti(L, -2, ++count);
    at = end;
  }
  return 1;
}

/* ---- small things ---------------------------------------------------------
 */

static int signal_number(lua_State *L, int arg) {
  static const struct {
    const char *name;
    int number;
  } names[] = {{"HUP", SIGHUP},   {"INT", SIGINT},   {"QUIT", SIGQUIT},
               {"KILL", SIGKILL}, {"TERM", SIGTERM}, {"STOP", SIGSTOP},
               {"CONT", SIGCONT}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}};

  if (lua_type(L, arg) == LUA_TNUMBER)
    return (int)luaL_checkinteger(L, arg);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strcmp(names[i].name, luaL_checkstring(L, arg)) == 0)
      return names[i].number;
  return luaL_argerror(L, arg, "unknown signal");
}

/* kill(PID, SIGNAL): true, or nil and why. A negative id is a group. */
static int kill_process(lua_State *L) {
  if (kill((pid_t)luaL_checkinteger(L, 1), signal_number(L, 2)) != 0)
    return sys_fail(L, errno);
  lua_pushboolean(L, 1);
  return 1;
}

/* reap(PID): takes the end of a child that is not a process object. */
static int reap(lua_State *L) {
  pid_t pid = waitpid((pid_t)luaL_checkinteger(L, 1), NULL, 0);

  lua_pushboolean(L, pid > 0);
  return 1;
}

/* nofile([LIMIT]): the soft limit of descriptors, set if one is given. */
static int nofile(lua_State *L) {
  struct rlimit limit;

  getrlimit(RLIMIT_NOFILE, &limit);
  lua_pushinteger(L, (lua_Integer)limit.rlim_cur);
  if (!lua_isnoneornil(L, 1)) {
    limit.rlim_cur = (rlim_t)luaL_checkinteger(L, 1);
    if (limit.rlim_cur > limit.rlim_max)
      limit.rlim_max = limit.rlim_cur;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
      return sys_fail(L, errno);
  }
  return 1;
}

static int make_directory(lua_State *L) {
  char path[] = "/tmp/relay-test.XXXXXX";

  if (mkdtemp(path) == NULL)
    return sys_fail(L, errno);
  chmod(path, 0755); /* programs under test may be another user's */
  lua_pushstring(L, path);
  return 1;
}

static int change_mode(lua_State *L) {
  if (chmod(luaL_checkstring(L, 1), (mode_t)luaL_checkinteger(L, 2)) != 0)
    return sys_fail(L, errno);
  lua_pushboolean(L, 1);
  return 1;
}

static int user_id(lua_State *L) {
  lua_pushinteger(L, geteuid());
  return 1;
}

static int process_id(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

/* pattern(SEED, OFFSET, COUNT): those bytes of the stream the pump sends. */
static int pattern(lua_State *L) {
  luaL_Buffer buffer;
  size_t count = (size_t)luaL_checkinteger(L, 3);
  char *bytes = luaL_buffinitsize(L, &buffer, count);

  sys_pattern((uint64_t)luaL_checkinteger(L, 1),
              (uint64_t)luaL_checkinteger(L, 2), (unsigned char *)bytes, count);
  luaL_pushresultsize(&buffer, count);
  return 1;
}

static const luaL_Reg functions[] = {{"now", now},
                                     {"timeout", timeout},
                                     {"sleep", sleep_for},
                                     {"watchdog", watchdog},
                                     {"fds", fds},
                                     {"usage", usage},
                                     {"children", children},
                                     {"kill", kill_process},
                                     {"reap", reap},
                                     {"nofile", nofile},
                                     {"mkdtemp", make_directory},
                                     {"chmod", change_mode},
                                     {"uid", user_id},
                                     {"pid", process_id},
                                     {"pattern", pattern},
                                     {NULL, NULL}};

int luaopen_sys(lua_State *L);

__attribute__((visibility("default"))) int luaopen_sys(lua_State *L) {
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_CHILD_SUBREAPER, 1); /* what our children leave comes to us */
  luaL_newlib(L, functions);
  sys_open_socket(L);
  sys_open_process(L);
  sys_open_pump(L);
  sys_open_tls(L);
  sys_open_netns(L);
  return 1;
}
