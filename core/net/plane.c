/* SPDX-License-Identifier: MIT */
/*
 * The plane: what one loop needs to move bytes. See plane.h.
 */
#include "net/plane.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "net/container.h"

/* Left for what the host and libuv open later by themselves. */
#define DESCRIPTOR_HEADROOM 16
/* Without a limit worth the name, this many are plenty by default. */
#define DESCRIPTOR_DEFAULT_MAX (128 * 1024)

static int count_open_descriptors(void) {
  DIR *directory = opendir("/proc/self/fd");
  int count = 0;

  if (directory == NULL)
    directory = opendir("/dev/fd");
  if (directory == NULL)
    return DESCRIPTOR_HEADROOM;
  while (readdir(directory) != NULL)
    count++;
  closedir(directory);
  return count - 3; /* ".", ".." and the directory itself */
}

static int default_descriptor_limit(void) {
  struct rlimit rlimit;
  int limit = DESCRIPTOR_DEFAULT_MAX;

  if (getrlimit(RLIMIT_NOFILE, &rlimit) == 0 && rlimit.rlim_cur < (rlim_t)limit)
    limit = (int)rlimit.rlim_cur;
  return limit - count_open_descriptors() - DESCRIPTOR_HEADROOM;
}

struct probe {
  uv_poll_t poll;
  struct plane *plane;
  int fd;
};

static void on_probe_closed(uv_handle_t *handle) {
  struct probe *probe = container_of(handle, struct probe, poll);

  relay__plane_release(probe->plane);
  free(probe);
}

static void on_probe_event(uv_poll_t *poll, int status, int events) {
  (void)poll, (void)status, (void)events;
}

/*
 * libuv keeps a table by descriptor and calls abort() when it cannot grow it.
 * Watching the highest descriptor once, now, makes it grow now, where there is
 * still a caller to tell that memory is short.
 */
static int grow_loop_table(struct plane *plane, int highest) {
  struct probe *probe = malloc(sizeof(*probe));
  void *room = malloc(sizeof(void *) * 2 * ((size_t)highest + 3));
  int pipes[2];
  int err = 0;

  free(room);
  if (probe == NULL || room == NULL || pipe(pipes) != 0) {
    err = probe == NULL || room == NULL ? UV_ENOMEM : -errno;
    free(probe);
    return err;
  }
  probe->plane = plane;
  probe->fd = fcntl(pipes[0], F_DUPFD_CLOEXEC, highest);
  close(pipes[0]);
  close(pipes[1]);
  if (probe->fd < 0) { /* beyond the limit: then nothing will ever be there */
    free(probe);
    return 0;
  }
  err = uv_poll_init(plane->loop, &probe->poll, probe->fd);
  if (err != 0) {
    close(probe->fd);
    free(probe);
    return err;
  }
  relay__plane_retain(plane);
  err = uv_poll_start(&probe->poll, UV_READABLE, on_probe_event);
  uv_close((uv_handle_t *)&probe->poll, on_probe_closed);
  close(probe->fd);
  return err;
}

static int prepare_loop(struct plane *plane) {
  struct rlimit rlimit;

  if (getrlimit(RLIMIT_NOFILE, &rlimit) != 0)
    return -errno;
  if (rlimit.rlim_cur > DESCRIPTOR_DEFAULT_MAX)
    rlimit.rlim_cur = DESCRIPTOR_DEFAULT_MAX;
  return grow_loop_table(plane, (int)rlimit.rlim_cur - 1);
}

int relay__plane_init(struct plane *plane, uv_loop_t *loop, relay_mode mode,
                      unsigned fd_limit) {
  int limit = fd_limit != 0 ? (int)fd_limit : default_descriptor_limit();

  memset(plane, 0, sizeof(*plane));
  plane->loop = loop;
  plane->mode = mode;
  plane->keepalive = (struct keepalive){60, 10, 6};
  plane->budget = &plane->fds;
  plane->fds.limit = limit > 0 ? limit : 0;
  return prepare_loop(plane);
}

