/* Both passes over all rows of one layer, as work that several threads may share without a word between them.
 *
 * prepare() copies what the engine may overwrite once its next layer runs: the query rows, scaled, and the norms of the
 * outputs.  What is left reads the paged cache and the step's lists alone.  Any number of threads then call work(), at any
 * time: each takes the next piece until none is left, and waits between the passes for the pieces that others still have.
 */
#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "layer.h"
#include "logits.h"
#include "numbers.h"
#include "summary.h"

#define PADDING 16            /* floats behind a row of logits that vectors may touch */
#define CHUNK 256             /* tokens in one piece of the first pass */
#define SPINS 2000            /* some microseconds, about a piece */

typedef struct {
  hw_layer layer;
  hw_step step;
  int64_t index;              /* of the layer among those of the step */
  int64_t all_rows;
  int64_t pieces, summaries;  /* of the first pass and of the second */
  float *query;               /* [tasks][kv head][row][head of the group][dim]: vectors that share keys stand together */
  float *scratch;             /* logits and norms of values, step.floats in all */
  int64_t *start;             /* [3][count]: a task's logits, its first piece, its norms of values */
  _Atomic int64_t next_piece, done_pieces, next_summary, done_summaries;
} hw_job;

typedef struct { /* memory that grows and is used again */
  void *memory;
  size_t bytes;
} hw_room;

static void *room_for(hw_room *room, size_t bytes) {
  if (room->bytes < bytes) {
    free(room->memory);
    room->memory = malloc(bytes);
    room->bytes = room->memory ? bytes : 0;
  }
  return room->memory;
}

static int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
static int64_t logits_width(const hw_job *job, const hw_task *task) {
  return round_up(task->keys, job->layer.block_tokens) + PADDING;
}
static int64_t chunks_of(const hw_task *task) { return (task->keys + CHUNK - 1) / CHUNK; }

static void copy_queries(hw_job *job, const void *query) {
  const hw_layer *layer = &job->layer;
  const int group = layer->heads / layer->kv_heads;
  const float factor = layer->scale * layer->key_scale;
  for (int64_t i = 0; i < job->step.count; i++)
    for (int64_t r = 0; r < job->step.tasks[i].rows; r++)
      for (int h = 0; h < layer->heads; h++) {
        const hw_task *task = job->step.tasks + i;
        const hw_row *row = job->step.rows + task->first_row + r;
        float *to = job->query + (task->first_row * layer->heads +
                                  ((int64_t)(h / group) * task->rows + r) * group + h % group) * layer->dim;
        int64_t from = row->query_index * layer->query_token_stride + h * layer->query_head_stride;
        if (layer->query_type == F32)
          for (int d = 0; d < layer->dim; d++) to[d] = ((const float *)query)[from + d] * factor;
        else
          for (int d = 0; d < layer->dim; d++) to[d] = scalar(query, layer->query_type, from + d) * factor;
      }
}

static void output_norms(hw_job *job, const void *output) {
  const hw_layer *layer = &job->layer;
  float *to = job->step.output_norm + job->index * job->step.norm_layer_stride;
  for (int64_t number = 0; number < job->all_rows; number++)
    for (int head = 0; head < layer->heads; head++) {
      double squares = 0;
      int64_t from = job->step.rows[number].query_index * layer->output_token_stride + head * layer->output_head_stride;
      for (int d = 0; d < layer->value_dim; d++) {
        double x = scalar(output, layer->output_type, from + d);
        squares += x * x;
      }
      to[number * job->step.norm_row_stride + head] = (float)sqrt(squares);
    }
}

/* `room` keeps what the job has copied.  Return 1, or 0 where there is no memory. */
static int prepare(hw_job *job, hw_room *room, const hw_layer *layer, const hw_step *step, int64_t index, const void *query,
                   const void *output) {
  job->layer = *layer, job->step = *step, job->index = index;
  job->all_rows = job->pieces = 0;
  for (int64_t i = 0; i < step->count; i++) job->all_rows += step->tasks[i].rows;
  size_t lists = sizeof(int64_t) * 3 * (size_t)step->count;
  char *memory = room_for(room, lists + sizeof(float) * (size_t)(job->all_rows * layer->heads * layer->dim));
  if (!memory) return 0;
  job->start = (int64_t *)memory, job->query = (float *)(memory + lists);
  int64_t at = 0;
  for (int64_t i = 0; i < step->count; i++) {
    const hw_task *task = step->tasks + i;
    job->start[i] = at;
    at += task->rows * layer->heads * logits_width(job, task);
    job->start[step->count + i] = job->pieces;
    job->pieces += chunks_of(task) * layer->kv_heads;
    job->start[2 * step->count + i] = at;
    if (step->value_mass) at += layer->kv_heads * logits_width(job, task);
  }
  job->summaries = job->all_rows * layer->heads;
  copy_queries(job, query);
  if (step->output_norm) output_norms(job, output);
  atomic_store_explicit(&job->next_piece, 0, memory_order_relaxed);
  atomic_store_explicit(&job->done_pieces, 0, memory_order_relaxed);
  atomic_store_explicit(&job->next_summary, 0, memory_order_relaxed);
  atomic_store_explicit(&job->done_summaries, 0, memory_order_relaxed);
  return 1;
}

