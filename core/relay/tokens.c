/* SPDX-License-Identifier: MIT */
/*
 * Tokens as they are found. See tokens.h. The text is kept, with ids and notes
 * in place, and is wiped as a whole, since it holds the keys. How a line is
 * read is in tokens_line.c, what changes the file in tokens_edit.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "relay/tokens_text.h"

struct tokens {
  char *text;
  size_t length;
  struct token *list;
  struct token **sorted; /* by id */
  size_t count;
};

/* ---- text ------------------------------------------------------------- */

static size_t count_lines(const char *text, size_t length) {
  size_t count = 1;

  for (size_t i = 0; i < length; i++)
    count += text[i] == '\n';
  return count;
}

static int compare(const void *left, const void *right) {
  const struct token *a = *(struct token *const *)left;
  const struct token *b = *(struct token *const *)right;
  int order = strcmp(a->id, b->id);

  return order != 0 ? order : a->line < b->line ? -1 : 1;
}

static int sort(struct tokens *tokens, struct tokens_reading *reading) {
  for (size_t i = 0; i < tokens->count; i++)
    tokens->sorted[i] = &tokens->list[i];
  if (tokens->count != 0)
    qsort(tokens->sorted, tokens->count, sizeof(struct token *), compare);
  for (size_t i = 1; i < tokens->count; i++) {
    const struct token *first = tokens->sorted[i - 1];
    const struct token *second = tokens->sorted[i];

    if (strcmp(first->id, second->id) == 0) {
      reading->line = second->line;
      return relay__tokens_complain(reading, "'%s' is in line %u already",
                                    second->id, first->line);
    }
  }
  return 0;
}

static int read_lines(struct tokens *tokens, struct tokens_reading *reading) {
  char *line = tokens->text;
  char *end = tokens->text + tokens->length;
  int err = 0;

  while (err == 0 && line < end) {
    char *feed = memchr(line, '\n', (size_t)(end - line));
    size_t length = (size_t)((feed != NULL ? feed : end) - line);
    struct token *token = &tokens->list[tokens->count];

    line[length] = '\0';
    reading->line++;
    err = relay__tokens_read_line(reading, line, length, token);
    if (err != 0)
      tokens->count++; /* also a bad one: what it has is freed */
    err = err < 0 ? err : 0;
    line += length + 1;
  }
  return err != 0 ? err : sort(tokens, reading);
}

/* Takes `text`, which has room for a NUL, over. */
static int parse(struct tokens **out, const char *path, char *text,
                 size_t length, char *error, size_t size) {
  struct tokens_reading reading = {path, 0, error, size};
  struct tokens *tokens = calloc(1, sizeof(*tokens));
  size_t lines = count_lines(text, length);
  int err;

  if (tokens != NULL) {
    tokens->list = calloc(lines, sizeof(*tokens->list));
    tokens->sorted = calloc(lines, sizeof(*tokens->sorted));
  }
  if (tokens == NULL || tokens->list == NULL || tokens->sorted == NULL) {
    relay__secret_wipe(text, length);
    free(text);
    relay__tokens_free(tokens);
    return relay__tokens_fail(&reading, UV_ENOMEM);
  }
  tokens->text = text;
  tokens->length = length;
  err = read_lines(tokens, &reading);
  if (err == 0)
    *out = tokens;
  else
    relay__tokens_free(tokens);
  return err;
}

int relay__tokens_parse(struct tokens **out, const char *path, const char *text,
                        size_t length, char *error, size_t size) {
  struct tokens_reading reading = {path, 0, error, size};
  char *copy = malloc(length + 1);

  if (copy == NULL)
    return relay__tokens_fail(&reading, UV_ENOMEM);
  if (length != 0)
    memcpy(copy, text, length);
  return parse(out, path, copy, length, error, size);
}

/* ---- the file --------------------------------------------------------- */

