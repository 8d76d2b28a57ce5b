/* SPDX-License-Identifier: MIT */
/*
 * Sockets of the test itself in a network namespace: a socket stays where it
 * was made, so a short visit is enough.
 */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int open_space(const char *pid) {
  char path[64];

  snprintf(path, sizeof path, "/proc/%s/ns/net", pid);
  return open(path, O_RDONLY | O_CLOEXEC);
}

/* 0, or an errno. */
static int enter(const char *pid) {
  int fd = open_space(pid), error = 0;

  if (fd < 0)
    return errno;
  if (setns(fd, CLONE_NEWNET) != 0)
    error = errno;
  close(fd);
  return error;
}

/* inside(PID, FUNCTION, …): calls it in the network namespace of a process, and
   returns what it does; or nil and why it cannot be entered. */
static int inside(lua_State *L) {
  const char *pid = luaL_checkstring(L, 1);
  int home = open_space("self"), error, status;

  if (home < 0)
    return sys_fail(L, errno);
  error = enter(pid);
  if (error != 0) {
    close(home);
    return sys_fail(L, error);
  }
  status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
  error = setns(home, CLONE_NEWNET) != 0 ? errno : 0;
  close(home);
  if (error != 0)
    return luaL_error(L, "no way back: %s", strerror(error));
  return status == LUA_OK ? lua_gettop(L) - 1 : lua_error(L);
}

void sys_open_netns(lua_State *L) {
  lua_pushcfunction(L, inside);
  lua_setfield(L, -2, "inside");
}
