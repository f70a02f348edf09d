/* First pass: logits of query vectors against the keys of one block, and norms of its values. */
#pragma once
#include "layer.h"
#include "numbers.h"

/* Tokens whose logits are kept in registers at once, for three query vectors.  With 32 registers that is a whole row of a
 * block of 128 tokens, so that K is read from end to end: a fifth faster than in strips of 32. */
#ifdef __AVX512F__
#define TILE 128              /* 3 x 8 vectors in 32 registers */
#else
#define TILE 32               /* 3 x 4 vectors in 16 registers */
#endif
#define STRIP 32              /* the same for what is left of a block */
#define VECTORS (TILE / LANES)
#define HEADS_AT_ONCE 3       /* query vectors per pass over a tile */

/* Logits of `count` query vectors (at most HEADS_AT_ONCE) against TOKENS tokens of one block. */
#define DEFINE_LOGITS(NAME, TYPE, LOAD)                                                                                \
  static inline __attribute__((always_inline)) void NAME##_tile(                                                       \
      const TYPE *key, int64_t stride, int dim, const float *query, int64_t query_stride, float *out,                  \
      int64_t out_stride, const int count, const int vectors) {                                                        \
    vf sum[HEADS_AT_ONCE][VECTORS] = {{{0}}};                                                                          \
    for (int d = 0; d < dim; d++) {                                                                                    \
      vf k[VECTORS];                                                                                                   \
      for (int t = 0; t < vectors; t++) k[t] = LOAD(key + d * stride + t * LANES);                                     \
      for (int m = 0; m < count; m++) {                                                                                \
        float q = query[m * query_stride + d];                                                                         \
        for (int t = 0; t < vectors; t++) sum[m][t] += k[t] * q;                                                       \
      }                                                                                                                \
    }                                                                                                                  \
    for (int m = 0; m < count; m++)                                                                                    \
      for (int t = 0; t < vectors; t++) *(vf *)(out + m * out_stride + t * LANES) = sum[m][t];                         \
  }                                                                                                                    \
  static void NAME(const TYPE *key, int64_t stride, int dim, const float *query, int64_t query_stride, float *out,     \
                   int64_t out_stride, int count, int tokens) {                                                        \
    for (int first = 0; first < count; first += HEADS_AT_ONCE) {                                                       \
      int left = count - first < HEADS_AT_ONCE ? count - first : HEADS_AT_ONCE;                                        \
      const float *q = query + first * query_stride;                                                                   \
      float *o = out + first * out_stride;                                                                             \
      int t = 0;                                                                                                       \
      for (; t + TILE <= tokens; t += TILE)                                                                            \
        switch (left) {                                                                                                \
          case 1: NAME##_tile(key + t, stride, dim, q, query_stride, o + t, out_stride, 1, VECTORS); break;            \
          case 2: NAME##_tile(key + t, stride, dim, q, query_stride, o + t, out_stride, 2, VECTORS); break;            \
          default: NAME##_tile(key + t, stride, dim, q, query_stride, o + t, out_stride, 3, VECTORS); break;           \
        }                                                                                                              \
      for (; t + STRIP <= tokens; t += STRIP)                                                                          \
        switch (left) {                                                                                                \
          case 1: NAME##_tile(key + t, stride, dim, q, query_stride, o + t, out_stride, 1, STRIP / LANES); break;      \
          case 2: NAME##_tile(key + t, stride, dim, q, query_stride, o + t, out_stride, 2, STRIP / LANES); break;      \
          default: NAME##_tile(key + t, stride, dim, q, query_stride, o + t, out_stride, 3, STRIP / LANES); break;     \
        }                                                                                                              \
      for (; t < tokens; t += LANES) NAME##_tile(key + t, stride, dim, q, query_stride, o + t, out_stride, left, 1);   \
    }                                                                                                                  \
  }

DEFINE_LOGITS(logits_f32, float, load_f32)
DEFINE_LOGITS(logits_bf16, uint16_t, load_bf16)
DEFINE_LOGITS(logits_f16, uint16_t, load_f16)
DEFINE_LOGITS(logits_e4m3, uint8_t, load_e4m3)
DEFINE_LOGITS(logits_e5m2, uint8_t, load_e5m2)

