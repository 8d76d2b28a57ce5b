/* SPDX-License-Identifier: MIT */
/*
 * Changing the tokens file. Whoever does holds a lock on its directory, reads
 * the file, and puts a new one in its place: a reader sees all of the old or
 * all of the new, and so does whoever comes after a crash. What is written is
 * read back first, so that no file is ever left that a relay would refuse.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <relay/relay.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <uv.h>

#include "relay/tokens_text.h"
#include "wire/log.h"
#include "wire/utc.h"

#define LOCK_WAIT_MS 10000
#define LOCK_STEP_MS 20
#define SUFFIX ".XXXXXX"

/* A change that is being made. */
struct edit {
  struct tokens_reading reading; /* for complaints */
  const char *given;             /* the path, as complaints have it */
  char path[PATH_MAX];           /* where it leads, links followed */
  int directory;                 /* open and locked; -1: not */
  bool exists;
  struct stat file;
  char *text; /* as it is, NULL: nothing */
  size_t length;
  struct tokens *tokens;
  char *changed; /* as it will be */
  size_t changed_length;
};

static int fail(const struct edit *edit) {
  return relay__tokens_fail(&edit->reading, uv_translate_sys_error(errno));
}

/* ---- the lock --------------------------------------------------------- */

static int resolve(struct edit *edit) {
  size_t length = strlen(edit->given);
  char *resolved = realpath(edit->given, NULL);

  if (resolved == NULL && errno != ENOENT)
    return fail(edit);
  edit->exists = resolved != NULL;
  if (resolved != NULL)
    length = strlen(resolved);
  if (length + sizeof(SUFFIX) > sizeof(edit->path)) {
    free(resolved);
    return relay__tokens_fail(&edit->reading, UV_ENAMETOOLONG);
  }
  memcpy(edit->path, resolved != NULL ? resolved : edit->given, length + 1);
  free(resolved);
  return 0;
}

static int open_directory(struct edit *edit) {
  const char *slash = strrchr(edit->path, '/');
  size_t length = slash != NULL ? (size_t)(slash - edit->path) : 0;
  char directory[PATH_MAX] = ".";

  if (slash != NULL) {
    memcpy(directory, edit->path, length);
    memcpy(directory + length, "/", 2);
  }
  edit->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return edit->directory < 0 ? fail(edit) : 0;
}

static int lock(struct edit *edit) {
  unsigned waited = 0;
  int err = resolve(edit);

  if (err == 0)
    err = open_directory(edit);
  while (err == 0 && flock(edit->directory, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR)
      err = fail(edit);
    else if (waited >= LOCK_WAIT_MS)
      err = relay__tokens_complain(&edit->reading,
                                   "somebody else keeps changing it");
    else
      uv_sleep(LOCK_STEP_MS);
    waited += LOCK_STEP_MS;
  }
  /* Only now is what the path leads to known to stay. */
  return err == 0 ? resolve(edit) : err;
}

/* ---- from the file and back ------------------------------------------- */

static int begin(struct edit *edit, const char *path, char *error,
                 size_t size) {
  int err;

  memset(edit, 0, sizeof(*edit));
  edit->directory = -1;
  edit->given = path;
  edit->reading = (struct tokens_reading){path, 0, error, size};
  err = lock(edit);
  if (err == 0 && edit->exists)
    err = relay__tokens_load(path, &edit->file, &edit->text, &edit->length,
                             error, size);
  if (err == 0)
    err = relay__tokens_parse(&edit->tokens, path,
                              edit->text != NULL ? edit->text : "",
                              edit->length, error, size);
  return err;
}

static void end(struct edit *edit) {
  relay__tokens_free(edit->tokens);
  relay__tokens_unload(edit->text, edit->length);
  relay__tokens_unload(edit->changed, edit->changed_length);
  if (edit->directory >= 0)
    close(edit->directory); /* and with it the lock */
}

/* The text with the bytes from `at` to `to` replaced by the token's line. */
static int change(struct edit *edit, size_t at, size_t to,
                  const struct token *token) {
  char line[TOKENS_LINE_MAX + 2];
  size_t length = relay__tokens_write_line(token, line);
  bool torn = at > 0 && edit->text[at - 1] != '\n';

  if (length == 0)
    return relay__tokens_complain(&edit->reading, "a line is too long");
  edit->changed = malloc(at + torn + length + edit->length - to);
  if (edit->changed != NULL)
    memcpy(edit->changed + at + torn, line, length);
  relay__secret_wipe(line, sizeof(line));
  if (edit->changed == NULL)
    return relay__tokens_fail(&edit->reading, UV_ENOMEM);
  if (at != 0)
    memcpy(edit->changed, edit->text, at);
  if (torn)
    edit->changed[at] = '\n';
  edit->changed_length = at + torn + length + edit->length - to;
  if (to != edit->length)
    memcpy(edit->changed + at + torn + length, edit->text + to,
           edit->length - to);
  return 0;
}

