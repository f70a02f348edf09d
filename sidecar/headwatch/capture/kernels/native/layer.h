/* What a call is made of; the Python side has the same fields in the same order (``native.py``). */
#pragma once
#include <stdint.h>

enum { COLUMNS, PAIRS };

typedef struct { /* a layer: the same in every step */
  const void *key;            /* first key of the cache */
  const void *value;          /* first value of the cache */
  const float *alibi, *sinks; /* [heads] or NULL */
  int64_t query_token_stride, query_head_stride, output_token_stride, output_head_stride; /* elements */
  int64_t block_stride, head_stride;                                                       /* elements of the cache */
  float scale, softcap, key_scale, value_scale;
  int32_t query_type, cache_type, output_type, heads, kv_heads, dim, value_dim, block_tokens, window, chunk, threads, layout;
} hw_layer;

typedef struct { /* one query row */
  int64_t task, query_index, position, first_span;
} hw_row;

typedef struct { /* the rows of one request */
  const int32_t *ends;
  const uint8_t *document;
  int64_t spans, batch_index, first_row, rows, keys;
} hw_task;

typedef struct { /* rows of a step, and where their summaries go: the same in every layer */
  const hw_task *tasks;
  const hw_row *rows;
  const int32_t *block_table;
  float *features, *span_mass; /* of the first of these rows, in layer 0 */
  float *value_mass, *output_norm; /* NULL: not wanted */
  int64_t count, table_stride; /* tasks; pages */
  int64_t feature_row_stride, feature_layer_stride, mass_span_stride, mass_layer_stride, norm_row_stride, norm_layer_stride;
  int64_t floats;             /* of logits and norms of values */
} hw_step;                    /* strides in floats; heads are adjacent in all */
