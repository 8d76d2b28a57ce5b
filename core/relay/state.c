/* SPDX-License-Identifier: MIT */
/*
 * Leases on disk, so that a relay that is started again listens on them before
 * any agent could come back. Each lease is a file of one line, the OK that gave
 * it to its agent and who owns it; it is written before the agent is told, and
 * taken away when the lease ends, but not when the relay does. Nothing is
 * synced: this is against the death of the process, not of the machine. What
 * the death of the machine has made of a file is told by the sum at its end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "relay/private.h"

#define PREFIX "lease-"
#define FRESH_PREFIX "new-" /* while it is written */
#define FILE_NAME_MAX (sizeof(PREFIX) + WIRE_ID_LENGTH)
#define COMPLAINT_MS 10000
#define RETRY_MS 1000

static void complain(struct relay *relay, const char *event, const char *file,
                     int error) {
  relay__log(&relay->logger, RELAY_LOG_ERROR, event, LOG_TEXT("file", file),
             LOG_TEXT("reason", relay_strerror(error)));
}

/* ---- the sum ---------------------------------------------------------- */

#define SUM_LENGTH 16

/* FNV-1a: no two texts that differ in one place have the same. */
static void sum_up(const char *bytes, size_t count, char text[SUM_LENGTH + 1]) {
  uint64_t sum = 0xcbf29ce484222325u;

  while (count-- != 0)
    sum = (sum ^ (unsigned char)*bytes++) * 0x100000001b3u;
  snprintf(text, SUM_LENGTH + 1, "%016" PRIx64, sum);
}

static void add_sum(struct wire_line *line) {
  char text[SUM_LENGTH + 1];

  sum_up(line->text, line->length, text);
  relay__wire_add(line, "sum", text);
}

/* What is wrong with a file's bytes; NULL: they are what was written. */
static const char *find_damage(const char *bytes, size_t count) {
  const size_t end = sizeof(" sum=") - 1 + SUM_LENGTH + 1;
  char text[SUM_LENGTH + 1];

  if (count == 0)
    return "empty";
  if (bytes[count - 1] != '\n')
    return count < WIRE_LINE_MAX ? "cut short" : "too long";
  if (count < end || memcmp(bytes + count - end, " sum=", 5) != 0)
    return "no sum at its end";
  sum_up(bytes, count - end, text);
  return memcmp(bytes + count - 1 - SUM_LENGTH, text, SUM_LENGTH) != 0
             ? "not what its sum says"
             : NULL;
}

/* ---- the directory ---------------------------------------------------- */

static int open_directory(const char *path, int *out) {
  int fd;

  if (mkdir(path, 0700) != 0 && errno != EEXIST)
    return -errno;
  fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) { /* another relay's */
    int err = errno == EWOULDBLOCK ? UV_EBUSY : -errno;

    close(fd);
    return err;
  }
  *out = fd;
  return 0;
}

int relay__state_open(struct relay *relay) {
  int err;

  if (relay->options.state == NULL)
    return 0;
  err = open_directory(relay->options.state, &relay->state_fd);
  if (err == 0) {
    relay__plane_take_descriptors(&relay->plane, 1);
    return 0;
  }
  relay__log(&relay->logger, RELAY_LOG_ERROR, "state cannot be kept",
             LOG_TEXT("file", relay->options.state),
             LOG_TEXT("reason", err == UV_EBUSY
                                    ? "another relay uses this directory"
                                    : relay_strerror(err)));
  return RELAY_ESTATE;
}

void relay__state_close(struct relay *relay) {
  if (relay->state_fd < 0)
    return;
  close(relay->state_fd);
  relay->state_fd = -1;
  relay__plane_give_descriptors(&relay->plane, 1);
}

/* ---- keeping ---------------------------------------------------------- */

static void name_file(const struct lease *lease, const char *prefix,
                      char *name) {
  snprintf(name, FILE_NAME_MAX, "%s%s", prefix, lease->file);
}

