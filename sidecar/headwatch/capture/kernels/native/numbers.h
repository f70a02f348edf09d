/* Vectors and the numbers in a cache: what the compiler's own vector types need, for any CPU. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

typedef float vf __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES), aligned(2)));
typedef uint8_t vb __attribute__((vector_size(LANES), aligned(1)));

enum { F32, BF16, F16, E4M3, E5M2 };
static const int WIDTH[] = {4, 2, 2, 1, 1}; /* bytes of each */

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
