/* What the sidecar computes of every frame: the same as values.py, reading.py, histogram.py and arrays.py say in numpy.
 *
 * NaN means "undefined".  Floats of a frame begin at any byte.  N is the number of heads in a row of a frame, all layers
 * together; what is called a plane has one float for each.  Arrays come as Python's buffers (python.h), whose sizes are
 * checked: nothing is read or written beyond them.  What is called by Python ends with an exception set, or is done. */
#include "python.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float loose __attribute__((aligned(1), may_alias));

enum { AT_ONCE = 256, LANES = 16, ABREAST = 8, LINE = 64 };
enum { FLOATS = 8 };
typedef float floats __attribute__((vector_size(4 * FLOATS), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(4 * FLOATS), aligned(4), may_alias));
#define UNDEFINED __builtin_nanf("")

/* Whether no one of `values` is further from 0 than `largest`; NaN is not. */
int hw_within(object *values, double largest) {
  array of = {0};
  int beyond = 0;
  if (take(&of, values, READ)) {
    const loose *value = of.buf;
    int64_t n = of.len / (int64_t)sizeof *value;
    for (int64_t i = 0; i < n; i++) beyond |= fabsf(value[i]) > (float)largest;
  }
  give(&of, 1);
  return !beyond;
}

/* ---- values.values_of ---- */

/* What the spans of a request mean: see SpanTable.plan. */
typedef struct {
  int64_t start, kind, document;
} span;
typedef struct {
  int64_t spans, documents, first_kind;
  span span[];
} plan;

typedef struct {
  const loose *masses;
  int64_t position;
  const plan *plan;
} row;

/* Where the results of one row begin. */
typedef struct {
  float *window, *rest, *kinds, *shares;
} place;

static void fill(float *to, int64_t n, float value) {
  for (int64_t i = 0; i < n; i++) to[i] = value;
}

static void add(float *restrict to, const loose *restrict from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] += from[i];
}

static void divide(float *restrict to, const float *restrict by, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] /= by[i];
}

/* The masses of the heads from `from` on, m of N: their planes in the window, and the parts. */
static void parts(const row *row, const place *to, int64_t N, int64_t documents, int64_t from, int64_t m) {
  const plan *plan = row->plan;
  const float *sink = to->window + SINK * N + from, *rest = to->rest + from;
  float together[AT_ONCE];
  int there[KINDS] = {0}, informed = 0;
  for (int64_t s = 0; s < plan->spans; s++) {
    int seen = plan->span[s].start <= row->position;
    there[plan->span[s].kind] |= seen;
    informed |= seen && plan->span[s].document >= 0;
  }
  fill(together, m, 0);
  for (int64_t k = 0; k < KINDS; k++)
    if (there[k]) fill(to->kinds + k * N + from, m, 0);
  for (int64_t d = 0; d < documents; d++) fill(to->shares + d * N + from, m, 0);
  for (int64_t s = 0; s < plan->spans; s++) {
    const loose *mass = row->masses + s * N + from;
    const span *span = &plan->span[s];
    if (there[span->kind]) add(to->kinds + span->kind * N + from, mass, m);
    if (span->document >= 0) {
      add(together, mass, m);
      add(to->shares + span->document * N + from, mass, m);
    }
  }
  if (!informed) fill(together, m, UNDEFINED);
  for (int64_t k = 0; k < KINDS; k++) {
    float *part = to->kinds + k * N + from, *kept = to->window + (KEPT + k) * N + from;
    if (!there[k]) { /* a kind that is not there has no mass, not mass 0 */
      fill(part, m, UNDEFINED), fill(kept, m, UNDEFINED);
      continue;
    }
    memcpy(kept, part, m * sizeof(float));
    if (k == plan->first_kind)
      for (int64_t i = 0; i < m; i++) {
        float less = part[i] - sink[i];
        part[i] = less < 0 ? 0 : less;
      }
    divide(part, rest, m);
  }
  float *mass = to->window + DOCUMENT_MASS * N + from;
  for (int64_t i = 0; i < m; i++) {
    mass[i] = together[i] / rest[i];
    together[i] = sink[i] > SATURATED || together[i] <= 0 ? UNDEFINED : together[i];
  }
  for (int64_t d = 0; d < documents; d++) divide(to->shares + d * N + from, together, m);
}