static int judge(const struct tokens_reading *reading,
                 const struct stat *file) {
  if (!S_ISREG(file->st_mode))
    return relay__tokens_complain(reading, "it is not a file");
  if ((file->st_mode & 077) != 0)
    return relay__tokens_complain(
        reading, "mode %04o lets others at its keys; it has to be 0600",
        (unsigned)file->st_mode & 07777);
  if (file->st_size > TOKENS_FILE_MAX)
    return relay__tokens_complain(reading, "it is larger than %d bytes",
                                  TOKENS_FILE_MAX);
  return 0;
}

/* All of it, with room for a NUL. What grows meanwhile is not waited for. */
static int read_all(int fd, char *text, size_t size, size_t *length) {
  *length = 0;
  while (*length < size) {
    ssize_t count = read(fd, text + *length, size - *length);

    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return uv_translate_sys_error(errno);
    if (count == 0)
      break;
    *length += (size_t)count;
  }
  return 0;
}

int relay__tokens_load(const char *path, struct stat *file, char **text,
                       size_t *length, char *error, size_t size) {
  struct tokens_reading reading = {path, 0, error, size};
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  int err = 0;

  *text = NULL;
  if (fd < 0)
    return relay__tokens_fail(&reading, uv_translate_sys_error(errno));
  if (fstat(fd, file) != 0)
    err = relay__tokens_fail(&reading, uv_translate_sys_error(errno));
  if (err == 0)
    err = judge(&reading, file);
  if (err == 0) {
    *text = malloc((size_t)file->st_size + 1);
    err = *text != NULL ? read_all(fd, *text, (size_t)file->st_size, length)
                        : UV_ENOMEM;
    if (err != 0) {
      relay__tokens_unload(*text, (size_t)file->st_size);
      *text = NULL;
      relay__tokens_fail(&reading, err);
    }
  }
  close(fd);
  return err;
}

void relay__tokens_unload(char *text, size_t length) {
  if (text != NULL)
    relay__secret_wipe(text, length);
  free(text);
}

int relay__tokens_read(struct tokens **out, const char *path, char *error,
                       size_t size) {
  struct stat file;
  size_t length = 0;
  char *text;
  int err;

  if (path == NULL)
    return relay__tokens_parse(out, "", "", 0, error, size);
  err = relay__tokens_load(path, &file, &text, &length, error, size);
  return err != 0 ? err : parse(out, path, text, length, error, size);
}

void relay__tokens_free(struct tokens *tokens) {
  if (tokens == NULL)
    return;
  for (size_t i = 0; i < tokens->count; i++)
    free((void *)tokens->list[i].ports);
  if (tokens->list != NULL)
    relay__secret_wipe(tokens->list, tokens->count * sizeof(*tokens->list));
  free(tokens->list);
  free(tokens->sorted);
  relay__tokens_unload(tokens->text, tokens->length);
  free(tokens);
}

/* ---- asking ----------------------------------------------------------- */

const struct token *relay__tokens_find(const struct tokens *tokens,
                                       const char *id) {
  size_t low = 0, high = relay__tokens_count(tokens);

  if (id == NULL)
    return NULL;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct token *token = tokens->sorted[middle];
    int order = strcmp(id, token->id);

    if (order == 0)
      return token;
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return NULL;
}

size_t relay__tokens_count(const struct tokens *tokens) {
  return tokens != NULL ? tokens->count : 0;
}

const struct token *relay__tokens_at(const struct tokens *tokens,
                                     size_t index) {
  return &tokens->list[index];
}

int64_t relay__tokens_next_expiry(const struct tokens *tokens, int64_t now) {
  int64_t next = 0;

  for (size_t i = 0; i < relay__tokens_count(tokens); i++) {
    int64_t expires = tokens->list[i].expires;

    if (expires > now && (next == 0 || expires < next))
      next = expires;
  }
  return next;
}

const char *relay__token_refusal(const struct token *token, int64_t now) {
  if (token == NULL)
    return "token is unknown";
  if (token->revoked)
    return "token is revoked";
  return token->expires != 0 && token->expires <= now ? "token has expired"
                                                      : NULL;
}

bool relay__token_allows_port(const struct token *token, unsigned port) {
  for (size_t i = 0; i < token->ports_count; i++)
    if (port >= token->ports[i].lo && port <= token->ports[i].hi)
      return true;
  return false;
}
