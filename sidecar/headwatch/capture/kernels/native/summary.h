/* Second pass: one head's logits to its summary, span by span, all sums in one go. */
#pragma once
#include "layer.h"
#include "numbers.h"

#define FLUSH 1024

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

/* Of row `number` of the step; `norm`: of the values, NULL where value masses are not wanted. */
static void summarise(const hw_layer *layer, const hw_step *step, int64_t index, int64_t number, int head, float *logit,
                      const float *norm) {
  const hw_row *row = step->rows + number;
  const hw_task *task = step->tasks + row->task;
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
  int64_t first_mass = row->first_span * step->mass_span_stride + index * step->mass_layer_stride + head;
  float *mass = step->span_mass + first_mass, *carried = norm ? step->value_mass + first_mass : 0;
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
    mass[span * step->mass_span_stride] = (float)span_total[0]; /* divided below */
    if (carried) carried[span * step->mass_span_stride] = (float)span_total[1];
  }

  double z = total + learned;
  int64_t visible = position + 1 - first;
  for (int64_t span = 0; span <= task->spans; span++) {
    mass[span * step->mass_span_stride] = (float)(mass[span * step->mass_span_stride] / z);
    if (carried) carried[span * step->mass_span_stride] = (float)(carried[span * step->mass_span_stride] / z);
  }
  float *feature = step->features + number * step->feature_row_stride + index * step->feature_layer_stride + (int64_t)head * 6;
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
}

