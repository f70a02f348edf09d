/* A thread that summarises on a core that the engine leaves free, while the engine goes on with its next layers.
 *
 * The engine's thread hands over one layer after the other (submit), which costs it a copy of the query rows.  Before the
 * step ends, and with it the cache's promise to hold still, it lends its own threads to what is left, and waits (settle).
 * Waking a thread costs the waker some 20 microseconds on a virtual machine.  So the first layer of a step wakes the helper,
 * and from then until the step has settled it looks for the next one by itself, every two milliseconds.
 *
 * No lock is held while anything is computed.  A place that the helper is still about to leave is not used again, so nobody
 * waits for a helper that has lost its core, but for one that lost it in the middle of a piece.
 */
#pragma once
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "job.h"

#define PLACES 512            /* layers of a step; further ones are done at once */
#define LOOK_NS 2000000

typedef struct {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wanted;
  hw_job *jobs[PLACES];       /* made when they are first used */
  hw_room rooms[PLACES];
  int used, begun;            /* places of this step, and how many of them somebody works on or has worked on */
  int inside;                 /* where the helper is; -1: nowhere */
  int active;                 /* whether this step has handed anything over */
  int stopping;
  hw_room mine, engines;      /* logits of the job that each works on */
  int64_t spent_ns;           /* processor time of the helper that settle has told of */
} hw_helper;

#ifdef __linux__

/* Take the oldest job that nobody has begun, with the lock held.  -1: there is none, or no memory for it. */
static int begin(hw_helper *helper, hw_room *room) {
  if (helper->begun >= helper->used) return -1;
  hw_job *job = helper->jobs[helper->begun];
  job->scratch = room_for(room, sizeof(float) * (size_t)job->step.floats);
  return job->scratch ? helper->begun++ : -1;
}

static void *help(void *argument) {
  hw_helper *helper = argument;
  const struct timespec look = {0, LOOK_NS};
  pthread_setname_np(pthread_self(), "headwatch-rows");
  pthread_mutex_lock(&helper->lock);
  while (!helper->stopping) {
    int place = helper->inside = begin(helper, &helper->mine);
    if (place < 0 && !helper->active) {
      pthread_cond_wait(&helper->wanted, &helper->lock);
      continue;
    }
    pthread_mutex_unlock(&helper->lock);
    if (place < 0)
      nanosleep(&look, NULL);
    else
      work(helper->jobs[place]); /* no OpenMP here: it would move this thread to the engine's cores */
    pthread_mutex_lock(&helper->lock);
    helper->inside = -1;
  }
  pthread_mutex_unlock(&helper->lock);
  return NULL;
}

/* Start a helper on the given processors.  Return NULL where that cannot be. */
hw_helper *hw_helper_start(const int32_t *processors, int64_t count) {
  hw_helper *helper = calloc(1, sizeof *helper);
  if (!helper) return NULL;
  helper->inside = -1;
  pthread_mutex_init(&helper->lock, NULL);
  pthread_cond_init(&helper->wanted, NULL);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int64_t i = 0; i < count; i++)
    if (processors[i] >= 0 && processors[i] < CPU_SETSIZE) CPU_SET(processors[i], &set);
  sigset_t all, before; /* the process's signals are for its own threads */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_attr_setaffinity_np(&attributes, sizeof set, &set) ||
               pthread_create(&helper->thread, &attributes, help, helper);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (failed) {
    free(helper);
    return NULL;
  }
  return helper;
}

