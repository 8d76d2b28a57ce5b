/* SPDX-License-Identifier: MIT */
/*
 * Who runs pairs. See crew.h for the border that is drawn here. All of this
 * file happens on the owner's thread:
 *
 *   here                           worker.c
 *   crew_start ──order: run─────►  on_mail ─► pair_run
 *   crew_limit ──order: limits──►  on_mail ─► pair_limit
 *   crew_drop  ──order: close───►  on_mail ─► pair_close
 *   on_news    ◄──ended──────────  worker_return
 *   crew_close ──dismissed──────►  on_mail ─► the loop runs out
 *   on_news    ◄──gone───────────  work, its last act
 */
#include "flow/crew.h"

#include <stdlib.h>
#include <string.h>

#include "flow/job.h"

/* A loop's own: epoll, its eventfd, the pipe of its signals. */
#define LOOP_DESCRIPTORS 4

/* ---- what comes back ---------------------------------------------------- */

static struct job *take_ended(struct worker *worker) {
  struct job *job = NULL;

  uv_mutex_lock(&worker->lock);
  if (!link_is_empty(&worker->ended)) {
    job = container_of(worker->ended.next, struct job, link);
    link_remove(&job->link);
  }
  uv_mutex_unlock(&worker->lock);
  return job;
}

static void collect(struct worker *worker) {
  struct job *job;

  while ((job = take_ended(worker)) != NULL) {
    worker->pairs--;
    if (job->on_end != NULL)
      job->on_end(&job->pair, job->pair.reason);
    relay__pair_free(&job->pair);
  }
}

static bool is_gone(struct worker *worker) {
  bool gone;

  uv_mutex_lock(&worker->lock);
  gone = worker->gone;
  uv_mutex_unlock(&worker->lock);
  return gone;
}

static void on_news_closed(uv_handle_t *news) {
  struct crew *crew = container_of(news, struct crew, news);
  struct plane *plane = crew->plane;

  free(crew->workers);
  crew->workers = NULL;
  relay__plane_give_descriptors(plane, (int)crew->count * LOOP_DESCRIPTORS);
  relay__plane_release(plane);
}

/* It has nothing left to do but return: nobody is waited for. */
static void join(struct worker *worker) {
  struct crew *crew = worker->crew;

  uv_thread_join(&worker->thread);
  uv_mutex_destroy(&worker->lock);
  worker->joined = true;
  if (--crew->at_work == 0)
    uv_close((uv_handle_t *)&crew->news, on_news_closed);
}

static void on_news(uv_async_t *news) {
  struct crew *crew = container_of(news, struct crew, news);
  unsigned i;

  for (i = 0; i < crew->count; i++) {
    struct worker *worker = &crew->workers[i];
    bool gone = !worker->joined && is_gone(worker);

    if (worker->joined)
      continue;
    collect(worker);
    if (gone)
      join(worker);
  }
  relay__plane_note_descriptors(crew->plane);
}

/* ---- the threads -------------------------------------------------------- */

/* The owner lacks descriptors, and workers may keep some. */
static void on_wanted(struct plane *plane) {
  struct crew *crew = plane->crew;
  unsigned i;

  for (i = 0; i < crew->count && !crew->closing; i++)
    uv_async_send(&crew->workers[i].mail);
}

int relay__crew_init(struct crew *crew, struct plane *plane, unsigned count) {
  int err;

  memset(crew, 0, sizeof(*crew));
  crew->plane = plane;
  if (count == 0)
    return 0;
  if (count > CREW_WORKERS_MAX)
    return UV_EINVAL;
  crew->workers = calloc(count, sizeof(*crew->workers));
  if (crew->workers == NULL)
    return UV_ENOMEM;
  err = uv_async_init(plane->loop, &crew->news, on_news);
  if (err != 0) {
    free(crew->workers);
    crew->workers = NULL;
    return err;
  }
  relay__plane_retain(plane);
  plane->crew = crew;
  plane->on_wanted = on_wanted;
  while (err == 0 && crew->count < count) {
    err = relay__worker_start(crew, &crew->workers[crew->count]);
    if (err == 0)
      crew->count++;
  }
  crew->at_work = crew->count;
  relay__plane_take_descriptors(plane, (int)crew->count * LOOP_DESCRIPTORS);
  return err;
}