/* The same for pairs of bfloat16: a 32-bit word holds two dimensions of one token, 16 tokens stand together. */
#define GROUP 16
static inline __attribute__((always_inline)) void logits_pairs_tile(const uint32_t *key, int dim, const float *query,
                                                                    int64_t query_stride, float *out,
                                                                    int64_t out_stride, const int count) {
  vf sum[HEADS_AT_ONCE][GROUP / LANES] = {{{0}}};
  for (int pair = 0; pair < dim / 2; pair++)
    for (int t = 0; t < GROUP / LANES; t++) {
      vu word = *(const vu *)(key + pair * GROUP + t * LANES);
      vf even = as_float(word << 16), odd = as_float(word & 0xffff0000u);
      for (int m = 0; m < count; m++)
        sum[m][t] += even * query[m * query_stride + 2 * pair] + odd * query[m * query_stride + 2 * pair + 1];
    }
  for (int m = 0; m < count; m++)
    for (int t = 0; t < GROUP / LANES; t++) *(vf *)(out + m * out_stride + t * LANES) = sum[m][t];
}

static void logits_pairs(const uint16_t *block, int token, int dim, const float *query, int64_t query_stride,
                         float *out, int64_t out_stride, int count, int tokens) {
  for (int first = 0; first < count; first += HEADS_AT_ONCE) {
    int left = count - first < HEADS_AT_ONCE ? count - first : HEADS_AT_ONCE;
    const float *q = query + first * query_stride;
    for (int t = 0; t < tokens; t += GROUP) {
      const uint32_t *key = (const uint32_t *)(block + (int64_t)(token + t) * dim);
      float *o = out + first * out_stride + t;
      switch (left) {
        case 1: logits_pairs_tile(key, dim, q, query_stride, o, out_stride, 1); break;
        case 2: logits_pairs_tile(key, dim, q, query_stride, o, out_stride, 2); break;
        default: logits_pairs_tile(key, dim, q, query_stride, o, out_stride, 3);
      }
    }
  }
}

static void block_logits(const hw_layer *layer, int64_t page, int kv_head, int token, int tokens, const float *query,
                         int64_t query_stride, float *out, int64_t out_stride, int count) {
  int64_t at = page * layer->block_stride + kv_head * layer->head_stride;
  if (layer->layout == PAIRS) {
    logits_pairs((const uint16_t *)layer->key + at, token, layer->dim, query, query_stride, out, out_stride, count, tokens);
    return;
  }
  at += token;
  const char *key = (const char *)layer->key + at * WIDTH[layer->cache_type];
  int64_t stride = layer->block_tokens;
  switch (layer->cache_type) {
    case F32:
      logits_f32((const float *)key, stride, layer->dim, query, query_stride, out, out_stride, count, tokens);
      break;
    case BF16:
      logits_bf16((const uint16_t *)key, stride, layer->dim, query, query_stride, out, out_stride, count, tokens);
      break;
    case F16:
      logits_f16((const uint16_t *)key, stride, layer->dim, query, query_stride, out, out_stride, count, tokens);
      break;
    case E4M3:
      logits_e4m3((const uint8_t *)key, stride, layer->dim, query, query_stride, out, out_stride, count, tokens);
      break;
    default:
      logits_e5m2((const uint8_t *)key, stride, layer->dim, query, query_stride, out, out_stride, count, tokens);
  }
}

/* Norms of the values of one block, row-major [tokens][value_dim]. */
static void block_norms(const hw_layer *layer, int64_t page, int kv_head, int token, int tokens, float *out) {
  int64_t at = page * layer->block_stride + kv_head * layer->head_stride + (int64_t)token * layer->value_dim;
  const char *value = (const char *)layer->value + at * WIDTH[layer->cache_type];
  for (int t = 0; t < tokens; t++) {
    vf sum = {0};
    for (int d = 0; d < layer->value_dim; d += LANES) {
      int64_t i = (int64_t)t * layer->value_dim + d;
      vf v;
      switch (layer->cache_type) {
        case F32: v = load_f32((const float *)value + i); break;
        case BF16: v = load_bf16((const uint16_t *)value + i); break;
        case F16: v = load_f16((const uint16_t *)value + i); break;
        case E4M3: v = load_e4m3((const uint8_t *)value + i); break;
        default: v = load_e5m2((const uint8_t *)value + i);
      }
      sum += v * v;
    }
    out[t] = sqrtf(sum_lanes(sum)) * layer->value_scale;
  }
}