/* Point `to` to the row's masses and to what its spans mean; return whether all of it is there and fits. */
static int understand(row *to, const array *masses, const array *plan_of, int64_t N, int64_t documents) {
  const plan *plan = to->plan = plan_of->buf;
  int64_t numbers = plan_of->len / 8;
  if (numbers < 3 || plan->spans < 0 || plan->spans > numbers || numbers != 3 + 3 * plan->spans || plan->documents > documents)
    return fail("a plan of spans that does not fit itself");
  for (int64_t s = 0; s < plan->spans; s++)
    if (plan->span[s].kind < 0 || plan->span[s].kind >= KINDS || plan->span[s].document >= plan->documents)
      return fail("a plan of spans with a kind or a document that is not there");
  to->masses = masses->buf;
  return fits(masses, plan->spans * N * 4, "masses");
}

/* features [count, N, FEATURES]; window [count, KEPT + KINDS, N]; rest [count, N];
 * parts [count, KINDS + documents, N]; undefined [count], int64.  masses and plans have a buffer for each row: masses
 * [spans, N] and SpanTable.plan; no masses and no parts at detail 0. */
void hw_values(object *features, object *masses, object *positions, object *plans, int64_t N, int64_t documents,
               object *window, object *rest, object *of_parts, object *undefined) {
  enum { FEATURE, WINDOW, REST, PARTS, UNDEFINED_OF, ALL };
  array of[ALL] = {0};
  int64_t count = PyTuple_Size(plans), detailed = PyTuple_Size(masses);
  if (PyErr_Occurred() || PyTuple_Size(positions) != count || (detailed && detailed != count) || N < 0 || documents < 0) {
    fail("tuples of different lengths");
    return;
  }
  if (take(&of[FEATURE], features, READ) && take(&of[WINDOW], window, WRITE) && take(&of[REST], rest, WRITE) &&
      (!detailed || take(&of[PARTS], of_parts, WRITE)) && take(&of[UNDEFINED_OF], undefined, WRITE) &&
      fits(&of[FEATURE], count * N * FEATURES * 4, "features") &&
      fits(&of[WINDOW], count * (KEPT + KINDS) * N * 4, "window") && fits(&of[REST], count * N * 4, "rest") &&
      fits(&of[UNDEFINED_OF], count * 8, "undefined") &&
      (!detailed || fits(&of[PARTS], count * (KINDS + documents) * N * 4, "parts"))) {
    const loose *feature = of[FEATURE].buf;
    for (int64_t r = 0; r < count; r++, feature += N * FEATURES) {
      place to = {.window = (float *)of[WINDOW].buf + r * (KEPT + KINDS) * N, .rest = (float *)of[REST].buf + r * N};
      for (int64_t i = 0; i < N; i++)
        for (int64_t f = 0; f < FEATURES; f++) to.window[f * N + i] = feature[i * FEATURES + f];
      for (int64_t i = 0; i < N; i++) {
        float sink = to.window[SINK * N + i];
        to.rest[i] = sink > SATURATED ? UNDEFINED : 1.0f - sink;
      }
      if (detailed) {
        array mass = {0}, plan = {0};
        row row = {.position = PyLong_AsLongLong(PyTuple_GetItem(positions, r))};
        to.kinds = (float *)of[PARTS].buf + r * (KINDS + documents) * N;
        to.shares = to.kinds + KINDS * N;
        int fine = !PyErr_Occurred() && take(&mass, PyTuple_GetItem(masses, r), READ) &&
                   take(&plan, PyTuple_GetItem(plans, r), READ) && understand(&row, &mass, &plan, N, documents);
        for (int64_t at = 0; fine && at < N; at += AT_ONCE)
          parts(&row, &to, N, documents, at, N - at < AT_ONCE ? N - at : AT_ONCE);
        give(&mass, 1), give(&plan, 1);
        if (!fine) break;
      } else {
        fill(to.window + DOCUMENT_MASS * N, (1 + KINDS) * N, UNDEFINED);
      }
      int64_t undefined = 0;
      for (int64_t i = 0; i < N; i++) undefined += to.window[LOOKBACK * N + i] != to.window[LOOKBACK * N + i];
      ((int64_t *)of[UNDEFINED_OF].buf)[r] = undefined;
    }
  }
  give(of, ALL);
}

