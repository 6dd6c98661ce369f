/* The product with a sparse matrix: checks its indices, and chooses the instruction set. */
#define _POSIX_C_SOURCE 200112L
#include "dense_sparse.h"

#include <stdlib.h>
#include <string.h>

#include "sparse.h"

static const struct {
  const char *name;
  sparse_function run;
} ISAS[] = {
#if defined(__x86_64__)
    {"avx512", edgetk_sparse_avx512},
    {"avx2", edgetk_sparse_avx2},
#elif defined(__aarch64__)
    {"neon", edgetk_sparse_neon},
#endif
    {"portable", edgetk_sparse_portable},
};

static sparse_function find(const char *isa) {
  for (size_t i = 0; i < sizeof ISAS / sizeof *ISAS; ++i) {
    if ((!isa || !strcmp(isa, ISAS[i].name)) && edgetk_has(ISAS[i].name)) return ISAS[i].run;
  }
  return NULL;
}

static int indices_fit(const edgetk_sparse_product *p) {
  const int64_t count = p->lines * p->nonzeros;
  unsigned most = 0;
  if (p->index_bytes == 1) {
    if (p->width > UINT8_MAX) return 1;
    const uint8_t *index = p->indices;
    uint8_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = index[i] > largest ? index[i] : largest;
    most = largest;
  } else {
    const uint16_t *index = p->indices; /* a negative number is a large one here */
    uint16_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = index[i] > largest ? index[i] : largest;
    most = largest;
  }
  return count == 0 || most < p->width;
}

int edgetk_dense_sparse(const edgetk_sparse_product *problem, float *out, const char *isa) {
  const sparse_function run = find(isa);
  if (!run) return EDGETK_NO_SUCH_ISA;
  if (problem->tokens <= 0) return EDGETK_OK;
  if (!indices_fit(problem)) return EDGETK_BAD_INDEX;
  void *scratch = NULL;
  if (posix_memalign(&scratch, 64, (size_t)(problem->width + LINES) * MAX_TILE * sizeof(float))) return EDGETK_NO_MEMORY;
  run(problem, out, scratch);
  free(scratch);
  return EDGETK_OK;
}