/* Logits of the vectors of one task and KV head against one chunk of its keys. */
static void logits_piece(const hw_job *job, int64_t piece) {
  const hw_layer *layer = &job->layer;
  int64_t count = job->step.count, i = count - 1;
  while (job->start[count + i] > piece) i--;
  const hw_task *task = job->step.tasks + i;
  piece -= job->start[count + i];
  int64_t width = logits_width(job, task), kv_head = piece / chunks_of(task), from = piece % chunks_of(task) * CHUNK;
  int64_t to = from + CHUNK < task->keys ? from + CHUNK : task->keys;
  int64_t lowest = 0; /* no row of the task sees anything before it */
  int64_t earliest = job->step.rows[task->first_row].position;
  if (layer->window > 0) lowest = earliest - layer->window + 1;
  if (layer->chunk > 0 && earliest - earliest % layer->chunk > lowest) lowest = earliest - earliest % layer->chunk;
  if (to <= lowest) return;
  int64_t vectors = task->rows * (layer->heads / layer->kv_heads);
  const float *query = job->query + (task->first_row * layer->heads + kv_head * vectors) * layer->dim;
  float *logits = job->scratch + job->start[i] + kv_head * vectors * width;
  float *norms = job->scratch + job->start[2 * count + i] + kv_head * width;
  const int32_t *pages = job->step.block_table + task->batch_index * job->step.table_stride;
  for (int64_t token = from; token < to;) {
    int64_t page = pages[token / layer->block_tokens], inside = token % layer->block_tokens;
    int64_t tokens = layer->block_tokens - inside < to - token ? layer->block_tokens - inside : to - token;
    int padded = (int)round_up(tokens, layer->layout == PAIRS ? GROUP : LANES);
    block_logits(layer, page, (int)kv_head, (int)inside, padded, query, layer->dim, logits + token, width, (int)vectors);
    if (job->step.value_mass) block_norms(layer, page, (int)kv_head, (int)inside, (int)tokens, norms + token);
    token += tokens;
  }
}

/* The summary of one head of one row. */
static void summary_piece(const hw_job *job, int64_t piece) {
  const hw_layer *layer = &job->layer;
  const int group = layer->heads / layer->kv_heads;
  int64_t number = piece / layer->heads, i = job->step.rows[number].task;
  int head = (int)(piece % layer->heads);
  const hw_task *task = job->step.tasks + i;
  int64_t width = logits_width(job, task), kv_head = head / group;
  int64_t vector = (kv_head * task->rows + (number - task->first_row)) * group + head % group;
  const float *norms = job->scratch + job->start[2 * job->step.count + i] + kv_head * width;
  summarise(layer, &job->step, job->index, number, head, job->scratch + job->start[i] + vector * width,
            job->step.value_mass ? norms : 0);
}

static void wait_until(_Atomic int64_t *done, int64_t wanted) {
  for (int spins = 0; atomic_load_explicit(done, memory_order_acquire) < wanted; spins++)
    if (spins >= SPINS) sched_yield();
}

static void work(hw_job *job) {
  int64_t piece;
  while ((piece = atomic_fetch_add(&job->next_piece, 1)) < job->pieces) {
    logits_piece(job, piece);
    atomic_fetch_add(&job->done_pieces, 1);
  }
  wait_until(&job->done_pieces, job->pieces);
  while ((piece = atomic_fetch_add(&job->next_summary, 1)) < job->summaries) {
    summary_piece(job, piece);
    atomic_fetch_add(&job->done_summaries, 1);
  }
}

/* On the engine's own threads, while they have nothing else to do.  Others may be at it already. */
static void work_together(hw_job *job) {
#ifdef _OPENMP
#pragma omp parallel num_threads(job->layer.threads)
#endif
  work(job);
  wait_until(&job->done_summaries, job->summaries);
}