static int render(const struct lease *lease, struct wire_line *line) {
  char at[ADDRESS_HOST_MAX];

  relay__address_host((const struct sockaddr *)&lease->gate->listener.address,
                      at, sizeof(at));
  relay__wire_begin(line, WIRE_OK);
  relay__wire_add(line, "host", lease->host);
  relay__wire_add_number(line, "port", lease->gate->port);
  relay__wire_add(line, "resume", lease->ticket);
  if (lease->previous[0] != '\0')
    relay__wire_add(line, "previous", lease->previous);
  relay__wire_add(line, "owner", lease->owner);
  if (lease->name[0] != '\0')
    relay__wire_add(line, "name", lease->name);
  if (lease->token_id[0] != '\0')
    relay__wire_add(line, "token", lease->token_id);
  relay__wire_add(line, "at", at);
  if (lease->gate->shared)
    relay__wire_add(line, "share", "yes");
  add_sum(line);
  return relay__wire_end(line);
}

static int write_file(int directory, const char *name,
                      const struct wire_line *line) {
  int fd = openat(directory, name,
                  O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  ssize_t count;
  int err = 0;

  if (fd < 0)
    return -errno;
  count = write(fd, line->text, line->length);
  if (count < 0)
    err = -errno;
  else if ((size_t)count != line->length)
    err = UV_ENOSPC;
  if (close(fd) != 0 && err == 0)
    err = -errno;
  return err;
}

static int keep(struct lease *lease) {
  int directory = lease->relay->state_fd;
  char name[FILE_NAME_MAX], fresh[FILE_NAME_MAX];
  struct wire_line line;
  int err = 0;

  if (lease->file[0] == '\0')
    err = relay__id_make(lease->file);
  if (err == 0)
    err = render(lease, &line);
  if (err != 0)
    return err;
  name_file(lease, PREFIX, name);
  name_file(lease, FRESH_PREFIX, fresh);
  err = write_file(directory, fresh, &line);
  if (err == 0 && renameat(directory, fresh, directory, name) != 0)
    err = -errno;
  if (err != 0)
    unlinkat(directory, fresh, 0);
  return err;
}

/* The address itself is as good as ever: it is kept as soon as that can be. */
static void note_failure(struct relay *relay, int error) {
  uint64_t now = relay__now_ms(relay);

  if (!relay__deadline_is_set(&relay->state_due))
    relay__deadline_set(&relay->state_due, RETRY_MS);
  if (relay->state_logged_ms != 0 &&
      now - relay->state_logged_ms < COMPLAINT_MS)
    return;
  relay->state_logged_ms = now;
  complain(relay, "lease not kept", relay->options.state, error);
}

void relay__state_keep(struct lease *lease) {
  struct relay *relay = lease->relay;
  int err;

  if (relay->state_fd < 0)
    return;
  err = keep(lease);
  lease->unkept = err != 0;
  if (err != 0)
    note_failure(relay, err);
}

static void on_retry(struct deadline *deadline) {
  struct relay *relay = container_of(deadline, struct relay, state_due);

  link_each(&relay->leases, link, next) {
    struct lease *lease = container_of(link, struct lease, link);

    if (lease->unkept)
      relay__state_keep(lease);
  }
  if (relay__deadline_is_set(&relay->state_due))
    return;
  relay->state_logged_ms = 0;
  relay__log(&relay->logger, RELAY_LOG_INFO, "leases are kept again",
             LOG_TEXT("file", relay->options.state));
}

void relay__state_init(struct relay *relay) {
  relay__deadline_init(&relay->state_due, &relay->plane, on_retry);
}

void relay__state_drop(struct lease *lease) {
  struct relay *relay = lease->relay;
  char name[FILE_NAME_MAX];

  if (relay->state_fd < 0 || lease->file[0] == '\0' || relay->draining ||
      relay->closing)
    return;
  name_file(lease, PREFIX, name);
  if (unlinkat(relay->state_fd, name, 0) != 0 && errno != ENOENT)
    complain(relay, "lease not forgotten", name, -errno);
}

/* ---- restoring -------------------------------------------------------- */

static int read_file(int directory, const char *name, char *bytes,
                     size_t size) {
  int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  ssize_t count;

  if (fd < 0)
    return -errno;
  count = read(fd, bytes, size);
  if (count < 0)
    count = -errno;
  close(fd);
  return (int)count;
}

static int restore_line(struct relay *relay, const char *name,
                        struct wire_message *message) {
  const char *share = relay__wire_get(message, "share");
  struct kept kept = {
      .file = name + sizeof(PREFIX) - 1,
      .host = relay__wire_get(message, "host"),
      .owner = relay__wire_get(message, "owner"),
      .token = relay__wire_get(message, "token"),
      .name = relay__wire_get(message, "name"),
      .ticket = relay__wire_get(message, "resume"),
      .previous = relay__wire_get(message, "previous"),
      .at = relay__wire_get(message, "at"),
      .share = share != NULL && strcmp(share, "yes") == 0,
  };
  uint64_t port;

  if (message->verb != WIRE_OK || kept.host == NULL || kept.owner == NULL ||
      kept.ticket == NULL || kept.at == NULL ||
      relay__wire_get_number(message, "port", 65535, &port) != 1 || port == 0)
    return RELAY_EPROTO;
  kept.port = (unsigned)port;
  if (kept.token != NULL && relay->tokens != NULL &&
      (relay__trust_token(relay, kept.token) != NULL
           ? relay__trust_refusal(relay, kept.token) != NULL
           : relay->policy.auth == NULL))
    return RELAY_EDENIED; /* nobody can come back to it */
  return relay__lease_restore(relay, &kept);
}

/* What cannot be read is for a person to see: it stays. */
static void restore(struct relay *relay, const char *name) {
  struct wire_message message;
  char bytes[WIRE_LINE_MAX];
  int count = read_file(relay->state_fd, name, bytes, sizeof(bytes));
  const char *damage = count >= 0 ? find_damage(bytes, (size_t)count) : NULL;
  int err = count < 0 ? count : RELAY_EPROTO;

  if (damage != NULL) {
    relay__log(&relay->logger, RELAY_LOG_ERROR, "lease not restored",
               LOG_TEXT("file", name), LOG_NUMBER("bytes", count),
               LOG_TEXT("reason", damage));
    return;
  }
  if (count > 0 && relay__wire_parse(&message, bytes, (size_t)count) == count)
    err = restore_line(relay, name, &message);
  if (err == 0)
    return;
  complain(relay, "lease not restored", name, err);
  if (err != RELAY_EPROTO && count >= 0) /* nobody will have it again */
    unlinkat(relay->state_fd, name, 0);
}

static bool is_named(const char *name, const char *prefix) {
  size_t length = strlen(prefix);

  return strncmp(name, prefix, length) == 0 &&
         strlen(name) == length + WIRE_ID_LENGTH;
}

int relay__state_restore(struct relay *relay) {
  const struct dirent *entry;
  DIR *directory;
  int fd;

  if (relay->state_fd < 0)
    return 0;
  fd = openat(relay->state_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  directory = fd >= 0 ? fdopendir(fd) : NULL;
  if (directory == NULL) {
    int err = -errno;

    if (fd >= 0)
      close(fd);
    complain(relay, "state cannot be kept", relay->options.state, err);
    return RELAY_ESTATE;
  }
  while ((entry = readdir(directory)) != NULL)
    if (is_named(entry->d_name, PREFIX))
      restore(relay, entry->d_name);
    else if (is_named(entry->d_name, FRESH_PREFIX)) /* nobody was told of it */
      unlinkat(relay->state_fd, entry->d_name, 0);
  closedir(directory);
  return 0;
}
