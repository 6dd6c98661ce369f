/* Binary attention with AVX2: 8 floats a vector. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define NAME(f) f##_avx2
#define TARGET __attribute__((target("avx2")))
#define LANES 8
#define vec __m256
#define SOME(n) _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define ZERO() _mm256_setzero_ps()
#define SPLAT(x) _mm256_set1_ps(x)
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define LOAD_PART(p, n) _mm256_maskload_ps(p, SOME(n))
#define STORE_PART(p, v, n) _mm256_maskstore_ps(p, SOME(n), v)
#define ADD _mm256_add_ps
#define SUB _mm256_sub_ps
#define MUL _mm256_mul_ps
#define EQUAL(a, b) ((uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)))
#define GREATER(a, b) ((uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)))
#define tally __m256i
#define NOTHING() _mm256_setzero_si256()
#define COUNT_GREATER(t, a, b) _mm256_sub_epi32(t, _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)))
#define TOTAL(t) total(t)

TARGET static inline int32_t total(__m256i t) {
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

#include "head_kernel.h"
#include "sparse_kernel.h"
#include "top_kernel.h"
#else
typedef int edgetk_no_avx2; /* C wants something in a file */
#endif