/* window [KEPT + KINDS, N] of one row; sums [2, KEPT, N] of what a request keeps: values, and weights where there are any. */
void hw_add(object *sums, object *window, double weight) {
  array of[2] = {0};
  if (take(&of[0], sums, WRITE) && take(&of[1], window, READ) &&
      fits(&of[0], of[1].len / (KEPT + KINDS) * KEPT * 2 * 2, "sums")) {
    int64_t n = of[0].len / 16;
    double *restrict total = of[0].buf, *restrict weights = total + n;
    const float *restrict value = of[1].buf;
    float times = (float)weight;
    for (int64_t i = 0; i < n; i++) {
      float x = value[i];
      total[i] += x == x ? x * times : 0;
      weights[i] += x == x ? times : 0;
    }
  }
  give(of, 2);
}

/* ---- reading.GroupSums ---- */

/* values [lines, N], members [groups, N]: sums [lines, groups] of the values, and who of the groups defines them, likewise,
 * both with those of `quantities` lines side by side: [rows, 2, quantities, groups]. */
void hw_sums(object *values, object *members, int64_t quantities, int64_t N, object *sums) {
  enum { VALUES, MEMBERS, SUMS, ALL };
  array of[ALL] = {0};
  if (quantities <= 0 || N <= 0)
    fail("sums of nothing");
  else if (take(&of[VALUES], values, READ) && take(&of[MEMBERS], members, READ) && take(&of[SUMS], sums, WRITE)) {
    const float *value = of[VALUES].buf, *member_of = of[MEMBERS].buf;
    int64_t lines = of[VALUES].len / (4 * N), groups = of[MEMBERS].len / (4 * N), half = quantities * groups;
    if (fits(&of[SUMS], lines * groups * 8, "sums") && fits(&of[VALUES], lines / quantities * quantities * N * 4, "values") &&
        fits(&of[MEMBERS], groups * N * 4, "members"))
      for (int64_t line = 0; line < lines; line++, value += N)
        for (int64_t g = 0; g < groups; g++) {
          const float *member = member_of + g * N;
          floats some = {0}, other = {0}, defined = {0};
          float sum = 0, who = 0;
          int64_t i = 0;
          for (; i + 2 * FLOATS <= N; i += 2 * FLOATS) {
            floats x = *(const floats *)(value + i), y = *(const floats *)(value + i + FLOATS);
            floats m = *(const floats *)(member + i), n = *(const floats *)(member + i + FLOATS);
            some += (floats)((x == x) & (bits)(x * m));
            other += (floats)((y == y) & (bits)(y * n));
            defined += (floats)((x == x) & (bits)m) + (floats)((y == y) & (bits)n);
          }
          some += other;
          for (int j = 0; j < FLOATS; j++) sum += some[j], who += defined[j];
          for (; i < N; i++)
            if (value[i] == value[i]) sum += value[i] * member[i], who += member[i];
          float *to = (float *)of[SUMS].buf + line / quantities * 2 * half + line % quantities * groups + g;
          to[0] = sum;
          to[half] = who;
        }
  }
  give(of, ALL);
}

/* sums [rows, 2, quantities, groups] of hw_sums: add `row` of it times `weight` to total [2, some, groups], of the first
 * quantities. */
