/* SPDX-License-Identifier: MIT */
/*
 * Processes for tests. A child has its own process group, dies with us, and
 * inherits no descriptor but its standard ones. What it writes is kept whole:
 * through a pipe, or in a memory file, which never makes it wait for a reader.
 */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* What a child wrote to one of its outputs. */
struct capture {
  int fd; /* of a pipe or a memory file; -1: not captured */
  bool pipe;
  bool ended; /* a pipe's */
  char *bytes;
  size_t length, size;
  size_t line; /* where the next line to be read starts */
};

struct process {
  pid_t pid;
  int pidfd; /* -1 where the kernel has none */
  int input; /* our end of its standard input; -1 */
  struct capture captures[2];
  bool reaped;
  int status;
  struct rusage usage;
};

static struct process *check_process(lua_State *L) {
  return luaL_checkudata(L, 1, SYS_PROCESS);
}

static void close_fd(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

/* ---- spawning -------------------------------------------------------------
 */

/* All a child needs to know, gathered before the fork. */
struct plan {
  char **argv, **env;
  const char *cwd;
  struct passwd *user;
  rlim_t nofile;
  int fds[3];
  int report; /* where it says why it could not start */
};

/* Between fork and exec; never returns. */
static void become(const struct plan *plan) {
  struct rlimit limit = {plan->nofile, plan->nofile};
  int fds[3], error;

  setpgid(0, 0);
  signal(SIGPIPE, SIG_DFL);
  for (int i = 0; i < 3; i++) /* clear of 0 to 2 before they are laid */
    fds[i] = fcntl(plan->fds[i], F_DUPFD_CLOEXEC, 3);
  for (int i = 0; i < 3; i++)
    if (fds[i] < 0 || dup2(fds[i], i) < 0)
      goto failed;
  if (plan->cwd != NULL && chdir(plan->cwd) != 0)
    goto failed;
  if (plan->nofile != 0 && setrlimit(RLIMIT_NOFILE, &limit) != 0)
    goto failed;
  if (plan->user != NULL &&
      (setgroups(0, NULL) != 0 || setgid(plan->user->pw_gid) != 0 ||
       setuid(plan->user->pw_uid) != 0))
    goto failed;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  environ = plan->env;
  execvp(plan->argv[0], plan->argv);
failed:
  error = errno;
  if (write(plan->report, &error, sizeof error) != sizeof error)
    _exit(126);
  _exit(127);
}

/* The array part of the table at 1, as argv. Memory is Lua's. */
static char **plan_argv(lua_State *L) {
  size_t count = lua_rawlen(L, 1);
  char **argv = lua_newuserdatauv(L, (count + 1) * sizeof *argv, 0);

  if (count == 0)
    luaL_error(L, "no program is named");
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    argv[i] = (char *)(uintptr_t)luaL_checkstring(L, -1);
    lua_rawseti(L, 1, (lua_Integer)i + 1); /* a number is a string now */
  }
  argv[count] = NULL;
  return argv;
}

/* The environment with the table `env` laid over it; false takes one away. */
static char **plan_env(lua_State *L) {
  size_t count = 0, size = 0, kept = 0;
  char **env;

  while (environ[size] != NULL)
    size++;
  lua_getfield(L, 1, "env");
  if (!lua_istable(L, -1))
    return environ;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
    count++;
  env = lua_newuserdatauv(L, (size + count + 1) * sizeof *env, 0);
  lua_insert(L, -2);
  for (size_t i = 0; i < size; i++) {
    size_t length = strcspn(environ[i], "=");
    lua_pushlstring(L, environ[i], length);
    if (lua_gettable(L, -2) == LUA_TNIL)
      env[kept++] = environ[i];
    lua_pop(L, 1);
  }
  lua_newtable(L); /* keeps the new strings */
  for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1)) {
    if (lua_isboolean(L, -1) && !lua_toboolean(L, -1))
      continue;
    luaL_tolstring(L, -1, NULL);
    lua_pushfstring(L, "%s=%s", lua_tostring(L, -3), lua_tostring(L, -1));
    env[kept++] = (char *)(uintptr_t)lua_tostring(L, -1);
    lua_rawseti(L, -5, (lua_Integer)kept);
    lua_pop(L, 1);
  }
  env[kept] = NULL;
  return env;
}

