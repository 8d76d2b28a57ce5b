/* SPDX-License-Identifier: MIT */
/* See privileges.h. Capabilities are those of Linux; a user is one anywhere. */
#include "privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <relay/base.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

/* ---- capabilities ----------------------------------------------------- */

#ifdef __linux__

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "confine_build.h"

#define BIT(capability) (1ULL << (capability))
#define OF_A_USER BIT(CAP_NET_BIND_SERVICE)
#define OF_ROOT (OF_A_USER | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_SYS_RESOURCE))

static int get_permitted(uint64_t *set) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];

  if (syscall(SYS_capget, &header, data) != 0)
    return -errno;
  *set = data[0].permitted | (uint64_t)data[1].permitted << 32;
  return 0;
}

/* Those of `kept` that it has, and no other, now or ever again. */
static int keep(uint64_t kept) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  uint64_t had = 0;
  int err = get_permitted(&had);

  if (err != 0)
    return err;
  kept &= had;
  memset(data, 0, sizeof(data));
  data[0].permitted = data[0].effective = (uint32_t)kept;
  data[1].permitted = data[1].effective = (uint32_t)(kept >> 32);
  return syscall(SYS_capset, &header, data) == 0 ? 0 : -errno;
}

/* What a program that is executed could get back. */
static void close_bounds(void) {
  for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
    prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
}

static int begin_change(void) {
  close_bounds();
  return prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0 ? 0 : -errno;
}

static int end_change(void) {
  if (CONFINE_SANITIZED)
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  return keep(OF_A_USER);
}

int privileges_reduce(void) {
  close_bounds();
  return keep(OF_ROOT);
}

void privileges_describe(char *text, size_t size) {
  static const struct {
    uint64_t bit;
    const char *name;
  } known[] = {{BIT(CAP_NET_BIND_SERVICE), "net_bind_service"},
               {BIT(CAP_DAC_OVERRIDE), "dac_override"},
               {BIT(CAP_SYS_RESOURCE), "sys_resource"}};
  uint64_t set = 0;
  size_t length = 0;

  (void)get_permitted(&set);
  snprintf(text, size, "%s", set == 0 ? "none" : "all");
  if ((set & ~OF_ROOT) != 0)
    return;
  for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
    if ((set & known[i].bit) != 0 && length < size)
      length += (size_t)snprintf(text + length, size - length, "%s%s",
                                 length != 0 ? " " : "", known[i].name);
}

#else

static int begin_change(void) {
  return 0;
}

static int end_change(void) {
  return 0;
}

int privileges_reduce(void) {
  return 0;
}

void privileges_describe(char *text, size_t size) {
  snprintf(text, size, "%s", geteuid() == 0 ? "all" : "none");
}

#endif

/* ---- users ------------------------------------------------------------ */

struct identity {
  char name[256]; /* "": nobody of whom more is known */
  uid_t user;
  gid_t group;
};

static bool read_id(const char *text, unsigned *id) {
  char *end;
  unsigned long value;

  errno = 0;
  value = strtoul(text, &end, 10);
  *id = (unsigned)value;
  return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 &&
         value < UINT32_MAX;
}

static int find_group(const char *name, gid_t *group, char *error,
                      size_t size) {
  const struct group *entry = getgrnam(name);

  if (entry != NULL)
    *group = entry->gr_gid;
  else if (!read_id(name, group)) {
    snprintf(error, size, "there is no group '%s'", name);
    return UV_EINVAL;
  }
  return 0;
}

static int find_user(const char *name, const char *group, struct identity *who,
                     char *error, size_t size) {
  const struct passwd *entry = getpwnam(name);

  if (entry == NULL && read_id(name, &who->user))
    entry = getpwuid(who->user);
  else if (entry == NULL) {
    snprintf(error, size, "there is no user '%s'", name);
    return UV_EINVAL;
  }
  if (entry != NULL) {
    who->user = entry->pw_uid;
    who->group = entry->pw_gid;
    snprintf(who->name, sizeof(who->name), "%s", entry->pw_name);
  } else if (group == NULL) {
    snprintf(error, size, "user %s has no group: say %s:GROUP", name, name);
    return UV_EINVAL;
  }
  if (who->user == 0) {
    snprintf(error, size, "that is root");
    return UV_EINVAL;
  }
  return group != NULL ? find_group(group, &who->group, error, size) : 0;
}

/* Nothing that was can be had again. */
static bool is_final(const struct identity *who) {
  return getuid() == who->user && geteuid() == who->user &&
         getgid() == who->group && getegid() == who->group && setuid(0) != 0 &&
         seteuid(0) != 0;
}

static int change(const struct identity *who) {
  int err = begin_change();

  if (err != 0)
    return err;
  if ((who->name[0] != '\0' ? initgroups(who->name, who->group)
                            : setgroups(0, NULL)) != 0 ||
      setregid(who->group, who->group) != 0 ||
      setreuid(who->user, who->user) != 0)
    return -errno;
  err = end_change();
  if (err != 0)
    return err;
  return is_final(who) ? 0 : UV_EPERM;
}

int privileges_become(const char *user, char *error, size_t size) {
  struct identity who = {"", 0, 0};
  char name[256];
  const char *colon = strchr(user, ':');
  size_t length = colon != NULL ? (size_t)(colon - user) : strlen(user);
  int err;

  if (geteuid() != 0) {
    snprintf(error, size, "only root can become another user");
    return UV_EPERM;
  }
  if (length >= sizeof(name)) {
    snprintf(error, size, "there is no such user");
    return UV_EINVAL;
  }
  memcpy(name, user, length);
  name[length] = '\0';
  err = find_user(name, colon != NULL ? colon + 1 : NULL, &who, error, size);
  if (err != 0)
    return err;
  err = change(&who);
  if (err != 0)
    snprintf(error, size, "%s", relay_strerror(err));
  return err;
}
