/* Head summaries of query rows on a CPU, straight from the paged cache.
 *
 * Two passes.  The first reads K once for all query heads and rows that share a KV head and leaves logits in a scratch
 * that stays in the cache of the core; the second walks each head's logits span by span and accumulates, in one go,
 * the sum of exp(l - max) of each span, of exp(l - max)(l - max) and of exp(l - max) j.  Every feature follows from these.
 * K is never read twice, and no weight is ever stored.
 *
 * Lanes are summed in float for at most FLUSH positions, then in double: the error is that of the logits' float
 * products, not of the length.  Vectors are the compiler's own (GCC, Clang): no intrinsics, any CPU.
 *
 * Layouts of K in a block: columns ([dim][tokens], vLLM's CPU_ATTN isa vec and vec16), or for bfloat16 pairs of dimensions in
 * groups of 16 tokens ([tokens / 16][dim / 2][16][2], isa amx).  Tokens a multiple of 16.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

/* Tokens whose logits are kept in registers at once, for three query vectors.  With 32 registers that is a whole row of a
 * block of 128 tokens, so that K is read from end to end: a fifth faster than in strips of 32. */
#ifdef __AVX512F__
#define LANES 16
#define TILE 128              /* 3 x 8 vectors in 32 registers */
#else
#define LANES 8
#define TILE 32               /* 3 x 4 vectors in 16 registers */
#endif
#define STRIP 32              /* the same for what is left of a block */
#define VECTORS (TILE / LANES)
#define HEADS_AT_ONCE 3       /* query vectors per pass over a tile */
#define FLUSH 1024
#define PADDING 16            /* floats behind a row of logits that vectors may touch */
#define CHUNK 256             /* tokens in one task of the first pass */

typedef float vf __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES), aligned(2)));
typedef uint8_t vb __attribute__((vector_size(LANES), aligned(1)));

enum { F32, BF16, F16, E4M3, E5M2 };
enum { COLUMNS, PAIRS };

