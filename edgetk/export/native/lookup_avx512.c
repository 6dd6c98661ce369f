/* Look-up sums with AVX-512F and BW: 16 columns a vector. With EDGETK_VNNI also with VNNI. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#if defined(EDGETK_VNNI)
#define NAME(f) f##_vnni
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vnni")))
#else
#define NAME(f) f##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw")))
#endif
#define LANES 16
#define vec __m512i
#define ZERO() _mm512_setzero_si512()
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define ROW(p) _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p)))
/* Both are 16-bit numbers in the lower half of a lane; the upper half of a code is zero, whatever that of a row is. */
#define CODE(w) _mm512_set1_epi32(w)
#define MADD(sum, row, code) _mm512_add_epi32(sum, _mm512_madd_epi16(row, code))
#define SIGNS(p) ((uint32_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(p), _mm512_setzero_ps(), _CMP_GE_OQ))

#if defined(EDGETK_VNNI)
#define QUADS quads

/* 64 sums and four tables at once: their bytes beside each other, once by the upper bits of the codes and once by the lower 7. */
TARGET static inline int64_t quads(const int8_t *const *rows, const int32_t *codes, int64_t count, int64_t c, int32_t *sums) {
  __m512i high[4], low[4], t[4];
  for (int j = 0; j < 4; ++j) high[j] = low[j] = ZERO();
  int64_t k = 0;
  for (; k + 4 <= count; k += 4) {
    uint32_t upper = 0, lower = 0;
    for (int i = 0; i < 4; ++i) {
      upper |= (uint32_t)(codes[k + i] >> 7) << 8 * i;
      lower |= (uint32_t)(codes[k + i] & 127) << 8 * i;
    }
    const __m512i by_upper = _mm512_set1_epi32((int)upper), by_lower = _mm512_set1_epi32((int)lower);
    const __m512i a = LOAD(rows[k] + c), b = LOAD(rows[k + 1] + c), d = LOAD(rows[k + 2] + c), e = LOAD(rows[k + 3] + c);
    const __m512i ab = _mm512_unpacklo_epi8(a, b), de = _mm512_unpacklo_epi8(d, e);
    const __m512i ab_up = _mm512_unpackhi_epi8(a, b), de_up = _mm512_unpackhi_epi8(d, e);
    t[0] = _mm512_unpacklo_epi16(ab, de);
    t[1] = _mm512_unpackhi_epi16(ab, de);
    t[2] = _mm512_unpacklo_epi16(ab_up, de_up);
    t[3] = _mm512_unpackhi_epi16(ab_up, de_up);
    for (int j = 0; j < 4; ++j) {
      high[j] = _mm512_dpbusd_epi32(high[j], by_upper, t[j]);
      low[j] = _mm512_dpbusd_epi32(low[j], by_lower, t[j]);
    }
  }
  for (int j = 0; j < 4; ++j) t[j] = _mm512_add_epi32(_mm512_slli_epi32(high[j], 7), low[j]);
  /* lane l of t[j] holds the columns 16 l + 4 j and on: turn lanes and vectors */
  const __m512i p = _mm512_shuffle_i32x4(t[0], t[1], 0x44), q = _mm512_shuffle_i32x4(t[2], t[3], 0x44);
  const __m512i r = _mm512_shuffle_i32x4(t[0], t[1], 0xEE), s = _mm512_shuffle_i32x4(t[2], t[3], 0xEE);
  STORE(sums, _mm512_add_epi32(LOAD(sums), _mm512_shuffle_i32x4(p, q, 0x88)));
  STORE(sums + 16, _mm512_add_epi32(LOAD(sums + 16), _mm512_shuffle_i32x4(p, q, 0xDD)));
  STORE(sums + 32, _mm512_add_epi32(LOAD(sums + 32), _mm512_shuffle_i32x4(r, s, 0x88)));
  STORE(sums + 48, _mm512_add_epi32(LOAD(sums + 48), _mm512_shuffle_i32x4(r, s, 0xDD)));
  return k;
}
#endif

#include "lookup_kernel.h"
#else
typedef int edgetk_no_lookup_avx512; /* C wants something in a file */
#endif
