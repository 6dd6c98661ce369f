/* Integer products on processors with caches: weights packed once, four inputs of sixteen outputs beside each other, read
 * from beginning to end.
 *
 * Packed: tiles of up to EDGETK_TILE groups of sixteen outputs, in each of them [inputs / 4][groups][16 outputs][4 inputs].
 */
#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

/* groups of sixteen outputs whose sums stay in registers together */
#if defined(__AVX512VNNI__)
#define EDGETK_TILE 16
#elif defined(__aarch64__)
#define EDGETK_TILE 4
#else
#define EDGETK_TILE 2
#endif

#define EDGETK_PACKED_BYTES(stride, outputs) ((size_t)(stride) * (size_t)(((outputs) + 15) / 16 * 16))

/* Packed weights lie in one piece; where it is large and the system has large pages, on those. */
#define EDGETK_PAGE ((size_t)1 << 21)
#if defined(__linux__)
#include <sys/mman.h>
#endif
static inline int8_t *edgetk_room(int8_t *room, size_t bytes) {
  int8_t *start = room + (EDGETK_PAGE - (uintptr_t)room % EDGETK_PAGE) % EDGETK_PAGE;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= EDGETK_PAGE / 2) madvise(start, (bytes + EDGETK_PAGE - 1) / EDGETK_PAGE * EDGETK_PAGE, MADV_HUGEPAGE);
#endif
  return start;
}

/* Returns the end of what it wrote. */
static inline int8_t *edgetk_pack(const int8_t *rows, int32_t outputs, int32_t stride, int8_t *packed) {
  const int32_t groups = (outputs + 15) / 16;
  for (int32_t tile = 0; tile < groups; tile += EDGETK_TILE) {
    const int32_t wide = groups - tile < EDGETK_TILE ? groups - tile : EDGETK_TILE;
    for (int32_t j = 0; j < stride; j += 4)
      for (int32_t g = tile; g < tile + wide; g++)
        for (int32_t k = 0; k < 16; k++, packed += 4)
          if (16 * g + k < outputs)
            memcpy(packed, rows + (16 * g + k) * stride + j, 4);
          else
            memset(packed, 0, 4);
  }
  return packed;
}

static inline void edgetk_store(const edgetk_layer *layer, int32_t first, const int32_t *sums, float *out) {
  const int32_t count = layer->outputs - first < 16 ? layer->outputs - first : 16;
  for (int32_t k = 0; k < count; k++)
    out[first + k] = edgetk_finish(layer, first + k, sums[k] - layer->zero * layer->sums[first + k]);
}

#if defined(__AVX512VNNI__)
#define EDGETK_STEP(g) \
  if ((g) < wide) sum[g] = _mm512_dpbusd_epi32(sum[g], codes, _mm512_loadu_si512(w + 64 * (g)))
static inline __attribute__((always_inline)) const int8_t *edgetk_tile(
    const edgetk_layer *layer, const uint8_t *x, const int8_t *w, int32_t first, const int32_t wide, float *out) {
  __m512i sum[EDGETK_TILE];
  for (int32_t g = 0; g < wide; g++) sum[g] = _mm512_setzero_si512();
  for (int32_t j = 0; j < layer->stride; j += 4, w += 64 * wide) {
    int32_t four;
    memcpy(&four, x + j, 4);
    const __m512i codes = _mm512_set1_epi32(four);
    EDGETK_STEP(0); EDGETK_STEP(1); EDGETK_STEP(2); EDGETK_STEP(3);
    EDGETK_STEP(4); EDGETK_STEP(5); EDGETK_STEP(6); EDGETK_STEP(7);
    EDGETK_STEP(8); EDGETK_STEP(9); EDGETK_STEP(10); EDGETK_STEP(11);
    EDGETK_STEP(12); EDGETK_STEP(13); EDGETK_STEP(14); EDGETK_STEP(15);
  }
  const __m512i zero = _mm512_set1_epi32(layer->zero);
  for (int32_t g = 0; g < wide; g++) {
    const int32_t at = first + 16 * g;
    const __mmask16 some = layer->outputs - at < 16 ? (__mmask16)((1u << (layer->outputs - at)) - 1) : (__mmask16)0xffff;
    const __m512i off = _mm512_mullo_epi32(zero, _mm512_maskz_loadu_epi32(some, layer->sums + at));
    __m512 y = _mm512_mul_ps(
        _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[g], off)), _mm512_maskz_loadu_ps(some, layer->scale + at));
    if (layer->bias) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(some, layer->bias + at));
    _mm512_mask_storeu_ps(out + at, some, y);
  }
  return w;
}
#elif defined(__AVX2__)
static inline __attribute__((always_inline)) const int8_t *edgetk_tile(
    const edgetk_layer *layer, const uint8_t *x, const int8_t *w, int32_t first, const int32_t wide, float *out) {
  __m256i sum[8]; /* each holds two partial sums of four outputs */
  for (int32_t g = 0; g < 4 * wide; g++) sum[g] = _mm256_setzero_si256();
  for (int32_t j = 0; j < layer->stride; j += 4, w += 64 * wide) {
    int32_t four;
    memcpy(&four, x + j, 4);
    const __m256i codes = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
    for (int32_t g = 0; g < 4 * wide; g++) {
      const __m256i weights = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(w + 16 * g)));
      sum[g] = _mm256_add_epi32(sum[g], _mm256_madd_epi16(weights, codes));
    }
  }
  for (int32_t g = 0; g < wide; g++) {
    int32_t both[32], sums[16];
    for (int32_t k = 0; k < 4; k++) _mm256_storeu_si256((__m256i *)(void *)(both + 8 * k), sum[4 * g + k]);
    for (int32_t k = 0; k < 16; k++) sums[k] = both[2 * k] + both[2 * k + 1];
    edgetk_store(layer, first + 16 * g, sums, out);
  }
  return w;
}
#else
static inline __attribute__((always_inline)) const int8_t *edgetk_tile(
    const edgetk_layer *layer, const uint8_t *x, const int8_t *w, int32_t first, const int32_t wide, float *out) {
  int32x4_t sum[4 * EDGETK_TILE];
  for (int32_t g = 0; g < 4 * wide; g++) sum[g] = vdupq_n_s32(0);
  for (int32_t j = 0; j < layer->stride; j += 4, w += 64 * wide) {
    uint32_t four;
    memcpy(&four, x + j, 4);
    const int8x16_t codes = vreinterpretq_s8_u32(vdupq_n_u32(four ^ 0x80808080u)); /* less 128: dot products are signed */
    for (int32_t g = 0; g < 4 * wide; g++) sum[g] = vdotq_s32(sum[g], vld1q_s8(w + 16 * g), codes);
  }
  for (int32_t g = 0; g < wide; g++) {
    int32_t sums[16];
    for (int32_t k = 0; k < 4; k++) vst1q_s32(sums + 4 * k, sum[4 * g + k]);
    for (int32_t k = 0; k < 16 && first + 16 * g + k < layer->outputs; k++) sums[k] += 128 * layer->sums[first + 16 * g + k];
    edgetk_store(layer, first + 16 * g, sums, out);
  }
  return w;
}
#endif