int relay__plane_init_beside(struct plane *plane, uv_loop_t *loop,
                             struct plane *first) {
  memset(plane, 0, sizeof(*plane));
  plane->loop = loop;
  plane->mode = first->mode;
  plane->rcvbuf_bytes = first->rcvbuf_bytes;
  plane->keepalive = first->keepalive;
  plane->budget = first->budget;
  return prepare_loop(plane);
}

void relay__plane_close(struct plane *plane) {
  relay__hold_pool_close(plane);
  free(plane->batch);
  plane->batch = NULL;
  plane->on_descriptor = NULL;
  if (plane->handles == 0 && plane->on_empty != NULL)
    plane->on_empty(plane);
}

void relay__plane_retain(struct plane *plane) {
  plane->handles++;
}

void relay__plane_release(struct plane *plane) {
  if (--plane->handles == 0 && plane->on_empty != NULL)
    plane->on_empty(plane);
}

static int promised(const struct descriptors *fds) {
  return atomic_load_explicit(&fds->used, memory_order_relaxed) +
         atomic_load_explicit(&fds->reserved, memory_order_relaxed);
}

/* Others keep pipes, perhaps: whoever waits hears when they gave them up. */
static void want_descriptors(struct plane *plane, int count) {
  if (plane->on_wanted == NULL || plane->budget->wanted >= count)
    return;
  plane->budget->wanted = count;
  plane->on_wanted(plane);
}

bool relay__plane_has_descriptors(struct plane *plane, int count) {
  struct descriptors *fds = plane->budget;

  while (promised(fds) + count > fds->limit)
    if (!relay__hold_trim(plane)) {
      want_descriptors(plane, count);
      return false;
    }
  if (plane->on_wanted != NULL && fds->wanted != 0 && fds->wanted <= count)
    fds->wanted = 0;
  return true;
}

void relay__plane_take_descriptors(struct plane *plane, int count) {
  atomic_fetch_add_explicit(&plane->budget->used, count, memory_order_relaxed);
}

void relay__plane_note_descriptors(struct plane *plane) {
  if (plane->on_descriptor != NULL)
    plane->on_descriptor(plane);
}

void relay__plane_give_descriptors(struct plane *plane, int count) {
  atomic_fetch_sub_explicit(&plane->budget->used, count, memory_order_relaxed);
  relay__plane_note_descriptors(plane);
}

void relay__plane_reserve_descriptor(struct plane *plane) {
  atomic_fetch_add_explicit(&plane->budget->reserved, 1, memory_order_relaxed);
}

void relay__plane_unreserve_descriptor(struct plane *plane) {
  atomic_fetch_sub_explicit(&plane->budget->reserved, 1, memory_order_relaxed);
  relay__plane_note_descriptors(plane);
}

static void on_timer(uv_timer_t *timer) {
  struct deadline *deadline = container_of(timer, struct deadline, timer);

  deadline->on_expire(deadline);
}

static void on_timer_closed(uv_handle_t *handle) {
  struct deadline *deadline = container_of(handle, struct deadline, timer);
  struct plane *plane = deadline->plane;

  if (deadline->on_closed != NULL)
    deadline->on_closed(deadline);
  relay__plane_release(plane);
}

void relay__deadline_init(struct deadline *deadline, struct plane *plane,
                          void (*on_expire)(struct deadline *deadline)) {
  uv_timer_init(plane->loop, &deadline->timer); /* cannot fail */
  relay__plane_retain(plane);
  deadline->plane = plane;
  deadline->on_expire = on_expire;
  deadline->on_closed = NULL;
}

void relay__deadline_set(struct deadline *deadline, uint64_t ms) {
  /* The loop's clock is that of its last wake-up, which may be long ago. */
  uv_update_time(deadline->plane->loop);
  uv_timer_start(&deadline->timer, on_timer, ms, 0);
}

void relay__deadline_clear(struct deadline *deadline) {
  uv_timer_stop(&deadline->timer);
}

bool relay__deadline_is_set(const struct deadline *deadline) {
  return uv_is_active((const uv_handle_t *)&deadline->timer) != 0;
}

void relay__deadline_close(struct deadline *deadline,
                           void (*on_closed)(struct deadline *deadline)) {
  deadline->on_closed = on_closed;
  uv_close((uv_handle_t *)&deadline->timer, on_timer_closed);
}
