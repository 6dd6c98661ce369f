/* Kernels of generated step functions: which instruction set is used follows from what the compiler is told to build for.
 *
 * All of them compute the same numbers to the last bit: integer sums are exact, and float32 sums are added in one stated
 * order, each product rounded before it is added (compile with -ffp-contract=off).
 *
 *   AVX-512 VNNI, AVX2, NEON with dot product, MVE (Helium), the DSP extension of Armv7E-M, portable C99
 */
#ifndef EDGETK_KERNELS_H
#define EDGETK_KERNELS_H

#include <stdint.h>
#include <string.h>

/* A loop over what is left behind whole blocks, which never runs where nothing is left, alarms gcc 12 for sizes it knows. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Waggressive-loop-optimizations"
#endif

#if defined(EDGETK_PORTABLE)
#define EDGETK_ISA "portable"
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define EDGETK_ISA "avx512vnni"
#define EDGETK_PACKED 1
#elif defined(__AVX2__)
#define EDGETK_ISA "avx2"
#define EDGETK_PACKED 1
#elif defined(__ARM_FEATURE_DOTPROD) && defined(__aarch64__)
#define EDGETK_ISA "neon-dotprod"
#define EDGETK_PACKED 1
#elif defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#define EDGETK_ISA "mve"
#define EDGETK_MVE 1
#elif defined(__ARM_FEATURE_DSP) && !defined(__aarch64__)
#define EDGETK_ISA "dsp"
#define EDGETK_DSP 1
#else
#define EDGETK_PORTABLE 1
#define EDGETK_ISA "portable"
#endif

/* Constant data in whole words and not aligned to more, so that nothing lies between arrays. */
#if defined(__GNUC__)
#define EDGETK_WORDS __attribute__((aligned(sizeof(void *))))
#else
#define EDGETK_WORDS
#endif

static inline float edgetk_max(float a, float b) { return a > b ? a : b; }
static inline float edgetk_min(float a, float b) { return a < b ? a : b; }

/* To the nearest integer, halves to the even one. Adding and taking away 1.5 * 2^23 makes the addition do the rounding. */
static inline float edgetk_round(float x) {
  const float magic = 12582912.0f;
  const float size = x < 0.0f ? -x : x;
  const float rounded = (x + magic) - magic;
  return size < 4194304.0f ? rounded : x;
}

static inline float edgetk_sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f; }

/* The root of x to 1e-7 of its size, 0 where x is not above 0: half the exponent, then Newton's steps. */
static inline float edgetk_sqrt(float x) {
  int32_t bits;
  float y;
  memcpy(&bits, &x, sizeof bits);
  bits = 0x1fbd1df5 + (bits >> 1);
  memcpy(&y, &bits, sizeof y);
  for (int32_t k = 0; k < 3; k++) y = 0.5f * (y + x / y);
  return x > 0.0f ? y : 0.0f;
}

/* e^x to 2e-7 of its size: 2^k by the exponent's bits, e^r by its series, |r| <= ln 2 / 2. */
static inline float edgetk_exp(float x) {
  const float bounded = edgetk_min(edgetk_max(x, -87.0f), 88.0f);
  const float k = edgetk_round(bounded * 1.44269504f);
  const float r = (bounded - k * 0.693359375f) + k * 2.12194440e-4f;
  const float series = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f + r * (8.33333333e-3f + r * 1.38888889e-3f)))));
  const int32_t bits = ((int32_t)k + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return series * power;
}

static inline float edgetk_tanh(float x) { return 1.0f - 2.0f / (edgetk_exp(2.0f * x) + 1.0f); }
static inline float edgetk_sigmoid(float x) { return 1.0f / (1.0f + edgetk_exp(-x)); }

/* erf(x) to 3e-7. Source: Abramowitz and Stegun 1964, 7.1.26. */
static inline float edgetk_erf(float x) {
  const float size = edgetk_max(x, -x);
  const float t = 1.0f / (1.0f + 0.3275911f * size);
  const float poly = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const float y = 1.0f - poly * edgetk_exp(-size * size);
  return x < 0.0f ? -y : y;
}

/* ONNX QuantizeLinear: round(x / scale) + zero as an unsigned byte, low = -zero and high = 255 - zero. */
static inline uint8_t edgetk_code(float x, float scale, float low, float high, int32_t zero) {
  const float t = edgetk_min(edgetk_max(x / scale, low), high) + 12582912.0f;
  int32_t bits;
  memcpy(&bits, &t, sizeof bits);
  return (uint8_t)(bits + zero); /* the low bits of the sum are the rounded integer */
}

static inline void edgetk_quantize(const float *x, int32_t n, float scale, int32_t zero, uint8_t *codes);

/* codes[cell + (x >= edges[cell])]: an activation function and the rounding of its result. */
static inline void edgetk_lookup(
    const float *x, int32_t n, float low, float per_unit, int32_t cells, const float *edges, const uint8_t *codes,
    uint8_t *out) {
  const float top = (float)(cells - 1);
  for (int32_t i = 0; i < n; i++) {
    const float at = edgetk_min(edgetk_max((x[i] - low) * per_unit, 0.0f), top);
    const int32_t cell = (int32_t)at;
    out[i] = codes[cell + (x[i] >= edges[cell])];
  }
}

/* Integer sums and their scale: one layer's rows, as the generator stores them. */
typedef struct {
  const int8_t *weights; /* (outputs, stride), zeros behind `inputs` */
  const int32_t *sums;   /* of each row */
  const float *scale;
  const float *bias; /* or NULL */
  int32_t inputs, outputs, stride, zero;
} edgetk_layer;

