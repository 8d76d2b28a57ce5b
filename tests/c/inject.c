/* SPDX-License-Identifier: MIT */
/*
 * The wrapped calls. See inject.h. __wrap_f is what the library's call of f
 * becomes, __real_f is f: both names are the linker's.
 */
#include "inject.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <relay/base.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

atomic_long inject_blocks;
unsigned inject_reallocs_failed;

static struct {
  atomic_int function; /* -1: none */
  atomic_uint nth;
  atomic_uint calls;
  atomic_int fault;
  atomic_bool fired;
} armed = {.function = -1};

/* What a thread of the library's own calls is the library's. */
static _Thread_local bool is_outside;
static _Thread_local bool no_memory; /* for the next realloc */

const char *inject_name(enum inject_function function) {
  static const char *const names[] = {
#define NAME(name, ...) #name,
      INJECT_MAP(NAME)
#undef NAME
  };

  return names[function];
}

const int *inject_faults(enum inject_function function) {
#define FAULTS(name, ...) static const int faults_##name[] = {__VA_ARGS__, 0};
  INJECT_MAP(FAULTS)
#undef FAULTS
  static const int *const faults[] = {
#define LIST(name, ...) faults_##name,
      INJECT_MAP(LIST)
#undef LIST
  };

  return faults[function];
}

const char *inject_fault_name(int fault) {
  return fault == INJECT_SHORT  ? "one byte"
         : fault == INJECT_TORN ? "one byte, no memory"
         : fault == INJECT_FULL ? "no byte, no memory"
                                : relay_error_name(-fault);
}

void inject_arm(enum inject_function function, unsigned nth, int fault) {
  armed.nth = nth;
  armed.calls = 0;
  armed.fault = fault;
  armed.fired = false;
  armed.function = (int)function; /* the last: others may be calling */
  no_memory = false;
}

bool inject_disarm(void) {
  armed.function = -1;
  no_memory = false;
  return armed.fired;
}

unsigned inject_calls(void) {
  return armed.calls;
}

void inject_enter(void) {
  is_outside = false;
}

void inject_leave(void) {
  is_outside = true;
}

/* The fault this call is to have; 0: none. */
static int next_fault(enum inject_function function) {
  if (is_outside || armed.function != (int)function ||
      ++armed.calls != armed.nth)
    return 0;
  armed.fired = true;
  return armed.fault;
}

/* Whether this call fails, with errno set. Bytes are not asked for here. */
static bool fails(enum inject_function function) {
  int fault = next_fault(function);

  if (fault != 0)
    errno = fault;
  return fault != 0;
}

/* The same for a call that moves bytes: it may move one only. */
static bool fails_or_shortens(enum inject_function function, size_t *size) {
  int fault = next_fault(function);

  no_memory |= fault == INJECT_TORN || fault == INJECT_FULL;
  if (fault == INJECT_FULL)
    fault = EAGAIN;
  if (fault < 0 && *size > 1)
    *size = 1;
  if (fault > 0)
    errno = fault;
  return fault > 0;
}

/* Declares both names of a call, and begins the one that is called. */
#define WRAP(type, name, ...)                                                  \
  type __real_##name(__VA_ARGS__);                                             \
  type __wrap_##name(__VA_ARGS__);                                             \
  type __wrap_##name(__VA_ARGS__)

/* ---- memory ----------------------------------------------------------- */

static void *count_block(void *block) {
  if (block != NULL)
    inject_blocks++;
  return block;
}

WRAP(void *, malloc, size_t size) {
  return fails(INJECT_malloc) ? NULL : count_block(__real_malloc(size));
}

WRAP(void *, calloc, size_t count, size_t size) {
  return fails(INJECT_calloc) ? NULL : count_block(__real_calloc(count, size));
}

WRAP(void *, realloc, void *block, size_t size) {
  void *grown;

  if (no_memory) {
    no_memory = false;
    inject_reallocs_failed++;
    errno = ENOMEM;
    return NULL;
  }
  grown = __real_realloc(block, size);
  return block == NULL ? count_block(grown) : grown;
}

WRAP(char *, strdup, const char *text) {
  return fails(INJECT_strdup) ? NULL : count_block(__real_strdup(text));
}

WRAP(void, free, void *block) {
  if (block != NULL)
    inject_blocks--;
  __real_free(block);
}

/* ---- descriptors ------------------------------------------------------ */

WRAP(DIR *, opendir, const char *path) {
  return fails(INJECT_opendir) ? NULL : __real_opendir(path);
}

WRAP(int, getrlimit, int resource, struct rlimit *limit) {
  return fails(INJECT_getrlimit) ? -1 : __real_getrlimit(resource, limit);
}