/* `layer->weights` are packed. */
static inline void edgetk_dense(const edgetk_layer *layer, const uint8_t *x, int16_t *scratch, float *out) {
  const int32_t groups = (layer->outputs + 15) / 16;
  const int8_t *w = layer->weights;
  if (layer->inputs != layer->stride) { /* the last four codes end inside the buffer */
    uint8_t *whole = (uint8_t *)(void *)scratch;
    memcpy(whole, x, (size_t)layer->inputs);
    memset(whole + layer->inputs, 0, (size_t)(layer->stride - layer->inputs));
    x = whole;
  }
  int32_t g = 0;
  for (; g + EDGETK_TILE <= groups; g += EDGETK_TILE) w = edgetk_tile(layer, x, w, 16 * g, EDGETK_TILE, out);
  switch (groups - g) {
#define EDGETK_REST(n) \
  case n: edgetk_tile(layer, x, w, 16 * g, n, out); break;
    EDGETK_REST(1)
#if EDGETK_TILE > 2
    EDGETK_REST(2) EDGETK_REST(3)
#endif
#if EDGETK_TILE > 4
    EDGETK_REST(4) EDGETK_REST(5) EDGETK_REST(6) EDGETK_REST(7) EDGETK_REST(8) EDGETK_REST(9)
    EDGETK_REST(10) EDGETK_REST(11) EDGETK_REST(12) EDGETK_REST(13) EDGETK_REST(14) EDGETK_REST(15)
#endif
    default: break;
  }
}

#if defined(__AVX512F__)
#define EDGETK_HAS_WIDE 1
#define EDGETK_LANES 16
#define EDGETK_VEC __m512
#define EDGETK_V(f) _mm512_##f
#elif defined(__AVX2__)
#define EDGETK_HAS_WIDE 1
#define EDGETK_LANES 8
#define EDGETK_VEC __m256
#define EDGETK_V(f) _mm256_##f
#endif
#if defined(EDGETK_HAS_WIDE)
/* `count` vectors of columns from `first` on, their sums in registers. */
static inline __attribute__((always_inline)) int32_t edgetk_columns(
    const float *x, const float *weights, const float *bias, int32_t inputs, int32_t outputs, int32_t first,
    const int32_t count, float *out) {
  EDGETK_VEC sum[8];
  const float *w = weights + first;
  for (int32_t k = 0; k < count; k++) sum[k] = EDGETK_V(setzero_ps)();
  for (int32_t j = 0; j < inputs; j++, w += outputs) {
    const EDGETK_VEC value = EDGETK_V(set1_ps)(x[j]);
    for (int32_t k = 0; k < count; k++)
      sum[k] = EDGETK_V(add_ps)(sum[k], EDGETK_V(mul_ps)(value, EDGETK_V(loadu_ps)(w + EDGETK_LANES * k)));
  }
  for (int32_t k = 0; k < count; k++) {
    if (bias) sum[k] = EDGETK_V(add_ps)(sum[k], EDGETK_V(loadu_ps)(bias + first + EDGETK_LANES * k));
    EDGETK_V(storeu_ps)(out + first + EDGETK_LANES * k, sum[k]);
  }
  return first + count * EDGETK_LANES;
}

/* Eight vectors at a time where there are as many: enough sums at once that none waits for the one before. */
static inline int32_t edgetk_wide(
    const float *x, const float *weights, const float *bias, int32_t inputs, int32_t outputs, float *out) {
  int32_t first = 0;
  while (first + 8 * EDGETK_LANES <= outputs) first = edgetk_columns(x, weights, bias, inputs, outputs, first, 8, out);
  if (first + 4 * EDGETK_LANES <= outputs) first = edgetk_columns(x, weights, bias, inputs, outputs, first, 4, out);
  if (first + 2 * EDGETK_LANES <= outputs) first = edgetk_columns(x, weights, bias, inputs, outputs, first, 2, out);
  if (first + EDGETK_LANES <= outputs) first = edgetk_columns(x, weights, bias, inputs, outputs, first, 1, out);
  return first;
}
#endif