static inline float edgetk_finish(const edgetk_layer *layer, int32_t row, int32_t sum) {
  const float y = (float)sum * layer->scale[row];
  return layer->bias ? y + layer->bias[row] : y;
}

#if defined(EDGETK_PACKED)
#include "edgetk_host.h"
#elif defined(EDGETK_MVE)
#include "edgetk_mve.h"
#elif defined(EDGETK_DSP)
#include "edgetk_dsp.h"
#else
#include "edgetk_plain.h"
#endif

#if !defined(EDGETK_HAS_QUANTIZE)
static inline void edgetk_quantize(const float *x, int32_t n, float scale, int32_t zero, uint8_t *codes) {
  const float low = (float)-zero, high = (float)(255 - zero);
  for (int32_t i = 0; i < n; i++) codes[i] = edgetk_code(x[i], scale, low, high, zero);
}
#endif

/* Columns from `first` on, up to 16: their sums stay in registers. */
#define EDGETK_COLUMNS(width)                                                         \
  {                                                                                   \
    float sum[width];                                                                 \
    for (int32_t k = 0; k < (width); k++) sum[k] = 0.0f;                              \
    const float *w = weights + first;                                                 \
    for (int32_t j = 0; j < inputs; j++, w += outputs) {                              \
      const float value = x[j];                                                       \
      for (int32_t k = 0; k < (width); k++) sum[k] += value * w[k];                   \
    }                                                                                 \
    for (int32_t k = 0; k < (width); k++) out[first + k] = bias ? sum[k] + bias[first + k] : sum[k]; \
  }

/* out = x W + bias, W (inputs, outputs). Each output adds its products in the order of the inputs; fewer than four outputs
 * add them in eight lanes instead (input j in lane j % 8), then ((0+4)+(2+6)) + ((1+5)+(3+7)). */
static inline void edgetk_dense_float(
    const float *x, const float *weights, const float *bias, int32_t inputs, int32_t outputs, float *out) {
  if (outputs < 4) {
    for (int32_t i = 0; i < outputs; i++) {
      float lane[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
      int32_t j = 0;
      for (; j + 8 <= inputs; j += 8)
        for (int32_t k = 0; k < 8; k++) lane[k] += x[j + k] * weights[(j + k) * outputs + i];
      for (int32_t k = 0; j + k < inputs; k++) lane[k] += x[j + k] * weights[(j + k) * outputs + i];
      const float sum = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
      out[i] = bias ? sum + bias[i] : sum;
    }
    return;
  }
  int32_t first = 0;
#if defined(EDGETK_HAS_WIDE)
  first = edgetk_wide(x, weights, bias, inputs, outputs, out);
#endif
  for (; first + 16 <= outputs; first += 16) EDGETK_COLUMNS(16)
  for (; first + 4 <= outputs; first += 4) EDGETK_COLUMNS(4)
  for (; first < outputs; first++) EDGETK_COLUMNS(1)
}

/* Where a convolution goes: for each of its outputs, `product` is added to `sum` for each `weight` and input `value` that
 * meet, and `finish` is the output, without its bias. Where `depthwise`, output channel o reads input channel o only. */
#define EDGETK_CONVOLVE(number, input, product, finish)                                               \
  const int32_t depth = depthwise ? 1 : in_size[0], height = in_size[1], width = in_size[2];           \
  for (int32_t o = 0; o < out_size[0]; o++)                                                            \
    for (int32_t r = 0; r < out_size[1]; r++)                                                          \
      for (int32_t q = 0; q < out_size[2]; q++) {                                                      \
        number sum = 0;                                                                                \
        for (int32_t c = 0; c < depth; c++) {                                                          \
          const input *plane = x + (depthwise ? o : c) * height * width;                               \
          for (int32_t a = 0; a < kernel[0]; a++) {                                                    \
            const int32_t row = r * stride[0] - pad[0] + a;                                            \
            if (row < 0 || row >= height) continue;                                                    \
            for (int32_t b = 0; b < kernel[1]; b++) {                                                  \
              const int32_t column = q * stride[1] - pad[1] + b;                                       \
              if (column < 0 || column >= width) continue;                                             \
              const number value = plane[row * width + column];                                        \
              const number weight = weights[((o * depth + c) * kernel[0] + a) * kernel[1] + b];        \
              sum += product;                                                                          \
            }                                                                                          \
          }                                                                                            \
        }                                                                                              \
        const float y = finish;                                                                        \
        *out++ = bias ? y + bias[o] : y;                                                               \
      }

/* A convolution of codes (channels, height, width). */
static inline void edgetk_convolve(
    const uint8_t *x, const int8_t *weights, const float *scale, const float *bias, int32_t zero, const int32_t *in_size,
    const int32_t *out_size, const int32_t *kernel, const int32_t *stride, const int32_t *pad, int32_t depthwise, float *out) {
  EDGETK_CONVOLVE(int32_t, uint8_t, (value - zero) * weight, (float)sum * scale[o])
}

/* The same in float32. */
static inline void edgetk_convolve_float(
    const float *x, const float *weights, const float *bias, const int32_t *in_size, const int32_t *out_size,
    const int32_t *kernel, const int32_t *stride, const int32_t *pad, int32_t depthwise, float *out) {
  EDGETK_CONVOLVE(float, float, value * weight, sum)
}

#include "edgetk_rows.h"

#endif