WRAP(int, pipe, int *fds) {
  return fails(INJECT_pipe) ? -1 : __real_pipe(fds);
}

WRAP(int, pipe2, int *fds, int flags) {
  return fails(INJECT_pipe2) ? -1 : __real_pipe2(fds, flags);
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...) {
  va_list arguments;
  long argument;

  va_start(arguments, command);
  argument = va_arg(arguments, long); /* all of ours are integers, or none */
  va_end(arguments);
  return fails(INJECT_fcntl) ? -1 : __real_fcntl(fd, command, argument);
}

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  void *argument;

  va_start(arguments, request);
  argument = va_arg(arguments, void *);
  va_end(arguments);
  return fails(INJECT_ioctl) ? -1 : __real_ioctl(fd, request, argument);
}

/* ---- directories ------------------------------------------------------ */

WRAP(int, mkdir, const char *path, mode_t mode) {
  return fails(INJECT_mkdir) ? -1 : __real_mkdir(path, mode);
}

/* The mode of a call without one is never looked at. */
int __real_openat(int directory, const char *path, int flags, ...);
int __wrap_openat(int directory, const char *path, int flags, ...);
int __wrap_openat(int directory, const char *path, int flags, ...) {
  return fails(INJECT_openat) ? -1
                              : __real_openat(directory, path, flags, 0600);
}

WRAP(DIR *, fdopendir, int fd) {
  return fails(INJECT_fdopendir) ? NULL : __real_fdopendir(fd);
}

WRAP(int, renameat, int from, const char *name, int to, const char *target) {
  return fails(INJECT_renameat) ? -1 : __real_renameat(from, name, to, target);
}

WRAP(int, unlinkat, int directory, const char *name, int flags) {
  return fails(INJECT_unlinkat) ? -1 : __real_unlinkat(directory, name, flags);
}

/* ---- sockets ---------------------------------------------------------- */

WRAP(int, socket, int domain, int type, int protocol) {
  return fails(INJECT_socket) ? -1 : __real_socket(domain, type, protocol);
}

WRAP(int, setsockopt, int fd, int level, int name, const void *value,
     socklen_t length) {
  return fails(INJECT_setsockopt)
             ? -1
             : __real_setsockopt(fd, level, name, value, length);
}

WRAP(int, getsockopt, int fd, int level, int name, void *value,
     socklen_t *length) {
  return fails(INJECT_getsockopt)
             ? -1
             : __real_getsockopt(fd, level, name, value, length);
}

WRAP(int, getsockname, int fd, struct sockaddr *address, socklen_t *length) {
  return fails(INJECT_getsockname) ? -1
                                   : __real_getsockname(fd, address, length);
}

WRAP(int, bind, int fd, const struct sockaddr *address, socklen_t length) {
  return fails(INJECT_bind) ? -1 : __real_bind(fd, address, length);
}

WRAP(int, listen, int fd, int backlog) {
  return fails(INJECT_listen) ? -1 : __real_listen(fd, backlog);
}

WRAP(int, connect, int fd, const struct sockaddr *address, socklen_t length) {
  return fails(INJECT_connect) ? -1 : __real_connect(fd, address, length);
}

WRAP(int, accept4, int fd, struct sockaddr *address, socklen_t *length,
     int flags) {
  return fails(INJECT_accept4) ? -1
                               : __real_accept4(fd, address, length, flags);
}

WRAP(int, shutdown, int fd, int how) {
  return fails(INJECT_shutdown) ? -1 : __real_shutdown(fd, how);
}

/* ---- bytes ------------------------------------------------------------ */

WRAP(ssize_t, recv, int fd, void *bytes, size_t size, int flags) {
  return fails_or_shortens(INJECT_recv, &size)
             ? -1
             : __real_recv(fd, bytes, size, flags);
}

WRAP(ssize_t, send, int fd, const void *bytes, size_t size, int flags) {
  return fails_or_shortens(INJECT_send, &size)
             ? -1
             : __real_send(fd, bytes, size, flags);
}

WRAP(ssize_t, splice, int from, off64_t *from_at, int to, off64_t *to_at,
     size_t size, unsigned flags) {
  return fails_or_shortens(INJECT_splice, &size)
             ? -1
             : __real_splice(from, from_at, to, to_at, size, flags);
}

WRAP(ssize_t, write, int fd, const void *bytes, size_t size) {
  return fails_or_shortens(INJECT_write, &size) ? -1
                                                : __real_write(fd, bytes, size);
}

/* ---- files ------------------------------------------------------------ */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
  /* None of ours makes a file. */
  return fails(INJECT_open) ? -1 : __real_open(path, flags);
}

