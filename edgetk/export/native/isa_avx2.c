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

#include "head_kernel.h"
#include "sparse_kernel.h"
#include "top_kernel.h"
#else
typedef int edgetk_no_avx2; /* C wants something in a file */
#endif