/* Whether the new text is what a relay takes, with the token in it. */
static int check(struct edit *edit, const char *id) {
  struct tokens *tokens;
  int err;

  if (edit->changed_length > TOKENS_FILE_MAX)
    return relay__tokens_complain(
        &edit->reading, "it would be larger than %d bytes", TOKENS_FILE_MAX);
  err = relay__tokens_parse(&tokens, edit->given, edit->changed,
                            edit->changed_length, edit->reading.error,
                            edit->reading.size);
  if (err != 0)
    return err;
  if (relay__tokens_find(tokens, id) == NULL)
    err = relay__tokens_complain(&edit->reading, "'%s' is not a line", id);
  relay__tokens_free(tokens);
  return err;
}

/* ---- putting it in place ---------------------------------------------- */

static int write_all(int fd, const char *text, size_t length) {
  while (length > 0) {
    ssize_t count = write(fd, text, length);

    if (count < 0 && (errno == EINTR || errno == EAGAIN))
      continue;
    if (count < 0)
      return -1;
    text += count;
    length -= (size_t)count;
  }
  return 0;
}

/* Mode and owner stay those of the file it replaces. */
static int keep_owner(const struct edit *edit, int fd) {
  if (!edit->exists)
    return 0;
  if (fchown(fd, edit->file.st_uid, edit->file.st_gid) != 0)
    return -1;
  return fchmod(fd, edit->file.st_mode & 07777);
}

static int put_in_place(struct edit *edit) {
  char temporary[PATH_MAX];
  size_t length = strlen(edit->path);
  int err = 0, fd;

  memcpy(temporary, edit->path, length);
  memcpy(temporary + length, SUFFIX, sizeof(SUFFIX));
  fd = mkostemp(temporary, O_CLOEXEC);
  if (fd < 0)
    return fail(edit);
  if (keep_owner(edit, fd) != 0 ||
      write_all(fd, edit->changed, edit->changed_length) != 0 ||
      fsync(fd) != 0 || rename(temporary, edit->path) != 0) {
    err = fail(edit);
    unlink(temporary);
  }
  close(fd);
  /* It is there now; a directory that cannot be synced is none of ours. */
  if (err == 0)
    (void)fsync(edit->directory);
  return err;
}

/* ---- the changes ------------------------------------------------------ */

static bool is_line_of_text(const char *text) {
  size_t step = 1;

  for (; *text != '\0' && step != 0; text += step)
    step = *text == '\t' ? 1 : relay__log_shown(text);
  return step != 0;
}

/* Whether a line can hold what is wished for, and holds nothing else. */
static int check_wish(const struct token *wish, char *error, size_t size) {
  struct tokens_reading reading = {NULL, 0, error, size};
  struct token token = {.ports = NULL};
  char line[TOKENS_LINE_MAX + 2];
  size_t length = relay__tokens_write_line(wish, line);
  int status;

  if (length == 0)
    status = relay__tokens_complain(&reading, "longer than a line may be");
  else if (wish->note != NULL && !is_line_of_text(wish->note))
    status = relay__tokens_complain(&reading, "note: it is not a line of text");
  else
    status = relay__tokens_check_id(&reading, wish->id);
  if (status != 0)
    return UV_EINVAL;
  line[--length] = '\0';
  status = relay__tokens_read_line(&reading, line, length, &token);
  if (status == 1 && wish->ports_text != NULL &&
      strcmp(token.ports_text, wish->ports_text) != 0)
    status = relay__tokens_complain(&reading, "ports: '%.64s' has a blank",
                                    wish->ports_text);
  free((void *)token.ports);
  relay__secret_wipe(line, sizeof(line));
  return status == 1 ? 0 : status == UV_EFTYPE ? UV_EINVAL : status;
}

