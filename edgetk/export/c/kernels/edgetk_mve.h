/* Integer products with MVE (Helium, Cortex-M55): sixteen 8-bit products an instruction. */
#include <arm_mve.h>

/* x / scale without a division: one step from x * (1 / scale), which is the correctly rounded quotient (Markstein 1990). */
#define EDGETK_HAS_QUANTIZE 1
static inline void edgetk_quantize(const float *x, int32_t n, float scale, int32_t zero, uint8_t *codes) {
  const float inverse = 1.0f / scale;
  const float32x4_t low = vdupq_n_f32((float)-zero), high = vdupq_n_f32((float)(255 - zero));
  for (int32_t i = 0; i < n; i += 4) {
    const mve_pred16_t p = vctp32q((uint32_t)(n - i));
    const float32x4_t value = vldrwq_z_f32(x + i, p);
    float32x4_t q = vmulq_n_f32(value, inverse);
    q = vfmaq_n_f32(q, vfmaq_n_f32(value, q, -scale), inverse);
    q = vminnmq_f32(vmaxnmq_f32(q, low), high);
    vstrbq_p_u32(codes + i, vreinterpretq_u32_s32(vaddq_n_s32(vcvtnq_s32_f32(q), zero)), p);
  }
}

static inline void edgetk_dense(const edgetk_layer *layer, const uint8_t *x, int16_t *scratch, float *out) {
  int8_t *codes = (int8_t *)(void *)scratch;
  const int32_t inputs = layer->inputs, stride = layer->stride, outputs = layer->outputs;
  const int32_t offset = 128 - layer->zero; /* codes become signed by taking 128 away */
  for (int32_t j = 0; j < inputs; j += 16) {
    const mve_pred16_t p = vctp8q((uint32_t)(inputs - j));
    vstrbq_p_s8(codes + j, vreinterpretq_s8_u8(veorq_u8(vldrbq_z_u8(x + j, p), vdupq_n_u8(0x80))), p);
  }
  int32_t i = 0;
  for (; i + 4 <= outputs; i += 4) { /* four rows share the loads of the codes */
    const int8_t *a = layer->weights + i * stride, *b = a + stride, *c = b + stride, *d = c + stride;
    int32_t s = 0, t = 0, u = 0, v = 0, j = 0;
    for (; j + 16 <= inputs; j += 16) {
      const int8x16_t q = vldrbq_s8(codes + j);
      s = vmladavaq_s8(s, vldrbq_s8(a + j), q);
      t = vmladavaq_s8(t, vldrbq_s8(b + j), q);
      u = vmladavaq_s8(u, vldrbq_s8(c + j), q);
      v = vmladavaq_s8(v, vldrbq_s8(d + j), q);
    }
    if (j < inputs) {
      const mve_pred16_t p = vctp8q((uint32_t)(inputs - j));
      const int8x16_t q = vldrbq_z_s8(codes + j, p);
      s = vmladavaq_s8(s, vldrbq_z_s8(a + j, p), q);
      t = vmladavaq_s8(t, vldrbq_z_s8(b + j, p), q);
      u = vmladavaq_s8(u, vldrbq_z_s8(c + j, p), q);
      v = vmladavaq_s8(v, vldrbq_z_s8(d + j, p), q);
    }
    out[i] = edgetk_finish(layer, i, s + offset * layer->sums[i]);
    out[i + 1] = edgetk_finish(layer, i + 1, t + offset * layer->sums[i + 1]);
    out[i + 2] = edgetk_finish(layer, i + 2, u + offset * layer->sums[i + 2]);
    out[i + 3] = edgetk_finish(layer, i + 3, v + offset * layer->sums[i + 3]);
  }
  for (; i < outputs; i++) {
    const int8_t *w = layer->weights + i * stride;
    int32_t s = 0;
    for (int32_t j = 0; j < inputs; j += 16) {
      const mve_pred16_t p = vctp8q((uint32_t)(inputs - j));
      s = vmladavaq_s8(s, vldrbq_z_s8(w + j, p), vldrbq_z_s8(codes + j, p));
    }
    out[i] = edgetk_finish(layer, i, s + offset * layer->sums[i]);
  }
}

/* Sixteen columns of a float32 product at a time. */
#define EDGETK_HAS_WIDE 1
static inline int32_t edgetk_wide(
    const float *x, const float *weights, const float *bias, int32_t inputs, int32_t outputs, float *out) {
  int32_t first = 0;
  for (; first + 16 <= outputs; first += 16) {
    float32x4_t a = vdupq_n_f32(0.0f), b = a, c = a, d = a;
    const float *w = weights + first;
    for (int32_t j = 0; j < inputs; j++, w += outputs) {
      const float value = x[j];
      a = vaddq_f32(a, vmulq_n_f32(vldrwq_f32(w), value));
      b = vaddq_f32(b, vmulq_n_f32(vldrwq_f32(w + 4), value));
      c = vaddq_f32(c, vmulq_n_f32(vldrwq_f32(w + 8), value));
      d = vaddq_f32(d, vmulq_n_f32(vldrwq_f32(w + 12), value));
    }
    if (bias) {
      a = vaddq_f32(a, vldrwq_f32(bias + first));
      b = vaddq_f32(b, vldrwq_f32(bias + first + 4));
      c = vaddq_f32(c, vldrwq_f32(bias + first + 8));
      d = vaddq_f32(d, vldrwq_f32(bias + first + 12));
    }
    vstrwq_f32(out + first, a);
    vstrwq_f32(out + first + 4, b);
    vstrwq_f32(out + first + 8, c);
    vstrwq_f32(out + first + 12, d);
  }
  return first;
}