static int open_or_raise(lua_State *L, const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC, 0644);

  if (fd < 0)
    luaL_error(L, "%s: %s", path, strerror(errno));
  return fd;
}

static void make_pipe(lua_State *L, int *ours, int *theirs, bool we_read) {
  int both[2];

  if (pipe2(both, O_CLOEXEC) != 0)
    luaL_error(L, "pipe: %s", strerror(errno));
  *ours = both[we_read ? 0 : 1];
  *theirs = both[we_read ? 1 : 0];
  fcntl(*ours, F_SETFL, O_NONBLOCK);
}

/* stdin: "null" (default), "pipe", or a path. */
static void plan_input(lua_State *L, struct process *process, int *theirs) {
  const char *how = sys_field_string(L, 1, "stdin");

  if (how == NULL || strcmp(how, "null") == 0)
    *theirs = open_or_raise(L, "/dev/null", O_RDONLY);
  else if (strcmp(how, "pipe") == 0)
    make_pipe(L, &process->input, theirs, false);
  else
    *theirs = open_or_raise(L, how, O_RDONLY);
}

/* stdout, stderr: "pipe", "memory", "null", "inherit", or a path. */
static void plan_output(lua_State *L, struct capture *capture, int *theirs,
                        int number) {
  const char *how = sys_field_string(L, 1, number == 1 ? "stdout" : "stderr");

  if (how == NULL)
    how = number == 1 ? "pipe" : "memory";
  if (strcmp(how, "pipe") == 0) {
    make_pipe(L, &capture->fd, theirs, true);
    capture->pipe = true;
  } else if (strcmp(how, "memory") == 0) {
    capture->fd = memfd_create("output", MFD_CLOEXEC);
    if (capture->fd < 0)
      luaL_error(L, "memfd_create: %s", strerror(errno));
    fcntl(capture->fd, F_SETFL, O_APPEND);
    *theirs = fcntl(capture->fd, F_DUPFD_CLOEXEC, 3);
    fchmod(capture->fd, 0666);
  } else if (strcmp(how, "inherit") == 0) {
    *theirs = fcntl(number, F_DUPFD_CLOEXEC, 3);
  } else {
    *theirs = open_or_raise(L, strcmp(how, "null") == 0 ? "/dev/null" : how,
                            O_WRONLY | O_CREAT | O_APPEND);
  }
}

static struct passwd *plan_user(lua_State *L) {
  const char *name = sys_field_string(L, 1, "user");
  struct passwd *user = name != NULL ? getpwnam(name) : NULL;

  if (name != NULL && user == NULL)
    luaL_error(L, "no such user: %s", name);
  return user;
}

static struct process *push_process(lua_State *L) {
  struct process *process = lua_newuserdatauv(L, sizeof *process, 0);

  memset(process, 0, sizeof *process);
  process->pid = -1;
  process->pidfd = process->input = -1;
  process->captures[0].fd = process->captures[1].fd = -1;
  process->reaped = true; /* until there is one */
  luaL_setmetatable(L, SYS_PROCESS);
  return process;
}

/* spawn{PROGRAM, ARG, …, env=, cwd=, user=, nofile=, stdin=, stdout=, stderr=}:
   a process; or nil and why it could not be started. */
