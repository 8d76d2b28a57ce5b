/* SPDX-License-Identifier: MIT */
/*
 * From a member to the object it is embedded in, and doubly linked lists whose
 * links are embedded in what they link.
 */
#ifndef RELAY_CONTAINER_H
#define RELAY_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>

#define container_of(pointer, type, member)                                    \
  ((type *)((char *)(pointer)-offsetof(type, member)))

/* A list head, and each link of it. An unlinked link points to itself. */
struct link {
  struct link *next;
  struct link *prev;
};

static inline void link_init(struct link *link) {
  link->next = link->prev = link;
}

static inline bool link_is_empty(const struct link *head) {
  return head->next == head;
}

static inline void link_append(struct link *head, struct link *link) {
  link->next = head;
  link->prev = head->prev;
  head->prev->next = link;
  head->prev = link;
}

/* Unlinking twice is harmless. */
static inline void link_remove(struct link *link) {
  link->next->prev = link->prev;
  link->prev->next = link->next;
  link_init(link);
}

/* Safe against the removal of `link` itself in the body, not of its next. */
#define link_each(head, link, following)                                       \
  for (struct link *link = (head)->next, *following = link->next;              \
       link != (head); link = following, following = link->next)

#endif
