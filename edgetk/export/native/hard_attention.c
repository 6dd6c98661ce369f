/* Hard attention over all heads: which instruction set, and scratch memory. */
#include "hard_attention.h"

#include <stdlib.h>
#include <string.h>

#include "top.h"

static const struct {
  const char *name;
  top_function run;
} ISAS[] = {
#if defined(__x86_64__)
    {"avx512", edgetk_top_avx512},
    {"avx2", edgetk_top_avx2},
#elif defined(__aarch64__)
    {"neon", edgetk_top_neon},
#endif
    {"portable", edgetk_top_portable},
};

static top_function find(const char *isa) {
  for (size_t i = 0; i < sizeof ISAS / sizeof *ISAS; ++i) {
    if ((!isa || !strcmp(isa, ISAS[i].name)) && edgetk_has(ISAS[i].name)) return ISAS[i].run;
  }
  return NULL;
}

int edgetk_hard_attention(const edgetk_hard_problem *problem, const char *isa) {
  const top_function run = find(isa);
  if (!run) return EDGETK_NO_SUCH_ISA;
  const size_t room = (size_t)problem->tokens + MAX_LANES;
  const top_scratch scratch = {malloc(room * sizeof(float)), malloc(room * sizeof(int32_t))};
  const int ready = scratch.weight && scratch.place;
  if (ready) run(problem, &scratch);
  free(scratch.weight);
  free(scratch.place);
  return ready ? EDGETK_OK : EDGETK_NO_MEMORY;
}
