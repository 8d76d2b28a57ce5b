/* SPDX-License-Identifier: MIT */
/*
 * A worker: a thread with a loop and a plane, which runs the pairs it is given.
 * All here but the last part happens on that thread. See crew.h for what may
 * cross to it and back.
 */
#include <signal.h>
#include <string.h>

#include "flow/job.h"

/* Flows keep little on the stack, OpenSSL some. */
#define STACK_BYTES (512 * 1024)

/* ---- the worker's thread ---------------------------------------------- */

/* The last of a pair on this thread. */
void relay__worker_return(struct pair *pair, int reason) {
  struct job *job = job_of(pair);
  struct worker *worker = pair->worker;

  (void)reason; /* it is in the pair */
  uv_mutex_lock(&worker->lock);
  job->ended = true;
  link_remove(&job->link); /* an order that came too late */
  link_append(&worker->ended, &job->link);
  uv_mutex_unlock(&worker->lock);
  uv_async_send(&worker->crew->news);
}

/* The next pair that has orders, and these; NULL: there is none. */
static struct job *take_orders(struct worker *worker, struct orders *orders) {
  struct job *job = NULL;

  uv_mutex_lock(&worker->lock);
  if (!link_is_empty(&worker->orders)) {
    job = container_of(worker->orders.next, struct job, link);
    link_remove(&job->link);
    *orders = job->orders;
    memset(&job->orders, 0, sizeof(job->orders));
  } else {
    worker->leaving = worker->dismissed;
  }
  uv_mutex_unlock(&worker->lock);
  return job;
}

static void obey(struct job *job, const struct orders *orders) {
  struct pair *pair = &job->pair;

  if (orders->run)
    relay__pair_run(pair, &pair->worker->plane);
  if (orders->limit)
    relay__pair_limit(pair, &orders->limits);
  if (orders->close)
    relay__pair_close(pair, orders->reason);
}

/* Others wait for descriptors: what is kept of them is given up. */
static void trim(struct plane *plane) {
  while (plane->budget->wanted != 0 && relay__hold_trim(plane))
    ;
}

static void on_mail(uv_async_t *mail) {
  struct worker *worker = container_of(mail, struct worker, mail);
  struct orders orders;
  struct job *job;

  while ((job = take_orders(worker, &orders)) != NULL)
    obey(job, &orders);
  trim(&worker->plane);
  if (!worker->leaving || uv_is_closing((uv_handle_t *)mail))
    return;
  /* The loop runs out when the last pair's handles have closed, too. */
  uv_close((uv_handle_t *)mail, NULL);
  relay__plane_close(&worker->plane);
}

static void on_descriptor(struct plane *plane) {
  if (plane->budget->wanted != 0)
    uv_async_send(&plane->crew->news);
}

static void work(void *argument) {
  struct worker *worker = argument;

  uv_run(&worker->loop, UV_RUN_DEFAULT);
  uv_loop_close(&worker->loop);
  uv_mutex_lock(&worker->lock);
  worker->gone = true;
  uv_mutex_unlock(&worker->lock);
  uv_async_send(&worker->crew->news);
}

/* ---- the owner's thread ------------------------------------------------ */

/* The host's signals are the host's. A thread begins with the mask of the one
   that makes it. */
static int start_thread(struct worker *worker) {
  const uv_thread_options_t options = {UV_THREAD_HAS_STACK_SIZE, STACK_BYTES};
  sigset_t all, before;
  int err;

  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  err = uv_thread_create_ex(&worker->thread, &options, work, worker);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return err;
}

/* Its loop was made and nobody runs it. */
static void abandon(struct worker *worker) {
  uv_close((uv_handle_t *)&worker->mail, NULL);
  relay__plane_close(&worker->plane);
  uv_run(&worker->loop, UV_RUN_DEFAULT);
  uv_loop_close(&worker->loop);
}

static int start_loop(struct worker *worker) {
  struct crew *crew = worker->crew;
  int err = uv_loop_init(&worker->loop);

  if (err != 0)
    return err;
  err = uv_async_init(&worker->loop, &worker->mail, on_mail);
  if (err != 0) {
    uv_loop_close(&worker->loop);
    return err;
  }
  err = relay__plane_init_beside(&worker->plane, &worker->loop, crew->plane);
  worker->plane.crew = crew;
  worker->plane.on_descriptor = on_descriptor;
  if (err == 0)
    err = start_thread(worker);
  if (err != 0)
    abandon(worker);
  return err;
}

int relay__worker_start(struct crew *crew, struct worker *worker) {
  int err = uv_mutex_init(&worker->lock);

  if (err != 0)
    return err;
  worker->crew = crew;
  link_init(&worker->orders);
  link_init(&worker->ended);
  err = start_loop(worker);
  if (err != 0)
    uv_mutex_destroy(&worker->lock);
  return err;
}
