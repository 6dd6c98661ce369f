/* Look-up sums with AVX-512F and BW: 16 columns a vector. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define NAME(f) f##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw")))
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

#include "lookup_kernel.h"
#else
typedef int edgetk_no_lookup_avx512; /* C wants something in a file */
#endif
