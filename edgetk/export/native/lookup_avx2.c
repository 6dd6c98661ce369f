/* Look-up sums with AVX2: 8 columns a vector. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define NAME(f) f##_avx2
#define TARGET __attribute__((target("avx2")))
#define LANES 8
#define vec __m256i
#define ZERO() _mm256_setzero_si256()
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define ROW(p) _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p)))
/* Both are 16-bit numbers in the lower half of a lane; the upper half of a code is zero, whatever that of a row is. */
#define CODE(w) _mm256_set1_epi32(w)
#define MADD(sum, row, code) _mm256_add_epi32(sum, _mm256_madd_epi16(row, code))
#define SIGNS(p) ((uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(p), _mm256_setzero_ps(), _CMP_GE_OQ)))

#include "lookup_kernel.h"
#else
typedef int edgetk_no_lookup_avx2; /* C wants something in a file */
#endif