static int spawn(lua_State *L) {
  struct plan plan;
  struct process *process;
  int error = 0, report;

  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  memset(&plan, 0, sizeof plan);
  plan.argv = plan_argv(L);
  plan.env = plan_env(L);
  plan.cwd = sys_field_string(L, 1, "cwd");
  plan.user = plan_user(L);
  plan.nofile = (rlim_t)sys_field_integer(L, 1, "nofile", 0);
  process = push_process(L);
  plan_input(L, process, &plan.fds[0]);
  plan_output(L, &process->captures[0], &plan.fds[1], 1);
  plan_output(L, &process->captures[1], &plan.fds[2], 2);
  make_pipe(L, &report, &plan.report, true);
  fcntl(report, F_SETFL, 0);

  process->pid = fork();
  if (process->pid == 0)
    become(&plan);
  for (int i = 0; i < 3; i++)
    close(plan.fds[i]);
  close(plan.report);
  if (process->pid < 0) {
    close(report);
    return luaL_error(L, "fork: %s", strerror(errno));
  }
  process->reaped = false;
  while (read(report, &error, sizeof error) < 0 && errno == EINTR)
    ;
  close(report);
  if (error != 0) {
    waitpid(process->pid, NULL, 0);
    process->reaped = true;
    return sys_fail(L, error);
  }
  process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
  if (process->pidfd >= 0)
    fcntl(process->pidfd, F_SETFD, FD_CLOEXEC);
  return 1;
}

/* ---- its end --------------------------------------------------------------
 */

static bool try_reap(struct process *process) {
  if (!process->reaped &&
      wait4(process->pid, &process->status, WNOHANG, &process->usage) > 0) {
    process->reaped = true;
    close_fd(&process->pidfd);
  }
  return process->reaped;
}

static void push_end(lua_State *L, const struct process *process) {
  if (WIFSIGNALED(process->status)) {
    lua_pushliteral(L, "signal");
    lua_pushinteger(L, WTERMSIG(process->status));
  } else {
    lua_pushliteral(L, "exit");
    lua_pushinteger(L, WEXITSTATUS(process->status));
  }
}

/* process:wait([TIMEOUT]): "exit", STATUS or "signal", NUMBER; or nil,
   "timeout". */
static int wait_end(lua_State *L) {
  struct process *process = check_process(L);
  double deadline = sys_deadline(L, 2);

  while (!try_reap(process)) {
    if (sys_left_ms(deadline) == 0)
      return sys_fail(L, 0);
    if (process->pidfd >= 0) {
      sys_wait_fd(L, process->pidfd, POLLIN, deadline);
    } else {
      poll(NULL, 0, 2);
      sys_check_watchdog(L);
    }
  }
  push_end(L, process);
  return 2;
}

static int running(lua_State *L) {
  lua_pushboolean(L, !try_reap(check_process(L)));
  return 1;
}

static int pid_of(lua_State *L) {
  lua_pushinteger(L, check_process(L)->pid);
  return 1;
}

/* What it used in all, once it has ended: {cpu = seconds, peak = bytes}. */
static int used(lua_State *L) {
  struct process *process = check_process(L);
  struct timeval user = process->usage.ru_utime, kernel;

  kernel = process->usage.ru_stime;
  if (!try_reap(process))
    return sys_fail(L, EBUSY);
  lua_newtable(L);
  lua_pushnumber(L, (double)(user.tv_sec + kernel.tv_sec) +
                        (double)(user.tv_usec + kernel.tv_usec) / 1e6);
  lua_setfield(L, -2, "cpu");
  lua_pushinteger(L, process->usage.ru_maxrss * 1024);
  lua_setfield(L, -2, "peak");
  return 1;
}

/* ---- its output -----------------------------------------------------------
 */

static void grow(lua_State *L, struct capture *capture) {
  size_t size = capture->size == 0 ? 8192 : capture->size * 2;
  char *bytes;

  if (capture->size - capture->length >= 4096)
    return;
  bytes = realloc(capture->bytes, size);
  if (bytes == NULL)
    luaL_error(L, "out of memory");
  capture->bytes = bytes;
  capture->size = size;
}

/* Takes in what is there. */
static void pull(lua_State *L, struct capture *capture) {
  while (capture->fd >= 0) {
    ssize_t count;
    grow(L, capture);
    if (capture->pipe)
      count = read(capture->fd, capture->bytes + capture->length,
                   capture->size - capture->length);
    else
      count = pread(capture->fd, capture->bytes + capture->length,
                    capture->size - capture->length, (off_t)capture->length);
    if (count < 0 && errno == EINTR)
      continue;
    if (capture->pipe && count == 0)
      capture->ended = true;
    if (count <= 0)
      return;
    capture->length += (size_t)count;
  }
}