void relay__crew_close(struct crew *crew) {
  unsigned i;

  if (crew->workers == NULL || crew->closing)
    return;
  crew->closing = true;
  for (i = 0; i < crew->count; i++) {
    struct worker *worker = &crew->workers[i];

    uv_mutex_lock(&worker->lock);
    worker->dismissed = true;
    uv_async_send(&worker->mail); /* before it can see that, and close it */
    uv_mutex_unlock(&worker->lock);
  }
  if (crew->at_work == 0) /* none of them could be started */
    uv_close((uv_handle_t *)&crew->news, on_news_closed);
}

/* ---- pairs -------------------------------------------------------------- */

/* The one with the fewest pairs, from the one after the last: so the first few
   pairs are spread, too. Pairs and not bytes, because a pair stays where it
   begins, and what it will move is not known then. */
static struct worker *choose(struct crew *crew) {
  struct worker *best = NULL;
  unsigned i;

  for (i = 0; i < crew->count; i++) {
    struct worker *worker = &crew->workers[(crew->next + i) % crew->count];

    if (best == NULL || worker->pairs < best->pairs)
      best = worker;
  }
  crew->next = (unsigned)(best - crew->workers) + 1;
  return best;
}

/* Adds to what the worker is to do with the pair, unless it was handed back. */
static void order(struct job *job, const struct orders *orders) {
  struct worker *worker = job->pair.worker;
  bool ended;

  uv_mutex_lock(&worker->lock);
  ended = job->ended;
  if (!ended) {
    job->orders.run |= orders->run;
    if (orders->limit) {
      job->orders.limit = true;
      job->orders.limits = orders->limits;
    }
    if (orders->close) {
      job->orders.close = true;
      job->orders.reason = orders->reason;
    }
    link_remove(&job->link);
    link_append(&worker->orders, &job->link);
  }
  uv_mutex_unlock(&worker->lock);
  if (!ended)
    uv_async_send(&worker->mail);
}

static int move_streams(struct stream *streams[2], struct plane *to) {
  bool is_echo = streams[1] == NULL;

  streams[0] = relay__stream_move(streams[0], to);
  if (!is_echo)
    streams[1] = relay__stream_move(streams[1], to);
  if (streams[0] != NULL && (is_echo || streams[1] != NULL))
    return 0;
  relay__stream_close(streams[0]);
  relay__stream_close(streams[1]);
  return UV_ENOMEM;
}

int relay__crew_start(struct pair **out, struct crew *crew,
                      struct stream *visitor, struct stream *agent,
                      const struct pair_limits *limits, pair_end_fn on_end,
                      void *owner) {
  struct stream *streams[2] = {visitor, agent};
  struct worker *worker;
  struct job *job;

  if (crew->count == 0)
    return relay__pair_start(out, crew->plane, visitor, agent, limits, on_end,
                             owner);
  worker = choose(crew);
  job = calloc(1, sizeof(*job));
  if (job == NULL) {
    relay__stream_close(visitor);
    relay__stream_close(agent);
    return UV_ENOMEM;
  }
  if (move_streams(streams, &worker->plane) != 0) {
    free(job);
    return UV_ENOMEM;
  }
  relay__pair_init(&job->pair, streams[0], streams[1], limits,
                   relay__worker_return, owner);
  job->pair.worker = worker;
  job->on_end = on_end;
  link_init(&job->link);
  worker->pairs++;
  order(job, &(struct orders){.run = true});
  *out = &job->pair;
  return 0;
}

void relay__crew_drop(struct pair *pair, int reason) {
  if (pair->worker == NULL) {
    pair->on_end = NULL;
    relay__pair_close(pair, reason);
    return;
  }
  job_of(pair)->on_end = NULL;
  order(job_of(pair), &(struct orders){.close = true, .reason = reason});
}

bool relay__crew_has_ended(struct pair *pair) {
  struct worker *worker = pair->worker;
  bool ended;

  if (worker == NULL)
    return pair->ended;
  uv_mutex_lock(&worker->lock);
  ended = job_of(pair)->ended;
  uv_mutex_unlock(&worker->lock);
  return ended;
}

void relay__crew_limit(struct pair *pair, const struct pair_limits *limits) {
  if (pair->worker == NULL)
    relay__pair_limit(pair, limits);
  else
    order(job_of(pair), &(struct orders){.limit = true, .limits = *limits});
}
