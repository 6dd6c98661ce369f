/* Weighted sums over the largest weights of each query, for one processor core: the public C interface.
 *
 *   out[n] = sum over j in T(n) of weights[n][j] * values[j],   T(n): the `keep` largest weights of row n, of equals the first
 *
 * Nagarajan et al. 2020 (AxFormer), arXiv:2010.03688: the product of selective hard attention, whose weights come from a softmax.
 */
#ifndef EDGETK_HARD_ATTENTION_H
#define EDGETK_HARD_ATTENTION_H

#include <stdint.h>

#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows are contiguous: weights (heads, queries, tokens), values (heads, tokens, width), out (heads, queries, width). Any
 * numbers may be weights; a row with a NaN gives NaN. `keep` is at least 1; from `tokens` on all weights count. */
typedef struct {
  const float *weights;
  const float *values;
  float *out;
  int64_t heads;
  int64_t queries;
  int64_t tokens;
  int64_t width;
  int64_t keep;
} edgetk_hard_problem;

/* `isa` as in edgetk_binary_attention. All of them keep the same weights, and add in the order of the tokens: their results are
 * equal to the last bit. */
EDGETK_PUBLIC int edgetk_hard_attention(const edgetk_hard_problem *problem, const char *isa);

#ifdef __cplusplus
}
#endif
#endif
