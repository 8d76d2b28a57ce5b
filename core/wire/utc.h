/* SPDX-License-Identifier: MIT */
/*
 * Points in time as text, in UTC and to the second: 2026-12-31T23:59:59Z.
 */
#ifndef RELAY_UTC_H
#define RELAY_UTC_H

#include <stdbool.h>
#include <stdint.h>

#define UTC_TEXT_SIZE 21 /* with a NUL */

/* Reads one, from 1970 to 9999, as seconds since 1970. */
bool relay__utc_read(const char *text, int64_t *seconds);
void relay__utc_write(int64_t seconds, char text[UTC_TEXT_SIZE]);

#endif
