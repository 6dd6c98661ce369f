/* Binary attention with NEON (AArch64): 4 floats a vector. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define NAME(f) f##_neon
#define TARGET
#define LANES 4
#define vec float32x4_t
#define ZERO() vdupq_n_f32(0.0f)
#define SPLAT(x) vdupq_n_f32(x)
#define LOAD(p) vld1q_f32(p)
#define STORE(p, v) vst1q_f32(p, v)
#define LOAD_PART(p, n) load_part(p, n)
#define STORE_PART(p, v, n) store_part(p, v, n)
#define ADD vaddq_f32
#define SUB vsubq_f32
#define MUL vmulq_f32
#define EQUAL(a, b) lanes_of(vceqq_f32(a, b))
#define GREATER(a, b) lanes_of(vcgtq_f32(a, b))
#define tally uint32x4_t
#define NOTHING() vdupq_n_u32(0)
#define COUNT_GREATER(t, a, b) vsubq_u32(t, vcgtq_f32(a, b))
#define TOTAL(t) vaddvq_u32(t)

static inline float32x4_t load_part(const float *p, int n) {
  float lanes[LANES] = {0};
  memcpy(lanes, p, (size_t)n * sizeof(float));
  return vld1q_f32(lanes);
}

static inline void store_part(float *p, float32x4_t v, int n) {
  float lanes[LANES];
  vst1q_f32(lanes, v);
  memcpy(p, lanes, (size_t)n * sizeof(float));
}

static inline uint32_t lanes_of(uint32x4_t yes) {
  static const uint32_t bits[LANES] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(yes, vld1q_u32(bits)));
}

#include "head_kernel.h"
#include "sparse_kernel.h"
#include "top_kernel.h"
#else
typedef int edgetk_no_neon; /* C wants something in a file */
#endif