/* `given` may be older and shorter than ours. */
static int make(const relay_token *given, struct token *token,
                char made[TOKEN_TEXT_MAX + 1], char *error, size_t size) {
  struct tokens_reading reading = {NULL, 0, error, size};
  relay_token all = {.size = 0};
  int err;

  memcpy(&all, given, given->size);
  *token = (struct token){
      .id = all.id != NULL ? all.id : "",
      .ports_text = all.ports,
      .leases = all.leases,
      .visitors = all.visitors,
      .expires = all.expires,
      .plain = all.plain != 0,
      .revoked = all.revoked != 0,
      .note = all.note,
  };
  err = check_wish(token, error, size);
  if (err != 0)
    return err;
  err = relay__token_make(token->id, made, token->key);
  return err != 0 ? relay__tokens_fail(&reading, err) : 0;
}

static int add(struct edit *edit, const struct token *token) {
  int err;

  if (relay__tokens_find(edit->tokens, token->id) != NULL) {
    relay__tokens_complain(&edit->reading, "'%s' is there already", token->id);
    return UV_EEXIST;
  }
  err = change(edit, edit->length, edit->length, token);
  if (err == 0)
    err = check(edit, token->id);
  return err != 0 ? err : put_in_place(edit);
}

int relay_token_new(const char *path, const relay_token *token, char *text,
                    size_t text_size, char *error, size_t size) {
  char made[TOKEN_TEXT_MAX + 1];
  struct token wish;
  struct edit edit;
  int err;

  if (token->size > sizeof(*token) || token->size < sizeof(token->size) ||
      text_size < RELAY_TOKEN_SIZE)
    return UV_EINVAL;
  err = make(token, &wish, made, error, size);
  if (err == 0) {
    err = begin(&edit, path, error, size);
    if (err == 0)
      err = add(&edit, &wish);
    end(&edit);
  }
  if (err == 0)
    memcpy(text, made, strlen(made) + 1);
  relay__secret_wipe(made, sizeof(made));
  relay__secret_wipe(wish.key, sizeof(wish.key));
  return err;
}

/* Where a line begins, and where the next one does. */
static void find_line(const struct edit *edit, unsigned number, size_t *from,
                      size_t *to) {
  const char *feed;

  for (*from = 0; number > 1; number--)
    *from = (size_t)((const char *)memchr(edit->text + *from, '\n',
                                          edit->length - *from) +
                     1 - edit->text);
  feed = memchr(edit->text + *from, '\n', edit->length - *from);
  *to = feed != NULL ? (size_t)(feed + 1 - edit->text) : edit->length;
}

static int mark_revoked(struct edit *edit, const char *id) {
  const struct token *token = relay__tokens_find(edit->tokens, id);
  struct token revoked;
  size_t from, to;
  int err;

  if (token == NULL) {
    relay__tokens_complain(&edit->reading, "there is no token '%.80s'", id);
    return UV_ENOENT;
  }
  if (token->revoked)
    return 0;
  revoked = *token;
  revoked.revoked = true;
  find_line(edit, token->line, &from, &to);
  err = change(edit, from, to, &revoked);
  relay__secret_wipe(revoked.key, sizeof(revoked.key));
  return err;
}

int relay_token_revoke(const char *path, const char *id, char *error,
                       size_t size) {
  struct edit edit;
  int err = begin(&edit, path, error, size);

  if (err == 0 && !edit.exists)
    err = relay__tokens_fail(&edit.reading, UV_ENOENT);
  if (err == 0)
    err = mark_revoked(&edit, id);
  if (err == 0 && edit.changed != NULL)
    err = check(&edit, id);
  if (err == 0 && edit.changed != NULL)
    err = put_in_place(&edit);
  end(&edit);
  return err;
}

/* ---- looking ---------------------------------------------------------- */

int relay_token_each(const char *path,
                     int (*visit)(void *data, const relay_token *token),
                     void *data, char *error, size_t size) {
  struct tokens *tokens;
  int err = relay__tokens_read(&tokens, path, error, size);

  if (err != 0)
    return err;
  for (size_t i = 0; i < relay__tokens_count(tokens) && visit != NULL; i++) {
    const struct token *token = relay__tokens_at(tokens, i);
    const relay_token info = {
        sizeof(info),  token->id,       token->ports_text,
        token->leases, token->visitors, token->expires,
        token->plain,  token->revoked,  token->note,
    };

    err = visit(data, &info);
    if (err != 0)
      break;
  }
  relay__tokens_free(tokens);
  return err;
}

int relay_token_read_time(const char *text, int64_t *seconds) {
  return relay__utc_read(text, seconds) ? 0 : UV_EINVAL;
}

void relay_token_write_time(int64_t seconds, char *text) {
  relay__utc_write(seconds, text);
}
