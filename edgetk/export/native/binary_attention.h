/* Linear attention on binary codes, for one processor core: the public C interface.
 *
 *   out_n = (sum_j (q_n . k_j) v_j + beta * own_n) / (q_n . sum_j k_j + N * beta),   beta = b + 1
 *
 * with own_n = v_n ("own_token") or sum_j v_j ("sum"). Liu et al. 2022 (EcoFormer), arXiv:2209.09004. Queries and keys hold
 * -1, 0 and +1; other numbers are computed too, without the kernels.
 */
#ifndef EDGETK_BINARY_ATTENTION_H
#define EDGETK_BINARY_ATTENTION_H

#include <stdint.h>

#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EDGETK_OWN_TOKEN = 0, EDGETK_SUM = 1 };

/* Rows are contiguous: queries and keys (heads, tokens, bits), values (heads, tokens, width). The two may be one array. */
typedef struct {
  const float *queries;
  const float *keys;
  const float *values;
  int64_t heads;
  int64_t tokens;
  int64_t bits;
  int64_t width;
  int32_t numerator;
} edgetk_attention;

/* out (heads, tokens, width). Where `denominators` (heads, tokens) is given, it gets the integers below the fraction, and out
 * the undivided numerators. `isa`: "avx512", "avx2", "neon", "portable"; NULL is the best this processor has.
 * All of them add in the same order, so that their results are equal to the last bit. */
EDGETK_PUBLIC int edgetk_binary_attention(const edgetk_attention *problem, float *out, float *denominators, const char *isa);

#ifdef __cplusplus
}
#endif
#endif