static struct capture *check_capture(lua_State *L, int arg) {
  static const char *const names[] = {"stdout", "stderr", NULL};
  struct process *process = check_process(L);

  return &process->captures[luaL_checkoption(L, arg, "stdout", names)];
}

/* process:text(["stdout" | "stderr"]): all it wrote so far. */
static int text(lua_State *L) {
  struct capture *capture = check_capture(L, 2);

  pull(L, capture);
  lua_pushlstring(L, capture->bytes != NULL ? capture->bytes : "",
                  capture->length);
  return 1;
}

static bool push_line(lua_State *L, struct capture *capture, bool last) {
  char *start = capture->bytes + capture->line;
  size_t left = capture->length - capture->line;
  char *end = left > 0 ? memchr(start, '\n', left) : NULL;

  if (end == NULL && (!last || left == 0))
    return false;
  if (end != NULL)
    left = (size_t)(end - start);
  lua_pushlstring(L, start, left);
  capture->line += left + (end != NULL);
  return true;
}

/* process:read_line([TIMEOUT [, "stdout" | "stderr"]]): the next line; or nil,
   "eof" or "timeout". Each line is read once. */
static int read_line(lua_State *L) {
  struct process *process = check_process(L);
  double deadline = sys_deadline(L, 2);
  struct capture *capture = check_capture(L, 3);

  for (;;) {
    bool ended = try_reap(process);
    pull(L, capture);
    if (capture->pipe)
      ended = capture->ended;
    if (push_line(L, capture, ended))
      return 1;
    if (ended) {
      lua_pushnil(L);
      lua_pushliteral(L, "eof");
      return 2;
    }
    if (sys_left_ms(deadline) == 0)
      return sys_fail(L, 0);
    if (capture->pipe) {
      sys_wait_fd(L, capture->fd, POLLIN, deadline);
    } else {
      poll(NULL, 0, 2);
      sys_check_watchdog(L);
    }
  }
}

/* ---- its input ------------------------------------------------------------
 */

/* process:write(BYTES [, TIMEOUT]): true; or nil, why, how many were taken. */
static int write_input(lua_State *L) {
  struct process *process = check_process(L);
  size_t count, done = 0;
  const char *bytes = luaL_checklstring(L, 2, &count);
  double deadline = sys_deadline(L, 3);
  int error = -1;

  while (done < count && error == -1) {
    ssize_t taken = write(process->input, bytes + done, count - done);
    if (taken >= 0)
      done += (size_t)taken;
    else if (errno == EAGAIN)
      error = sys_wait_fd(L, process->input, POLLOUT, deadline) ? -1 : 0;
    else if (errno != EINTR)
      error = errno;
  }
  if (error == -1) {
    lua_pushboolean(L, 1);
    return 1;
  }
  sys_fail(L, error);
  lua_pushinteger(L, (lua_Integer)done);
  return 3;
}

static int close_input(lua_State *L) {
  close_fd(&check_process(L)->input);
  return 0;
}

/* One that was forgotten is killed. */
static int collect(lua_State *L) {
  struct process *process = check_process(L);

  if (!try_reap(process)) {
    kill(process->pid, SIGKILL);
    waitpid(process->pid, NULL, 0);
    process->reaped = true;
  }
  close_fd(&process->pidfd);
  close_fd(&process->input);
  for (int i = 0; i < 2; i++) {
    close_fd(&process->captures[i].fd);
    free(process->captures[i].bytes);
    process->captures[i].bytes = NULL;
    process->captures[i].length = process->captures[i].size = 0;
  }
  return 0;
}

static const luaL_Reg methods[] = {{"wait", wait_end},
                                   {"running", running},
                                   {"pid", pid_of},
                                   {"used", used},
                                   {"text", text},
                                   {"read_line", read_line},
                                   {"write", write_input},
                                   {"close_stdin", close_input},
                                   {"close", collect},
                                   {"__gc", collect},
                                   {NULL, NULL}};

void sys_open_process(lua_State *L) {
  lua_pushcfunction(L, spawn);
  lua_setfield(L, -2, "spawn");
  luaL_newmetatable(L, SYS_PROCESS);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