void hw_gather(object *total, object *sums, int64_t row, int64_t rows, int64_t some, int64_t groups, double weight) {
  array of[2] = {0};
  if (take(&of[0], total, WRITE) && take(&of[1], sums, READ) && fits(&of[0], 2 * some * groups * 8, "total")) {
    int64_t half = rows > 0 ? of[1].len / 4 / rows / 2 : 0;
    if (row < 0 || row >= rows || some < 0 || groups < 0 || some * groups > half)
      fail("sums that are not there");
    else
      for (int64_t h = 0; h < 2; h++)
        for (int64_t i = 0; i < some * groups; i++)
          ((double *)of[0].buf)[h * some * groups + i] += ((float *)of[1].buf)[(2 * row + h) * half + i] * weight;
  }
  give(of, 2);
}

/* ---- histogram.HistogramBlock ---- */

/* waiting [rows, ...]: let `row` of it be `values` [...]. */
void hw_keep(object *waiting, int64_t row, object *values) {
  array of[2] = {0};
  if (take(&of[0], waiting, WRITE) && take(&of[1], values, READ)) {
    int64_t size = of[1].len;
    if (row < 0 || size <= 0 || row >= of[0].len / size)
      fail("a row that is not there");
    else
      memcpy((char *)of[0].buf + row * size, of[1].buf, size);
  }
  give(of, 2);
}


/* Bucket of a float by its bits, -1 below the first: eight a power of two, `bounds` their lower ends within it. */
static inline int32_t bucket(int32_t bits, const int32_t *bounds) {
  int32_t mantissa = bits & 0x7fffff, passed = 0;
  for (int k = 0; k < 8; k++) passed += mantissa > bounds[k];
  int32_t index = ((bits >> 23) - 127) * 8 + BUCKETS + passed - 1;
  return index < 0 ? -1 : index >= BUCKETS ? BUCKETS - 1 : index;
}

/* What some cells have come to. */
typedef struct {
  int32_t seen[LANES];
  double weight[LANES], total[LANES]; /* weights are exact below 2^53 */
  float least[LANES], most[LANES];
} sums;

/* One row of LANES cells; `slots` are those of the first of them. */
static inline void observe(const float *restrict values, int32_t weight, const int32_t *restrict bounds, sums *restrict to,
                           uint32_t *restrict slots) {
  int32_t bits[LANES], slot[LANES], times[LANES];
  float defined[LANES];
  memcpy(bits, values, sizeof bits);
#pragma omp simd
  for (int j = 0; j < LANES; j++) slot[j] = j * (BUCKETS + 1) + 1 + bucket(bits[j], bounds);
#pragma omp simd
  for (int j = 0; j < LANES; j++) {
    float x = values[j];
    int there = x == x;
    to->seen[j] += there;
    times[j] = there ? weight : 0;
    defined[j] = there ? x : 0;
    to->least[j] = x < to->least[j] ? x : to->least[j];
    to->most[j] = x > to->most[j] ? x : to->most[j];
  }
#pragma omp simd
  for (int j = 0; j < LANES; j++) {
    double w = times[j];
    to->weight[j] += w;
    to->total[j] += w * defined[j];
  }
  for (int j = 0; j < LANES; j++) slots[slot[j]] += (uint32_t)times[j];
}

/* Whether one of values [rows, cells] is defined: spans of a kind that no prompt has cost little. */
static int any(const float *values, int64_t rows, int64_t cells, int64_t stride) {
  for (int64_t r = 0; r < rows; r++, values += stride)
    for (int64_t i = 0; i < cells; i++)
      if (values[i] == values[i]) return 1;
  return 0;
}

/* The arrays of a block of histograms, all cells. */
typedef struct {
  uint32_t *count;
  uint64_t *weight;
  double *total;
  float *minimum, *maximum;
  uint32_t *slots;
} block;

