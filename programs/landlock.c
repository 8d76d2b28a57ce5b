/* SPDX-License-Identifier: MIT */
/* See landlock.h. glibc has no functions for it; its own rights are listed here
   as the kernel numbers them, since headers are older than kernels. */
#include "landlock.h"

#include <uv.h>

#if defined(__linux__) && defined(__has_include)
#if __has_include(<linux/landlock.h>)
#define HAS_LANDLOCK
#endif
#endif

#ifndef HAS_LANDLOCK

int landlock_begin(struct landlock *landlock, bool connect) {
  (void)connect;
  *landlock = (struct landlock){0, -1};
  return UV_ENOTSUP;
}

int landlock_allow(struct landlock *landlock, const char *path,
                   enum landlock_access access) {
  (void)landlock, (void)path, (void)access;
  return UV_ENOTSUP;
}

int landlock_confine(struct landlock *landlock) {
  (void)landlock;
  return UV_ENOTSUP;
}

#else

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REFER (1ULL << 13)     /* from version 2 on */
#define TRUNCATE (1ULL << 14)  /* 3 */
#define IOCTL_DEV (1ULL << 15) /* 5 */

#define READS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITES                                                                 \
  (READS | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |    \
   LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |               \
   LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SYM |                 \
   LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SOCK | REFER |       \
   TRUNCATE | IOCTL_DEV)
#define OF_FILES                                                               \
  (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |                 \
   LANDLOCK_ACCESS_FS_WRITE_FILE | TRUNCATE | IOCTL_DEV)
#define CONNECT_TCP (1ULL << 1)
#define ABSTRACT_SOCKETS (1ULL << 0)
#define SIGNALS (1ULL << 1)

/* As version 6 has it; older kernels take the beginning. */
struct rules {
  uint64_t files;
  uint64_t net;
  uint64_t scoped;
};

static size_t size_of_rules(int version) {
  return version >= 6   ? sizeof(struct rules)
         : version >= 4 ? offsetof(struct rules, scoped)
                        : offsetof(struct rules, net);
}

/* All rights over files that the kernel knows: what is not allowed is denied.
 */
static uint64_t known_rights(int version) {
  uint64_t rights = REFER - 1;

  if (version >= 2)
    rights |= REFER;
  if (version >= 3)
    rights |= TRUNCATE;
  if (version >= 5)
    rights |= IOCTL_DEV;
  return rights;
}

int landlock_begin(struct landlock *landlock, bool connect) {
  struct rules rules;
  long version = syscall(SYS_landlock_create_ruleset, NULL, 0,
                         LANDLOCK_CREATE_RULESET_VERSION);
  long fd;

  *landlock = (struct landlock){0, -1};
  if (version < 1)
    return UV_ENOTSUP;
  rules.files = known_rights((int)version);
  rules.net = connect ? 0 : CONNECT_TCP;
  rules.scoped = ABSTRACT_SOCKETS | SIGNALS;
  fd = syscall(SYS_landlock_create_ruleset, &rules, size_of_rules((int)version),
               0);
  if (fd < 0)
    return -errno;
  *landlock = (struct landlock){(int)version, (int)fd};
  return 0;
}

static uint64_t rights_of(enum landlock_access access) {
  switch (access) {
  case LANDLOCK_WRITE:
    return WRITES;
  case LANDLOCK_EXEC:
    return READS | LANDLOCK_ACCESS_FS_EXECUTE;
  default:
    return READS;
  }
}

int landlock_allow(struct landlock *landlock, const char *path,
                   enum landlock_access access) {
  struct landlock_path_beneath_attr rule;
  struct stat file;
  int err = 0;

  rule.allowed_access = rights_of(access) & known_rights(landlock->version);
  rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
  if (rule.parent_fd < 0)
    return -errno;
  if (fstat(rule.parent_fd, &file) == 0 && !S_ISDIR(file.st_mode))
    rule.allowed_access &= OF_FILES;
  if (syscall(SYS_landlock_add_rule, landlock->fd, LANDLOCK_RULE_PATH_BENEATH,
              &rule, 0) != 0)
    err = -errno;
  close(rule.parent_fd);
  return err;
}

int landlock_confine(struct landlock *landlock) {
  int err = 0;

  if (syscall(SYS_landlock_restrict_self, landlock->fd, 0) != 0)
    err = -errno;
  close(landlock->fd);
  landlock->fd = -1;
  return err;
}

#endif
