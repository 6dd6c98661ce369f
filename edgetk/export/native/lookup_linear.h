/* Weighted sums of int8 table rows that sub-vectors choose by their signs, for one processor core: the public C interface.
 *
 *   y = scale * 2^-f * sum_k code_k * T_k[h(z_k)] + bias,    h(z) = sum_i [z_i >= 0] 2^i,   code = round(weight(z) * 2^f)
 *
 * Ding et al. 2024 (MemoryFormer), arXiv:2411.12992, eq. 4 to 8. A token x is K sub-vectors z_k of `bits` coordinates. Sums are
 * integers of 32 bits, so that neither the order of tables and tokens nor the number of threads changes a bit of the result.
 */
#ifndef EDGETK_LOOKUP_LINEAR_H
#define EDGETK_LOOKUP_LINEAR_H

#include <stdint.h>

#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

/* weight: p = prod_i sigmoid(2 |z_i| / t), |z|_1 p, |z|_1, or 1. f is 14 for the first and the last, 11 for the others. */
enum { EDGETK_P = 0, EDGETK_L1P = 1, EDGETK_L1 = 2, EDGETK_ONE = 3 };

/* Which loop is the outer one: chosen by the number of tokens, tokens, or groups of tables over tiles of tokens. */
enum { EDGETK_AUTO = 0, EDGETK_TOKENS = 1, EDGETK_TABLES = 2 };

enum { EDGETK_MOST_BITS = 16 };

typedef struct {
  const float *x;       /* (tokens, tables * bits) */
  const int8_t *rows;   /* (tables, 2^bits, outputs) */
  const float *scale;   /* (outputs) */
  const float *bias;    /* (outputs) */
  int64_t tokens;
  int64_t tables;       /* at most 1032 with the weights p and one, 516 with the others */
  int64_t bits;         /* 1 to EDGETK_MOST_BITS */
  int64_t outputs;
  float temperature;
  int32_t weighting;
} edgetk_lookup;

/* A share of the work: tokens and outputs from the first to before the last. Threads take one each. */
typedef struct {
  int64_t first_token, last_token, first_output, last_output;
} edgetk_share;

/* out (tokens, outputs); only those of `share` are written, NULL: all. A token that holds no number gives none.
 * `isa` as in isa.h; NULL is the best this processor has. "avx512" uses VNNI where that is there, "avx512bw" never does. */
EDGETK_PUBLIC int edgetk_lookup_linear(const edgetk_lookup *problem, float *out, const edgetk_share *share, int order,
                                       const char *isa);

#ifdef __cplusplus
}
#endif
#endif
