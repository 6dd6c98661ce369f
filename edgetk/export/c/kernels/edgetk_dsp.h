/* Integer products with the DSP extension (Cortex-M4, M7, M33): two 16-bit products an instruction.
 *
 * The codes become 16-bit numbers once, less their zero point, in the order in which SXTB16 unpacks four weights.
 */
#include <arm_acle.h>

typedef uint32_t __attribute__((may_alias)) edgetk_pair; /* the arena holds other types before and after */

static inline int32_t edgetk_smlad(uint32_t a, uint32_t b, int32_t sum) {
  return __smlad((int16x2_t)a, (int16x2_t)b, sum);
}

static inline uint32_t edgetk_even(uint32_t bytes) { return (uint32_t)__sxtb16((int8x4_t)bytes); }

static inline uint32_t edgetk_odd(uint32_t bytes) {
  uint32_t made;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(made) : "r"(bytes));
  return made;
}

/* The lower halves of two words as one, and the upper ones. */
static inline uint32_t edgetk_low(uint32_t a, uint32_t b) {
  uint32_t made;
  __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(made) : "r"(a), "r"(b));
  return made;
}

static inline uint32_t edgetk_high(uint32_t a, uint32_t b) {
  uint32_t made;
  __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(made) : "r"(b), "r"(a));
  return made;
}

static inline uint32_t edgetk_word(const void *at) {
  uint32_t made;
  memcpy(&made, __builtin_assume_aligned(at, 4), sizeof made);
  return made;
}

static inline void edgetk_unpack(const edgetk_layer *layer, const uint8_t *x, edgetk_pair *pairs) {
  const uint32_t zero = (uint32_t)layer->zero | (uint32_t)layer->zero << 16;
  const int32_t whole = layer->inputs / 4;
  for (int32_t j = 0; j < whole; j++) {
    uint32_t bytes;
    memcpy(&bytes, x + 4 * j, sizeof bytes);
    pairs[2 * j] = (uint32_t)__ssub16((int16x2_t)(bytes & 0x00ff00ffu), (int16x2_t)zero);
    pairs[2 * j + 1] = (uint32_t)__ssub16((int16x2_t)(bytes >> 8 & 0x00ff00ffu), (int16x2_t)zero);
  }
  if (layer->inputs % 4) {
    uint8_t last[4] = {0, 0, 0, 0};
    uint32_t bytes;
    for (int32_t k = 0; k < layer->inputs % 4; k++) last[k] = x[4 * whole + k];
    memcpy(&bytes, last, sizeof bytes); /* what stands behind the end meets weights that are zero */
    pairs[2 * whole] = (uint32_t)__ssub16((int16x2_t)(bytes & 0x00ff00ffu), (int16x2_t)zero);
    pairs[2 * whole + 1] = (uint32_t)__ssub16((int16x2_t)(bytes >> 8 & 0x00ff00ffu), (int16x2_t)zero);
  }
}

static inline void edgetk_dense(const edgetk_layer *layer, const uint8_t *x, int16_t *scratch, float *out) {
  edgetk_pair *pairs = (edgetk_pair *)(void *)scratch;
  const int32_t stride = layer->stride, outputs = layer->outputs;
  edgetk_unpack(layer, x, pairs);
  int32_t i = 0;
  for (; i + 4 <= outputs; i += 4) { /* four rows share the loads of the codes */
    const int8_t *a = layer->weights + i * stride, *b = a + stride, *c = b + stride, *d = c + stride;
    const edgetk_pair *p = pairs, *end = pairs + stride / 2;
    int32_t s = 0, t = 0, u = 0, v = 0;
    while (p != end) {
      const uint32_t even = p[0], odd = p[1];
      p += 2;
      uint32_t w = edgetk_word(a);
      a += 4;
      s = edgetk_smlad(edgetk_even(w), even, s);
      s = edgetk_smlad(edgetk_odd(w), odd, s);
      w = edgetk_word(b);
      b += 4;
      t = edgetk_smlad(edgetk_even(w), even, t);
      t = edgetk_smlad(edgetk_odd(w), odd, t);
      w = edgetk_word(c);
      c += 4;
      u = edgetk_smlad(edgetk_even(w), even, u);
      u = edgetk_smlad(edgetk_odd(w), odd, u);
      w = edgetk_word(d);
      d += 4;
      v = edgetk_smlad(edgetk_even(w), even, v);
      v = edgetk_smlad(edgetk_odd(w), odd, v);
    }
    out[i] = edgetk_finish(layer, i, s);
    out[i + 1] = edgetk_finish(layer, i + 1, t);
    out[i + 2] = edgetk_finish(layer, i + 2, u);
    out[i + 3] = edgetk_finish(layer, i + 3, v);
  }
  for (; i < outputs; i++) {
    const int8_t *w = layer->weights + i * stride;
    int32_t s = 0;
    for (int32_t j = 0; j < stride / 2; j += 2, w += 4) {
      const uint32_t bytes = edgetk_word(w);
      s = edgetk_smlad(edgetk_even(bytes), pairs[j], s);
      s = edgetk_smlad(edgetk_odd(bytes), pairs[j + 1], s);
    }
    out[i] = edgetk_finish(layer, i, s);
  }
}

/* sum += a * b, the product rounded before the sum: VMLA does that, but compilers only use it where they may fuse the two. */
static inline float edgetk_mla(float sum, float a, float b) {
#if defined(__ARM_FP)
  __asm__("vmla.f32 %0, %1, %2" : "+t"(sum) : "t"(a), "t"(b));
  return sum;
#else
  return sum + a * b;
#endif
}

/* Eight columns of a float32 product at a time, their sums in registers. */
#define EDGETK_HAS_WIDE 1
static inline int32_t edgetk_wide(
    const float *x, const float *weights, const float *bias, int32_t inputs, int32_t outputs, float *out) {
  int32_t first = 0;
  for (; first + 8 <= outputs; first += 8) {
    float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f, e = 0.0f, f = 0.0f, g = 0.0f, h = 0.0f;
    const float *w = weights + first;
    for (const float *value = x, *end = x + inputs; value != end; value++, w += outputs) {
      const float v = *value;
      a = edgetk_mla(a, v, w[0]);
      b = edgetk_mla(b, v, w[1]);
      c = edgetk_mla(c, v, w[2]);
      d = edgetk_mla(d, v, w[3]);
      e = edgetk_mla(e, v, w[4]);
      f = edgetk_mla(f, v, w[5]);
      g = edgetk_mla(g, v, w[6]);
      h = edgetk_mla(h, v, w[7]);
    }
    const float sum[8] = {a, b, c, d, e, f, g, h};
    for (int32_t k = 0; k < 8; k++) out[first + k] = bias ? sum[k] + bias[first + k] : sum[k];
  }
  return first;
}