WRAP(int, fstat, int fd, struct stat *file) {
  return fails(INJECT_fstat) ? -1 : __real_fstat(fd, file);
}

WRAP(ssize_t, read, int fd, void *bytes, size_t size) {
  return fails_or_shortens(INJECT_read, &size) ? -1
                                               : __real_read(fd, bytes, size);
}

WRAP(char *, realpath, const char *path, char *resolved) {
  return fails(INJECT_realpath) ? NULL
                                : count_block(__real_realpath(path, resolved));
}

WRAP(int, flock, int fd, int operation) {
  return fails(INJECT_flock) ? -1 : __real_flock(fd, operation);
}

WRAP(int, mkostemp, char *template, int flags) {
  return fails(INJECT_mkostemp) ? -1 : __real_mkostemp(template, flags);
}

WRAP(int, fchmod, int fd, mode_t mode) {
  return fails(INJECT_fchmod) ? -1 : __real_fchmod(fd, mode);
}

WRAP(int, fchown, int fd, uid_t user, gid_t group) {
  return fails(INJECT_fchown) ? -1 : __real_fchown(fd, user, group);
}

WRAP(int, fsync, int fd) {
  return fails(INJECT_fsync) ? -1 : __real_fsync(fd);
}

WRAP(int, rename, const char *from, const char *to) {
  return fails(INJECT_rename) ? -1 : __real_rename(from, to);
}

/* ---- OpenSSL ---------------------------------------------------------- */

static void *openssl_malloc(size_t size, const char *file, int line) {
  (void)file, (void)line;
  return fails(INJECT_openssl) ? NULL : __real_malloc(size);
}

static void *openssl_realloc(void *block, size_t size, const char *file,
                             int line) {
  (void)file, (void)line;
  return fails(INJECT_openssl) ? NULL : __real_realloc(block, size);
}

static void openssl_free(void *block, const char *file, int line) {
  (void)file, (void)line;
  __real_free(block);
}

bool inject_openssl(void) {
  return CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc,
                                  openssl_free) == 1;
}

WRAP(unsigned char *, HMAC, const EVP_MD *kind, const void *key, int key_size,
     const unsigned char *bytes, size_t count, unsigned char *digest,
     unsigned *size) {
  return fails(INJECT_HMAC)
             ? NULL
             : __real_HMAC(kind, key, key_size, bytes, count, digest, size);
}

/* ---- libuv ------------------------------------------------------------ */

WRAP(int, uv_poll_init, uv_loop_t *loop, uv_poll_t *handle, int fd) {
  int fault = next_fault(INJECT_uv_poll_init);

  return fault != 0 ? -fault : __real_uv_poll_init(loop, handle, fd);
}

WRAP(int, uv_poll_start, uv_poll_t *handle, int events, uv_poll_cb callback) {
  int fault = next_fault(INJECT_uv_poll_start);

  return fault != 0 ? -fault : __real_uv_poll_start(handle, events, callback);
}

WRAP(int, uv_loop_init, uv_loop_t *loop) {
  int fault = next_fault(INJECT_uv_loop_init);

  return fault != 0 ? -fault : __real_uv_loop_init(loop);
}

WRAP(int, uv_async_init, uv_loop_t *loop, uv_async_t *handle,
     uv_async_cb callback) {
  int fault = next_fault(INJECT_uv_async_init);

  return fault != 0 ? -fault : __real_uv_async_init(loop, handle, callback);
}

WRAP(int, uv_mutex_init, uv_mutex_t *mutex) {
  int fault = next_fault(INJECT_uv_mutex_init);

  return fault != 0 ? -fault : __real_uv_mutex_init(mutex);
}

WRAP(int, uv_thread_create_ex, uv_thread_t *thread,
     const uv_thread_options_t *options, uv_thread_cb entry, void *argument) {
  int fault = next_fault(INJECT_uv_thread_create_ex);

  return fault != 0
             ? -fault
             : __real_uv_thread_create_ex(thread, options, entry, argument);
}

WRAP(int, uv_random, uv_loop_t *loop, uv_random_t *request, void *bytes,
     size_t size, unsigned flags, uv_random_cb callback) {
  int fault = next_fault(INJECT_uv_random);

  return fault != 0
             ? -fault
             : __real_uv_random(loop, request, bytes, size, flags, callback);
}

WRAP(int, uv_getaddrinfo, uv_loop_t *loop, uv_getaddrinfo_t *request,
     uv_getaddrinfo_cb callback, const char *node, const char *service,
     const struct addrinfo *hints) {
  int fault = next_fault(INJECT_uv_getaddrinfo);

  return fault != 0 ? -fault
                    : __real_uv_getaddrinfo(loop, request, callback, node,
                                            service, hints);
}
