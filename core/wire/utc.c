/* SPDX-License-Identifier: MIT */
/* See utc.h. */
#include "wire/utc.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Exactly `digits` of them, from *text on, which is moved past them. */
static bool read_digits(const char **text, unsigned digits, unsigned *value) {
  for (*value = 0; digits > 0; digits--, (*text)++) {
    if (**text < '0' || **text > '9')
      return false;
    *value = *value * 10 + (unsigned)(**text - '0');
  }
  return true;
}

/* Days from 1970-01-01, in the Gregorian calendar. */
static int64_t day_number(unsigned year, unsigned month, unsigned day) {
  /* Years begin in March here, so that a leap day is the last of its year. */
  unsigned y = month > 2 ? year : year - 1;
  unsigned m = month > 2 ? month - 3 : month + 9;

  return (int64_t)365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 +
         day - 719469;
}

static unsigned days_of(unsigned year, unsigned month) {
  return month == 12 ? 31
                     : (unsigned)(day_number(year, month + 1, 1) -
                                  day_number(year, month, 1));
}

bool relay__utc_read(const char *text, int64_t *seconds) {
  unsigned year, month, day, hour, minute, second;

  if (!read_digits(&text, 4, &year) || *text++ != '-' ||
      !read_digits(&text, 2, &month) || *text++ != '-' ||
      !read_digits(&text, 2, &day) || *text++ != 'T' ||
      !read_digits(&text, 2, &hour) || *text++ != ':' ||
      !read_digits(&text, 2, &minute) || *text++ != ':' ||
      !read_digits(&text, 2, &second) || *text++ != 'Z' || *text != '\0')
    return false;
  if (year < 1970 || month < 1 || month > 12 || day < 1 ||
      day > days_of(year, month) || hour > 23 || minute > 59 || second > 59)
    return false;
  *seconds = day_number(year, month, day) * 86400 + (int64_t)hour * 3600 +
             (int64_t)minute * 60 + second;
  return true;
}

void relay__utc_write(int64_t seconds, char text[UTC_TEXT_SIZE]) {
  time_t time = (time_t)seconds;
  struct tm tm;

  memset(&tm, 0, sizeof(tm));
  gmtime_r(&time, &tm);
  /* Reduced, since a compiler cannot know that they are in bounds. */
  snprintf(text, UTC_TEXT_SIZE, "%04u-%02u-%02uT%02u:%02u:%02uZ",
           (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)tm.tm_mon % 12 + 1,
           (unsigned)tm.tm_mday % 32, (unsigned)tm.tm_hour % 24,
           (unsigned)tm.tm_min % 60, (unsigned)tm.tm_sec % 61);
}
