/* A dense matrix times a sparse one with as many non-zeros in each line, for one processor core: the public C interface.
 *
 *   by column   out[t][j] = sum_k x[t][indices[j][k]] * values[j][k]       x (tokens, width), out (tokens, lines)
 *   by row      out[t][c] = sum over i, k with indices[i][k] = c of x[t][i] * values[i][k]
 *                                                                          x (tokens, lines), out (tokens, width)
 *
 * Chand et al. 2023 (DSFormer), arXiv:2312.13211: the sparse factor of a matrix, behind or before a small dense one.
 */
#ifndef EDGETK_DENSE_SPARSE_H
#define EDGETK_DENSE_SPARSE_H

#include <stdint.h>

#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EDGETK_BY_COLUMN = 0, EDGETK_BY_ROW = 1 };
enum { EDGETK_BAD_INDEX = 3 };

/* Rows are contiguous. `indices` (lines, nonzeros) are uint8_t where `index_bytes` is 1, int16_t where it is 2. `values` are float
 * where `scale` is NULL; else they are int8_t, and a line's are to be multiplied by its number in `scale`. */
typedef struct {
  const float *x;
  const void *values; /* (lines, nonzeros) */
  const float *scale; /* (lines), or NULL */
  const void *indices;
  int64_t tokens;
  int64_t lines;
  int64_t width;
  int64_t nonzeros;
  int32_t index_bytes;
  int32_t side;
} edgetk_sparse_product;

/* EDGETK_BAD_INDEX where an index is not in [0, width). `isa` as in edgetk_binary_attention. All instruction sets
 * add in the same order: results are equal to the last bit. A few tokens alone are added up in another order than many. */
EDGETK_PUBLIC int edgetk_dense_sparse(const edgetk_sparse_product *problem, float *out, const char *isa);

#ifdef __cplusplus
}
#endif
#endif
