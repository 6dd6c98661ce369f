/* The product with a sparse matrix, as the instruction sets share it. */
#ifndef EDGETK_SPARSE_H
#define EDGETK_SPARSE_H

#include "dense_sparse.h"

/* Lines whose results are turned around together; tokens of the largest tile; as many tokens as are done one by one. */
enum { LINES = 16, MAX_TILE = 64, FEW_TOKENS = 3 };

/* `scratch` holds (width + LINES) * MAX_TILE floats, on a 64-byte boundary. */
typedef void (*sparse_function)(const edgetk_sparse_product *, float *out, float *scratch);

void edgetk_sparse_portable(const edgetk_sparse_product *, float *, float *);
#if defined(__x86_64__)
void edgetk_sparse_avx2(const edgetk_sparse_product *, float *, float *);
void edgetk_sparse_avx512(const edgetk_sparse_product *, float *, float *);
#endif
#if defined(__aarch64__)
void edgetk_sparse_neon(const edgetk_sparse_product *, float *, float *);
#endif

#endif
