/* SPDX-License-Identifier: MIT */
/*
 * What a mistyped word was meant to be.
 */
#ifndef RELAY_NEAREST_H
#define RELAY_NEAREST_H

/* The one of `words` (NULL-terminated) with the fewest letters to change, or
   NULL where that would be a different word. */
const char *relay__nearest(const char *word, const char *const *words);

#endif