/* Hand over a layer.  Return 1, or 0 where there is no place or no memory: the caller does it then. */
static int submit(hw_helper *helper, const hw_layer *layer, const hw_step *step, int64_t index, const void *query,
                  const void *output) {
  int place = helper->used; /* this thread alone changes it */
  pthread_mutex_lock(&helper->lock);
  int occupied = helper->inside == place;
  pthread_mutex_unlock(&helper->lock);
  if (occupied || place >= PLACES) return 0;
  if (!helper->jobs[place]) helper->jobs[place] = malloc(sizeof(hw_job));
  if (!helper->jobs[place] || !prepare(helper->jobs[place], &helper->rooms[place], layer, step, index, query, output))
    return 0;
  pthread_mutex_lock(&helper->lock);
  helper->used++;
  if (!helper->active) pthread_cond_signal(&helper->wanted);
  helper->active = 1;
  pthread_mutex_unlock(&helper->lock);
  return 1;
}

/* Return once all that was handed over is done: the nanoseconds of processor time that the helper has taken since the last
 * call; -1 where something was left undone for want of memory. */
int64_t hw_settle(hw_helper *helper) {
  int place, undone;
  pthread_mutex_lock(&helper->lock);
  while ((place = begin(helper, &helper->engines)) >= 0) {
    pthread_mutex_unlock(&helper->lock);
    work_together(helper->jobs[place]);
    pthread_mutex_lock(&helper->lock);
  }
  place = helper->inside, undone = helper->begun < helper->used;
  helper->used = helper->begun; /* nobody begins with the rest */
  pthread_mutex_unlock(&helper->lock);
  if (place >= 0 && atomic_load(&helper->jobs[place]->next_summary) < helper->jobs[place]->summaries)
    work_together(helper->jobs[place]);
  for (int i = 0; i < helper->begun; i++) wait_until(&helper->jobs[i]->done_summaries, helper->jobs[i]->summaries);
  pthread_mutex_lock(&helper->lock);
  helper->used = helper->begun = helper->active = 0;
  pthread_mutex_unlock(&helper->lock);
  struct timespec now;
  clockid_t clock;
  if (pthread_getcpuclockid(helper->thread, &clock) || clock_gettime(clock, &now)) return undone ? -1 : 0;
  int64_t before = helper->spent_ns;
  helper->spent_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
  return undone ? -1 : helper->spent_ns - before;
}

/* End a helper that has settled. */
void hw_helper_stop(hw_helper *helper) {
  pthread_mutex_lock(&helper->lock);
  helper->stopping = 1;
  pthread_cond_signal(&helper->wanted);
  pthread_mutex_unlock(&helper->lock);
  pthread_join(helper->thread, NULL);
  for (int i = 0; i < PLACES; i++) {
    free(helper->jobs[i]);
    free(helper->rooms[i].memory);
  }
  free(helper->mine.memory);
  free(helper->engines.memory);
  free(helper);
}

/* Write the processors that the engine's threads may run on into `processors`; return their number. */
int64_t hw_engine_processors(int32_t threads, int32_t *processors, int64_t room) {
  cpu_set_t all;
  CPU_ZERO(&all);
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
#endif
  {
    cpu_set_t mine;
    if (!pthread_getaffinity_np(pthread_self(), sizeof mine, &mine)) {
#ifdef _OPENMP
#pragma omp critical
#endif
      CPU_OR(&all, &all, &mine);
    }
  }
  int64_t count = 0;
  for (int i = 0; i < CPU_SETSIZE && count < room; i++)
    if (CPU_ISSET(i, &all)) processors[count++] = i;
  return count;
}

#else /* no affinity: nobody knows what the engine leaves free */

hw_helper *hw_helper_start(const int32_t *processors, int64_t count) { return (void)processors, (void)count, NULL; }
static int submit(hw_helper *helper, const hw_layer *layer, const hw_step *step, int64_t index, const void *query,
                  const void *output) {
  return (void)helper, (void)layer, (void)step, (void)index, (void)query, (void)output, 0;
}
int64_t hw_settle(hw_helper *helper) { return (void)helper, 0; }
void hw_helper_stop(hw_helper *helper) { (void)helper; }
int64_t hw_engine_processors(int32_t threads, int32_t *processors, int64_t room) {
  return (void)threads, (void)processors, (void)room, 0;
}

#endif
