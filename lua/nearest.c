/* SPDX-License-Identifier: MIT */
/*
 * Guesses what a mistyped name was meant to be: the known one with the fewest
 * letters to change, unless that is a different word.
 */
#include <string.h>

#include "private.h"

#define WORD_MAX 32

static size_t least(size_t a, size_t b, size_t c) {
  size_t d = a < b ? a : b;

  return d < c ? d : c;
}

/* Insertions, deletions and replacements from one to the other. */
static size_t distance(const char *a, const char *b) {
  size_t row[WORD_MAX + 1], n = strlen(a), m = strlen(b), i, j;

  if (n > WORD_MAX || m > WORD_MAX)
    return WORD_MAX;
  for (j = 0; j <= m; j++)
    row[j] = j;
  for (i = 1; i <= n; i++) {
    size_t corner = row[0];

    row[0] = i;
    for (j = 1; j <= m; j++) {
      size_t above = row[j];

      row[j] =
          least(above + 1, row[j - 1] + 1, corner + (a[i - 1] != b[j - 1]));
      corner = above;
    }
  }
  return row[m];
}

const char *relay__lua_nearest(const char *word, const char *const *names) {
  const char *best = NULL;
  size_t best_distance = strlen(word) / 2 < 3 ? strlen(word) / 2 : 3;

  for (; *names != NULL; names++) {
    size_t d = distance(word, *names);

    if (d <= best_distance && (best == NULL || d < best_distance)) {
      best = *names;
      best_distance = d;
    }
  }
  return best;
}

int relay__lua_unknown(lua_State *L, const char *what, const char *word,
                       const char *const *names) {
  const char *near = relay__lua_nearest(word, names);

  if (near != NULL)
    return luaL_error(L, "%s '%s' (did you mean '%s'?)", what, word, near);
  return luaL_error(L, "%s '%s'", what, word);
}