/* values [rows, cells], `stride` floats from row to row, of the cells of `to` from `first` on. */
static void count(const float *values, const int64_t *weights, int64_t rows, int64_t cells, int64_t stride,
                  const int32_t *bounds, const block *to, int64_t first) {
  const int64_t next = LANES * ABREAST * (BUCKETS + 1) * 4 / LINE; /* lines of slots that the cells after these have */
  uint32_t spare[LANES * (BUCKETS + 1)];                           /* for the lanes beyond the last cell */
  for (int64_t at = 0; at < cells; at += LANES * ABREAST) {
    int64_t here = cells - at < LANES * ABREAST ? cells - at : LANES * ABREAST;
    if (!any(values + at, rows, here, stride)) continue;
    int64_t whole = here / LANES, rest = here % LANES;
    uint32_t *some = to->slots + (first + at) * (BUCKETS + 1), *last = some + whole * LANES * (BUCKETS + 1);
    sums found[ABREAST + 1];
    for (int64_t b = 0; b <= whole; b++) {
      found[b] = (sums){0};
      for (int j = 0; j < LANES; j++) found[b].least[j] = INFINITY, found[b].most[j] = -INFINITY;
    }
    if (rest) memset(spare, 0, sizeof spare);
    for (int64_t r = 0; r < rows; r++) {
      const float *line = values + r * stride + at;
      for (int64_t k = next * r / rows; k < next * (r + 1) / rows; k++)
        __builtin_prefetch((const char *)some + (next + k) * LINE, 1);
      for (int64_t b = 0; b < whole; b++)
        observe(line + b * LANES, (int32_t)weights[r], bounds, &found[b], some + b * LANES * (BUCKETS + 1));
      if (rest) {
        float end[LANES];
        fill(end, LANES, UNDEFINED);
        memcpy(end, line + whole * LANES, rest * sizeof *end);
        observe(end, (int32_t)weights[r], bounds, &found[whole], spare);
      }
    }
    for (int64_t i = 0; i < rest * (BUCKETS + 1); i++) last[i] += spare[i];
    for (int64_t i = 0, cell = first + at; i < here; i++, cell++) {
      const sums *of = &found[i / LANES];
      int64_t j = i % LANES;
      if (!of->seen[j]) continue;
      to->count[cell] += (uint32_t)of->seen[j];
      to->weight[cell] += (uint64_t)of->weight[j];
      to->total[cell] += of->total[j];
      to->minimum[cell] = fminf(to->minimum[cell], of->least[j]);
      to->maximum[cell] = fmaxf(to->maximum[cell], of->most[j]);
    }
  }
}

/* values [rows, cells], weights [rows], bounds [8]; the rest [all cells], slots [all cells, BUCKETS + 1]; the cells of `values`
 * begin at `first`. */
void hw_observe(object *values, object *weights, object *bounds, int64_t cells, int64_t first, object *seen, object *weight,
                object *total, object *minimum, object *maximum, object *slots) {
  enum { VALUES, WEIGHTS, BOUNDS, SEEN, WEIGHT, TOTAL, MINIMUM, MAXIMUM, SLOTS, ALL };
  array of[ALL] = {0};
  if (take(&of[VALUES], values, READ) && take(&of[WEIGHTS], weights, READ) && take(&of[BOUNDS], bounds, READ) &&
      take(&of[SEEN], seen, WRITE) && take(&of[WEIGHT], weight, WRITE) && take(&of[TOTAL], total, WRITE) &&
      take(&of[MINIMUM], minimum, WRITE) && take(&of[MAXIMUM], maximum, WRITE) && take(&of[SLOTS], slots, WRITE)) {
    int64_t rows = of[WEIGHTS].len / 8, whole = of[SEEN].len / 4;
    if (cells < 0 || first < 0 || first > whole || cells > whole - first)
      fail("cells that are not there");
    else if (fits(&of[VALUES], rows * cells * 4, "values") && fits(&of[BOUNDS], 8 * 4, "bounds") &&
             fits(&of[WEIGHT], whole * 8, "weight") && fits(&of[TOTAL], whole * 8, "total") &&
             fits(&of[MINIMUM], whole * 4, "minimum") && fits(&of[MAXIMUM], whole * 4, "maximum") &&
             fits(&of[SLOTS], whole * (BUCKETS + 1) * 4, "slots")) {
      block to = {of[SEEN].buf, of[WEIGHT].buf, of[TOTAL].buf, of[MINIMUM].buf, of[MAXIMUM].buf, of[SLOTS].buf};
      count(of[VALUES].buf, of[WEIGHTS].buf, rows, cells, cells, of[BOUNDS].buf, &to, first);
    }
  }
  give(of, ALL);
}
