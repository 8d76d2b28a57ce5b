/* SPDX-License-Identifier: MIT */
/*
 * Leases on disk, so that a relay that is started again listens on them before
 * any agent could come back. Each lease is a file of one line, the OK that gave
 * it to its agent and who owns it; it is written before the agent is told, and
 * taken away when the lease ends, but not when the relay does. Nothing is
 * synced: this is against the death of the process, not of the machine.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "relay/private.h"

#define PREFIX "lease-"
#define FILE_NAME_MAX (sizeof(PREFIX) + WIRE_ID_LENGTH)
#define COMPLAINT_MS 10000

static void complain(struct relay *relay, const char *event, const char *file,
                     int error) {
  relay__log(&relay->logger, RELAY_LOG_ERROR, event, LOG_TEXT("file", file),
             LOG_TEXT("reason", relay_strerror(error)));
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
  complain(relay, "state cannot be kept", relay->options.state, err);
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
  name_file(lease, "new-", fresh);
  err = write_file(directory, fresh, &line);
  if (err == 0 && renameat(directory, fresh, directory, name) != 0)
    err = -errno;
  if (err != 0)
    unlinkat(directory, fresh, 0);
  return err;
}

void relay__state_keep(struct lease *lease) {
  struct relay *relay = lease->relay;
  uint64_t now = relay__now_ms(relay);
  int err;

  if (relay->state_fd < 0)
    return;
  err = keep(lease);
  if (err == 0 || (relay->state_logged_ms != 0 &&
                   now - relay->state_logged_ms < COMPLAINT_MS))
    return;
  relay->state_logged_ms = now; /* the address itself is as good as ever */
  complain(relay, "lease not kept", relay->options.state, err);
}

void relay__state_drop(struct lease *lease) {
  const struct relay *relay = lease->relay;
  char name[FILE_NAME_MAX];

  if (relay->state_fd < 0 || lease->file[0] == '\0' || relay->draining ||
      relay->closing)
    return;
  name_file(lease, PREFIX, name);
  unlinkat(relay->state_fd, name, 0);
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

static void restore(struct relay *relay, const char *name) {
  struct wire_message message;
  char bytes[WIRE_LINE_MAX];
  int count = read_file(relay->state_fd, name, bytes, sizeof(bytes));
  int err = count;

  if (count >= 0)
    err =
        relay__wire_parse(&message, bytes, (size_t)count) == count && count != 0
            ? restore_line(relay, name, &message)
            : RELAY_EPROTO;
  if (err == 0)
    return;
  complain(relay, "lease not restored", name, err);
  /* Nobody will have it again; what cannot be read is for a person to see. */
  if (err != RELAY_EPROTO && count >= 0)
    unlinkat(relay->state_fd, name, 0);
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
    if (strncmp(entry->d_name, PREFIX, sizeof(PREFIX) - 1) == 0 &&
        strlen(entry->d_name) == sizeof(PREFIX) - 1 + WIRE_ID_LENGTH)
      restore(relay, entry->d_name);
  closedir(directory);
  return 0;
}
