/* SPDX-License-Identifier: MIT */
/*
 * Faults at will: the linker's --wrap leads every fallible call of the library
 * through here, where the n-th call of one function can be made to fail. Only
 * calls between inject_enter and inject_leave count, so the test's own go
 * through untouched, and all those of threads that the library made.
 *
 * Not wrapped: what libuv does inside itself. libuv 1.44 aborts when its own
 * epoll_ctl fails in uv_run, or when it cannot grow its table of watchers; the
 * library makes that table large enough beforehand, and nobody can do more.
 */
#ifndef RELAY_TESTS_INJECT_H
#define RELAY_TESTS_INJECT_H

#include <stdatomic.h>
#include <stdbool.h>

/* Faults that are no errors. One byte goes, where more were asked for. */
#define INJECT_SHORT (-1)
/* The same, or none goes; and the realloc that is to keep the rest fails, which
   no single fault would make the library call. */
#define INJECT_TORN (-2)
#define INJECT_FULL (-3)

/* X(function, its likely errors, ended by 0). A name here is one in the list
   of test_inject.cmake, but for `openssl`: whatever OpenSSL allocates. */
#define INJECT_MAP(X)                                                          \
  X(openssl, ENOMEM)                                                           \
  X(malloc, ENOMEM)                                                            \
  X(calloc, ENOMEM)                                                            \
  X(strdup, ENOMEM)                                                            \
  X(opendir, EMFILE, ENOMEM)                                                   \
  X(getrlimit, EPERM)                                                          \
  X(pipe, EMFILE, ENFILE)                                                      \
  X(pipe2, EMFILE, ENFILE, ENOMEM)                                             \
  X(socket, EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES)                           \
  X(setsockopt, EINVAL, ENOMEM)                                                \
  X(getsockopt, EINVAL, ENOBUFS)                                               \
  X(getsockname, EINVAL, ENOBUFS)                                              \
  X(bind, EADDRINUSE, EACCES, EADDRNOTAVAIL, ENOMEM)                           \
  X(listen, EADDRINUSE, ENOBUFS)                                               \
  X(connect, EINTR, ECONNREFUSED, ENETUNREACH, ETIMEDOUT, EADDRNOTAVAIL,       \
    EAGAIN, EPERM)                                                             \
  X(accept4, EINTR, EAGAIN, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM,     \
    EPERM, EPROTO)                                                             \
  X(recv, EINTR, EAGAIN, ECONNRESET, ENOMEM, ETIMEDOUT, INJECT_SHORT)          \
  X(send, EINTR, EAGAIN, ECONNRESET, EPIPE, ENOBUFS, ENOMEM, ETIMEDOUT,        \
    INJECT_SHORT, INJECT_TORN, INJECT_FULL)                                    \
  X(splice, EINTR, EAGAIN, EINVAL, ENOMEM, ECONNRESET, EPIPE, ETIMEDOUT,       \
    INJECT_SHORT)                                                              \
  X(write, EINTR, EAGAIN, EPIPE, INJECT_SHORT)                                 \
  X(mkdir, EACCES, ENOSPC, EROFS)                                              \
  X(openat, EACCES, EMFILE, ENOSPC, EROFS)                                     \
  X(fdopendir, ENOMEM)                                                         \
  X(renameat, EIO, ENOSPC)                                                     \
  X(unlinkat, EIO, EROFS)                                                      \
  X(shutdown, ENOTCONN, ENOBUFS)                                               \
  X(fcntl, EPERM, EBUSY, EMFILE, EINVAL)                                       \
  X(ioctl, EINVAL, ENOTTY)                                                     \
  X(uv_poll_init, ENOMEM, EEXIST, EPERM)                                       \
  X(uv_poll_start, ENOMEM, EEXIST)                                             \
  X(uv_loop_init, ENOMEM, EMFILE)                                              \
  X(uv_async_init, ENOMEM, EMFILE)                                             \
  X(uv_mutex_init, ENOMEM)                                                     \
  X(uv_thread_create_ex, EAGAIN, ENOMEM)                                       \
  X(uv_random, EIO, EAGAIN, ENOSYS)                                            \
  X(uv_getaddrinfo, ENOMEM, EINVAL)                                            \
  X(open, EMFILE, EACCES, ENOENT, EINTR)                                       \
  X(fstat, EIO, ENOMEM)                                                        \
  X(read, EINTR, EIO, INJECT_SHORT)                                            \
  X(realpath, EACCES, EIO, ENOMEM)                                             \
  X(flock, EINTR, EWOULDBLOCK, ENOLCK)                                         \
  X(mkostemp, EACCES, ENOSPC, EMFILE)                                          \
  X(fchmod, EPERM, EIO)                                                        \
  X(fchown, EPERM, EIO)                                                        \
  X(fsync, EIO, ENOSPC)                                                        \
  X(rename, EACCES, EIO, ENOSPC)                                               \
  X(HMAC, ENOMEM)

enum inject_function {
#define INJECT_ENUM(name, ...) INJECT_##name,
  INJECT_MAP(INJECT_ENUM)
#undef INJECT_ENUM
      INJECT_COUNT
};

const char *inject_name(enum inject_function function);
/* Its faults, ended by 0. */
const int *inject_faults(enum inject_function function);
const char *inject_fault_name(int fault);

/* The nth call of `function` from now on fails, once. */
void inject_arm(enum inject_function function, unsigned nth, int fault);
/* Whether it came to that. */
bool inject_disarm(void);
/* Calls counted since it was armed. */
unsigned inject_calls(void);

/* Leads OpenSSL's allocations through here; before anything else of it. */
bool inject_openssl(void);

void inject_enter(void);
void inject_leave(void);

/* Blocks of memory that the library holds. */
extern atomic_long inject_blocks;
/* Times that realloc has failed. */
extern unsigned inject_reallocs_failed;

#endif