typedef struct {
  const void *query;          /* [tokens][heads][dim] */
  const void *key;            /* first key of the cache */
  const void *value;          /* first value of the cache; NULL: value masses are not wanted */
  const void *output;         /* [tokens][heads][value_dim], as the engine wrote it */
  const int32_t *block_table;
  const float *alibi, *sinks; /* [heads] or NULL */
  float *features, *span_mass, *value_mass, *output_norm;
  int64_t query_token_stride, query_head_stride, output_token_stride, output_head_stride; /* elements */
  int64_t block_stride, head_stride;                                                       /* elements of the cache */
  int64_t table_stride;
  int64_t feature_row_stride, mass_span_stride, norm_row_stride; /* floats; heads are adjacent in all */
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

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static inline vf as_float(vu bits) { return (vf)bits; }
static inline vu select_u(vi mask, vu yes, vu no) { return ((vu)mask & yes) | (~(vu)mask & no); }
static inline vf splat(float x) { return x - (vf){0}; }

/* binary16 by one multiplication: shifting the exponent field into place leaves a factor of 2^112.  Subnormals below
 * 6e-5 become 0 where the process flushes denormals. */
static inline vf half_bits(vu h) {
  vu magnitude = (h & 0x7fff) << 13;
  vf x = as_float(magnitude) * 0x1p112f;
  vu special = select_u((vi)(magnitude >= 0x0f800000u), (vu){0} + 0x7f800000u, (vu){0});
  return as_float(((vu)x | special) | ((h & 0x8000) << 16));
}
static inline vf load_f32(const float *p) { return *(const vf *)p; }
static inline vf load_bf16(const uint16_t *p) {
  return as_float(__builtin_convertvector(*(const vh *)p, vu) << 16);
}
static inline vf load_f16(const uint16_t *p) { return half_bits(__builtin_convertvector(*(const vh *)p, vu)); }
static inline vf load_e5m2(const uint8_t *p) { return half_bits(__builtin_convertvector(*(const vb *)p, vu) << 8); }
static inline vf load_e4m3(const uint8_t *p) {
  vu b = __builtin_convertvector(*(const vb *)p, vu);
  vf x = as_float((b & 0x7f) << 20) * 0x1p120f;
  vu nan = select_u((vi)((b & 0x7f) == 0x7f), (vu){0} + 0x7fc00000u, (vu){0});
  return as_float(((vu)x | nan) | ((b & 0x80) << 24));
}

static float scalar(const void *base, int type, int64_t index) {
  uint32_t bits;
  float x;
  switch (type) {
    case F32: return ((const float *)base)[index];
    case BF16: bits = (uint32_t)((const uint16_t *)base)[index] << 16; break;
    case F16: {
      uint32_t h = ((const uint16_t *)base)[index];
      bits = (h & 0x7fff) << 13;
      memcpy(&x, &bits, 4);
      x *= 0x1p112f;
      memcpy(&bits, &x, 4);
      if (((h & 0x7c00) == 0x7c00)) bits |= 0x7f800000u;
      bits |= (h & 0x8000) << 16;
      break;
    }
    default: return NAN;
  }
  memcpy(&x, &bits, 4);
  return x;
}

static inline vf round_nearest(vf x) { /* for |x| < 2^22 */
  const vf magic = splat(12582912.0f);
  return (x + magic) - magic; /* compiled without -fassociative-math */
}

/* exp(x) for x <= 0, relative error below 2e-7; 0 below -87.  Cephes' range reduction and polynomial. */
static inline vf exp_negative(vf x) {
  vi tiny = x < splat(-87.0f);
  vf clamped = (vf)select_u(tiny, (vu)splat(-87.0f), (vu)x);
  vf n = round_nearest(clamped * 1.44269504088896341f);
  vf r = clamped - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  vi exponent = (__builtin_convertvector(n, vi) + 127) << 23;
  return as_float(~(vu)tiny & (vu)(p * (vf)exponent));
}

static inline float sum_lanes(vf v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}

/* ---- first pass: logits ------------------------------------------------------------------------------------------ */

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

static const int WIDTH[] = {4, 2, 2, 1, 1};

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

/* ---- second pass: one head's logits to its summary --------------------------------------------------------------- */

typedef struct {
  double mass, entropy, distance, carried;
} segment;

/* Sums over the positions [start, end); distances are taken from `start`. */
static segment sum_segment(const float *logit, const float *norm, int64_t start, int64_t end, float largest) {
  segment total = {0, 0, 0, 0};
  vf lane = {0};
  for (int i = 0; i < LANES; i++) lane[i] = (float)i;
  for (int64_t block = start; block < end; block += FLUSH) {
    int64_t stop = block + FLUSH < end ? block + FLUSH : end;
    vf mass = {0}, entropy = {0}, distance = {0}, carried = {0}, back = lane;
    for (int64_t j = block; j < stop; j += LANES) {
      vf l = *(const vf *)(logit + j) - largest; /* the scratch is padded by a vector */
      vf e = exp_negative(l);
      if (j + LANES > stop) {
        vi inside = back < splat((float)(stop - block));
        e = (vf)((vu)inside & (vu)e);
        l = (vf)((vu)inside & (vu)l);
      }
      mass += e;
      entropy += e * l;
      distance += e * back;
      if (norm) {
        vf v = *(const vf *)(norm + j);
        if (j + LANES > stop) v = (vf)((vu)(back < splat((float)(stop - block))) & (vu)v);
        carried += e * v;
      }
      back += (float)LANES;
    }
    double part = sum_lanes(mass);
    total.mass += part;
    total.entropy += sum_lanes(entropy);
    total.distance += sum_lanes(distance) + part * (double)(block - start);
    total.carried += sum_lanes(carried);
  }
  return total;
}

static float largest_logit(const float *logit, int64_t start, int64_t end) {
  float best = -INFINITY;
  int64_t j = start;
  if (end - start >= LANES) {
    vf top = *(const vf *)(logit + j);
    for (j += LANES; j + LANES <= end; j += LANES) {
      vf x = *(const vf *)(logit + j);
      vi larger = x > top;
      top = (vf)select_u(larger, (vu)x, (vu)top);
    }
    for (int i = 0; i < LANES; i++) best = top[i] > best ? top[i] : best;
  }
  for (; j < end; j++) best = logit[j] > best ? logit[j] : best;
  return best;
}

/* tanh: a series below 1/4, where 1 - exp(-2x) would lose digits. */
static inline vf tanh_lanes(vf x) {
  vf size = as_float((vu)x & 0x7fffffff), square = x * x;
  vf e = exp_negative(size * -2.0f);
  vf large = (vf)((vu)((1.0f - e) / (1.0f + e)) | ((vu)x & 0x80000000u));
  vf small = x * (square * (square * (square * (square * 2.1869488e-2f - 5.3968254e-2f) + 1.3333333e-1f) - 3.3333333e-1f) + 1.0f);
  return (vf)select_u(size < splat(0.25f), (vu)small, (vu)large);
}

/* Softcap and ALiBi; the padding behind `position` is overwritten too, and never read. */
static void adjust(const hw_layer *layer, int head, float *logit, int64_t start, int64_t position) {
  if (layer->softcap > 0)
    for (int64_t j = start; j <= position; j += LANES)
      *(vf *)(logit + j) = layer->softcap * tanh_lanes(*(const vf *)(logit + j) * (1.0f / layer->softcap));
  if (layer->alibi)
    for (int64_t j = start; j <= position; j++) logit[j] -= layer->alibi[head] * (float)(position - j);
}

#define LOCAL 32

static void summarise(const hw_layer *layer, const hw_task *task, const hw_row *row, int64_t number, int head,
                      float *logit, const float *norm) {
  int64_t position = row->position, first = 0;
  if (layer->window > 0 && position - layer->window + 1 > first) first = position - layer->window + 1;
  if (layer->chunk > 0 && position - position % layer->chunk > first) first = position - position % layer->chunk;
  adjust(layer, head, logit, first, position);
  float top = largest_logit(logit, first, position + 1), largest = top;
  double learned = 0;
  if (layer->sinks) {
    if (layer->sinks[head] > largest) largest = layer->sinks[head];
    learned = exp((double)layer->sinks[head] - largest);
  }

  int64_t local_from = position - LOCAL + 1, at = first;
  double total = 0, entropy = 0, distance = 0, local = 0, documents = 0, generated = 0;
  int64_t document_tokens = 0, generated_tokens = 0;
  float *mass = layer->span_mass + row->first_span * layer->mass_span_stride + head;
  float *carried = layer->value_mass ? layer->value_mass + row->first_span * layer->mass_span_stride + head : 0;
  double span_total[2];
  for (int64_t span = 0; span <= task->spans; span++) {
    int64_t end = span < task->spans ? task->ends[span] : position + 1;
    if (end > position + 1) end = position + 1;
    span_total[0] = span_total[1] = 0;
    while (at < end) {
      int64_t stop = at < local_from && local_from < end ? local_from : end;
      segment part = sum_segment(logit, norm, at, stop, largest);
      span_total[0] += part.mass;
      span_total[1] += part.carried;
      entropy += part.entropy;
      distance += part.mass * (double)(position - at) - part.distance;
      if (at >= local_from) local += part.mass;
      if (span == task->spans) generated_tokens += stop - at, generated += part.mass;
      else if (task->document[span]) document_tokens += stop - at, documents += part.mass;
      at = stop;
    }
    total += span_total[0];
    mass[span * layer->mass_span_stride] = (float)span_total[0]; /* divided below */
    if (carried) carried[span * layer->mass_span_stride] = (float)span_total[1];
  }

  double z = total + learned;
  int64_t visible = position + 1 - first;
  for (int64_t span = 0; span <= task->spans; span++) {
    mass[span * layer->mass_span_stride] = (float)(mass[span * layer->mass_span_stride] / z);
    if (carried) carried[span * layer->mass_span_stride] = (float)(carried[span * layer->mass_span_stride] / z);
  }
  float *feature = layer->features + number * layer->feature_row_stride + (int64_t)head * 6;
  feature[0] = visible > 1 ? (float)((log(z) * total - entropy) / z / log((double)visible)) : NAN;
  feature[1] = (float)(exp((double)top - largest) / z);
  feature[2] = (float)(((first == 0 ? exp((double)logit[0] - largest) : 0) + learned) / z);
  feature[3] = (float)(local / z);
  feature[4] = visible > 1 ? (float)(distance / z / (double)(visible - 1)) : NAN;
  if (document_tokens && generated_tokens) {
    double document_mean = documents / (double)document_tokens, generated_mean = generated / (double)generated_tokens;
    feature[5] = (float)(document_mean / (document_mean + generated_mean));
  } else {
    feature[5] = NAN;
  }
  if (layer->output_norm) {
    double squares = 0;
    int64_t base = row->query_index * layer->output_token_stride + head * layer->output_head_stride;
    for (int d = 0; d < layer->value_dim; d++) {
      double x = scalar(layer->output, layer->output_type, base + d);
      squares += x * x;
    }
    layer->output_norm[number * layer->norm_row_stride + head] = (float)sqrt(squares);
  }
}

/* ---- both passes over all rows ----------------------------------------------------------------------------------- */

static int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

/* Summarise all rows of `count` tasks.  Return 0, or 1 where there is no memory for the list of them. */
int hw_rows(const hw_layer *layer, const hw_task *tasks, int64_t count, const hw_row *rows, float *scratch) {
  int64_t all_rows = 0, pieces = 0;
  for (int64_t i = 0; i < count; i++) {
    all_rows += tasks[i].rows;
    pieces += (tasks[i].keys + CHUNK - 1) / CHUNK * layer->kv_heads;
  }
  int64_t *start = malloc(sizeof(int64_t) * (size_t)count * 3 + 8);
  if (!start) return 1;
  int64_t *first_piece = start + count, *norm_start = start + 2 * count;
  float *query = scratch;
  int64_t at = all_rows * layer->heads * layer->dim, piece = 0;
  for (int64_t i = 0; i < count; i++) {
    int64_t width = round_up(tasks[i].keys, layer->block_tokens) + PADDING;
    start[i] = at;
    at += tasks[i].rows * layer->heads * width;
    norm_start[i] = at;
    if (layer->value) at += layer->kv_heads * width;
    first_piece[i] = piece;
    piece += (tasks[i].keys + CHUNK - 1) / CHUNK * layer->kv_heads;
  }
  const int group = layer->heads / layer->kv_heads;
  const float factor = layer->scale * layer->key_scale;
  /* [kv head][row][head of the group][dim] for each task: the vectors that share keys stand together */
  for (int64_t i = 0; i < count; i++)
    for (int64_t r = 0; r < tasks[i].rows; r++)
      for (int h = 0; h < layer->heads; h++) {
        const hw_row *row = rows + tasks[i].first_row + r;
        float *to = query + (tasks[i].first_row * layer->heads +
                             ((int64_t)(h / group) * tasks[i].rows + r) * group + h % group) * layer->dim;
        int64_t from = row->query_index * layer->query_token_stride + h * layer->query_head_stride;
        if (layer->query_type == F32)
          for (int d = 0; d < layer->dim; d++) to[d] = ((const float *)layer->query)[from + d] * factor;
        else
          for (int d = 0; d < layer->dim; d++) to[d] = scalar(layer->query, layer->query_type, from + d) * factor;
      }

#ifdef _OPENMP
#pragma omp parallel num_threads(layer->threads)
#endif
  {
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
    for (int64_t p = 0; p < pieces; p++) {
      int64_t i = count - 1;
      while (first_piece[i] > p) i--;
      const hw_task *task = tasks + i;
      int64_t chunks = (task->keys + CHUNK - 1) / CHUNK, width = round_up(task->keys, layer->block_tokens) + PADDING;
      int64_t kv_head = (p - first_piece[i]) / chunks, from = (p - first_piece[i]) % chunks * CHUNK;
      int64_t to = from + CHUNK < task->keys ? from + CHUNK : task->keys;
      int64_t lowest = 0; /* no row of the task sees anything before it */
      int64_t earliest = rows[task->first_row].position;
      if (layer->window > 0) lowest = earliest - layer->window + 1;
      if (layer->chunk > 0 && earliest - earliest % layer->chunk > lowest) lowest = earliest - earliest % layer->chunk;
      if (to <= lowest) continue;
      int64_t vectors = task->rows * group;
      const float *q = query + (task->first_row * layer->heads + kv_head * vectors) * layer->dim;
      const int32_t *pages = layer->block_table + task->batch_index * layer->table_stride;
      for (int64_t token = from; token < to;) {
        int64_t page = pages[token / layer->block_tokens], inside = token % layer->block_tokens;
        int64_t tokens = layer->block_tokens - inside < to - token ? layer->block_tokens - inside : to - token;
        int padded = (int)round_up(tokens, layer->layout == PAIRS ? GROUP : LANES);
        block_logits(layer, page, (int)kv_head, (int)inside, padded, q, layer->dim,
                     scratch + start[i] + kv_head * vectors * width + token, width, (int)vectors);
        if (layer->value)
          block_norms(layer, page, (int)kv_head, (int)inside, (int)tokens,
                      scratch + norm_start[i] + kv_head * width + token);
        token += tokens;
      }
    }
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
    for (int64_t p = 0; p < all_rows * layer->heads; p++) {
      int64_t number = p / layer->heads;
      int head = (int)(p % layer->heads);
      const hw_row *row = rows + number;
      const hw_task *task = tasks + row->task;
      int64_t width = round_up(task->keys, layer->block_tokens) + PADDING, kv_head = head / group;
      int64_t vector = (kv_head * task->rows + (number - task->first_row)) * group + head % group;
      summarise(layer, task, row, number, head, scratch + start[row->task] + vector * width,
                layer->value ? scratch + norm_start[row->task] + kv_head * width : 0);
    }
  }
  free(start);
  return 0;
}

int hw_lanes(void) { return LANES; }
