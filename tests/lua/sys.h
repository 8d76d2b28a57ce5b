/* SPDX-License-Identifier: MIT */
/*
 * What the parts of sys.so share. Every call that can wait takes a time-out in
 * seconds (the default is set by sys.timeout) and ends when the watchdog of
 * the running test does. Outcomes a test may want to see are returned as
 * nil, "name"; misuse is an error.
 */
#ifndef RELAY_TESTS_SYS_H
#define RELAY_TESTS_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>

#define SYS_SOCKET "sys.socket"
#define SYS_PROCESS "sys.process"

/* Seconds on the monotonic clock. */
double sys_now(void);
/* When the time-out at stack index `arg`, or the default, is over. */
double sys_deadline(lua_State *L, int arg);
/* Milliseconds left, rounded up, for poll. */
int sys_left_ms(double deadline);
/* Raises when the watchdog has barked. */
void sys_check_watchdog(lua_State *L);
/* 1: ready (or in error); 0: the deadline came first. */
int sys_wait_fd(lua_State *L, int fd, short events, double deadline);

/* Returns nil and the error's name: "reset" for a reset connection, "timeout"
   for 0, else as errno(3) spells it. */
int sys_fail(lua_State *L, int error);
const char *sys_error_name(int error);

/* Fields of the table at index `table`; the fallback when absent. */
lua_Integer sys_field_integer(lua_State *L, int table, const char *key,
                              lua_Integer fallback);
bool sys_field_bool(lua_State *L, int table, const char *key);
/* Borrowed from the table; NULL when absent. */
const char *sys_field_string(lua_State *L, int table, const char *key);

/* The descriptor of the socket at a stack index; raises when it is closed. */
int sys_socket_fd(lua_State *L, int index);

/* Bytes [offset, offset + count) of the endless stream named by `seed`. */
void sys_pattern(uint64_t seed, uint64_t offset, unsigned char *bytes,
                 size_t count);

void sys_open_socket(lua_State *L); /* adds to the module on the stack top */
void sys_open_process(lua_State *L);
void sys_open_pump(lua_State *L);
void sys_open_tls(lua_State *L);
void sys_open_netns(lua_State *L);

#endif
