/* Look-up sums with NEON (AArch64): 8 columns at once, in two vectors. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <stdint.h>

typedef struct {
  int32x4_t low, high;
} eight;

#define NAME(f) f##_neon
#define TARGET
#define LANES 8
#define vec eight
#define ZERO() splat(0)
#define LOAD(p) load(p)
#define STORE(p, v) (vst1q_s32(p, (v).low), vst1q_s32((p) + 4, (v).high))
#define ROW(p) vmovl_s8(vld1_s8(p))
#define CODE(w) splat(w)
#define MADD(sum, row, code) madd(sum, row, code)
#define SIGNS(p) signs_of(p)

static inline eight splat(int32_t x) {
  const eight v = {vdupq_n_s32(x), vdupq_n_s32(x)};
  return v;
}

static inline eight load(const int32_t *p) {
  const eight v = {vld1q_s32(p), vld1q_s32(p + 4)};
  return v;
}

static inline eight madd(eight sum, int16x8_t row, eight code) {
  const int16x4_t w = vmovn_s32(code.low);
  const eight v = {vmlal_s16(sum.low, vget_low_s16(row), w), vmlal_s16(sum.high, vget_high_s16(row), w)};
  return v;
}

static inline uint32_t signs_of(const float *p) {
  static const uint32_t low[4] = {1, 2, 4, 8}, high[4] = {16, 32, 64, 128};
  const float32x4_t zero = vdupq_n_f32(0.0f);
  const uint32x4_t a = vandq_u32(vcgeq_f32(vld1q_f32(p), zero), vld1q_u32(low));
  const uint32x4_t b = vandq_u32(vcgeq_f32(vld1q_f32(p + 4), zero), vld1q_u32(high));
  return vaddvq_u32(vorrq_u32(a, b));
}

#include "lookup_kernel.h"
#else
typedef int edgetk_no_lookup_neon; /* C wants something in a file */
#endif
