/* Binary attention with AVX-512F: 16 floats a vector. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define NAME(f) f##_avx512
#define TARGET __attribute__((target("avx512f")))
#define LANES 16
#define vec __m512
#define SOME(n) ((__mmask16)((1u << (n)) - 1))
#define ZERO() _mm512_setzero_ps()
#define SPLAT(x) _mm512_set1_ps(x)
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define LOAD_PART(p, n) _mm512_maskz_loadu_ps(SOME(n), p)
#define STORE_PART(p, v, n) _mm512_mask_storeu_ps(p, SOME(n), v)
#define ADD _mm512_add_ps
#define SUB _mm512_sub_ps
#define MUL _mm512_mul_ps
#define EQUAL(a, b) ((uint32_t)_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ))
#define GREATER(a, b) ((uint32_t)_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ))
#define tally __m512i
#define NOTHING() _mm512_setzero_si512()
#define COUNT_GREATER(t, a, b) _mm512_mask_add_epi32(t, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), t, _mm512_set1_epi32(1))
#define TOTAL(t) _mm512_reduce_add_epi32(t)
#define PACK(weight, place, v, first, bits) pack(weight, place, v, first, (__mmask16)(bits))

TARGET static inline void pack(float *weight, int32_t *place, __m512 v, int32_t first, __mmask16 bits) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  _mm512_storeu_ps(weight, _mm512_maskz_compress_ps(bits, v));
  _mm512_storeu_si512(place, _mm512_maskz_compress_epi32(bits, _mm512_add_epi32(lanes, _mm512_set1_epi32(first))));
}

#include "head_kernel.h"
#include "sparse_kernel.h"
#include "top_kernel.h"
#else
typedef int edgetk_no_avx512; /* C wants something in a file */
#endif
