/* SPDX-License-Identifier: MIT */
/*
 * See nearest.h. The distance is Levenshtein's, in one row.
 */
#include "wire/nearest.h"

#include <stddef.h>
#include <string.h>

#define LETTERS_MAX 32
#define CHANGES_MAX 2

static size_t least(size_t a, size_t b) {
  return a < b ? a : b;
}

static size_t distance(const char *from, const char *to) {
  size_t row[LETTERS_MAX + 1], length = strlen(to);

  if (length > LETTERS_MAX || strlen(from) > LETTERS_MAX)
    return LETTERS_MAX;
  for (size_t i = 0; i <= length; i++)
    row[i] = i;
  for (; *from != '\0'; from++) {
    size_t replaced = row[0]++;

    for (size_t i = 1; i <= length; i++) {
      size_t best = least(row[i], row[i - 1]) + 1;

      best = least(best, replaced + (*from != to[i - 1]));
      replaced = row[i];
      row[i] = best;
    }
  }
  return row[length];
}

const char *relay__nearest(const char *word, const char *const *words) {
  size_t bound = least(strlen(word) / 2, CHANGES_MAX) + 1;
  const char *best = NULL;

  for (; *words != NULL; words++) {
    size_t changes = distance(word, *words);

    if (changes < bound) {
      bound = changes;
      best = *words;
    }
  }
  return best;
}
