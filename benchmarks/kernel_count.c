/* Calls one kernel of the operator library some times, for programs that count instructions:
 *
 *   kernel_count lookup|sparse|codes ISA TOKENS N M R S CALLS
 *
 * lookup: N inputs, M outputs, R bits a table, S ignored. sparse, codes (int8 values): R columns, M lines, S non-zeros a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dense_sparse.h"
#include "lookup_linear.h"

static void *filled(size_t bytes) {
  unsigned char *made = malloc(bytes);
  if (!made) exit(3);
  memset(made, 1, bytes);
  return made;
}

static float *floats(size_t count) {
  float *made = filled(count * sizeof *made);
  for (size_t i = 0; i < count; ++i) made[i] = (float)((i * 7919) % 2001) / 1000.0f - 1.0f;
  return made;
}

int main(int argc, char **argv) {
  if (argc != 9) return 2;
  const char *kind = argv[1], *isa = argv[2];
  const long tokens = atol(argv[3]), n = atol(argv[4]), m = atol(argv[5]), r = atol(argv[6]), s = atol(argv[7]);
  float *out = floats((size_t)(tokens * m));
  const float *scale = floats((size_t)m);
  int status = 0;
  if (!strcmp(kind, "lookup")) {
    const edgetk_lookup problem = {floats((size_t)(tokens * n)), filled((size_t)(n / r * m) << r), scale, scale, tokens, n / r, r, m,
                                   1.0f, EDGETK_P};
    for (long i = 0; i < atol(argv[8]); ++i) status |= edgetk_lookup_linear(&problem, out, NULL, EDGETK_AUTO, isa);
  } else {
    const int codes = !strcmp(kind, "codes"), bytes = r <= 256 ? 1 : 2;
    unsigned char *narrow = filled((size_t)(m * s));
    uint16_t *wide = filled((size_t)(m * s) * 2);
    for (long i = 0; i < m * s; ++i) wide[i] = (uint16_t)((i * 7919) % r), narrow[i] = (unsigned char)wide[i];
    const void *values = codes ? filled((size_t)(m * s)) : (void *)floats((size_t)(m * s));
    const edgetk_sparse_product problem = {
        floats((size_t)(tokens * r)), values, codes ? scale : NULL, bytes == 1 ? (void *)narrow : (void *)wide, tokens, m, r, s, bytes,
        EDGETK_BY_COLUMN};
    for (long i = 0; i < atol(argv[8]); ++i) status |= edgetk_dense_sparse(&problem, out, isa);
  }
  return status;
}
