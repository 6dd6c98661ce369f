/* Look-up sums of any problem: which instruction set, which order of loops, scratch memory. */
#define _POSIX_C_SOURCE 200112L
#include "lookup_linear.h"

#include <stdlib.h>
#include <string.h>

#include "lookup.h"

/* Bytes of table columns that stay in a cache meanwhile. */
static const int64_t CACHE = 128 * 1024;

static const struct {
  const char *name;
  lookup_function run;
} ISAS[] = {
#if defined(__x86_64__)
    {"avx512", edgetk_lookup_avx512},
    {"avx2", edgetk_lookup_avx2},
#elif defined(__aarch64__)
    {"neon", edgetk_lookup_neon},
#endif
    {"portable", edgetk_lookup_portable},
};

static lookup_function find(const char *name) {
#if defined(__x86_64__)
  const int quads = edgetk_has("avx512") && __builtin_cpu_supports("avx512vnni");
  if (quads && (!name || !strcmp(name, "avx512"))) return edgetk_lookup_vnni;
  if (name && !strcmp(name, "avx512bw")) name = "avx512"; /* without VNNI, for comparisons */
#endif
  for (size_t i = 0; i < sizeof ISAS / sizeof *ISAS; ++i) {
    if ((!name || !strcmp(name, ISAS[i].name)) && edgetk_has(ISAS[i].name)) return ISAS[i].run;
  }
  return NULL;
}

/* The next `size` bytes of a block of memory, or only their number where there is no block yet. */
static void *take(char *block, size_t *used, size_t size) {
  void *part = block ? block + *used : NULL;
  *used += (size + 63) / 64 * 64;
  return part;
}

static size_t lay_out(lookup_scratch *s, const edgetk_lookup *p, int64_t tile, char *block) {
  const size_t reads = (size_t)(tile * p->tables), inputs = (size_t)(p->tables * p->bits);
  size_t used = 0;
  s->rows = take(block, &used, reads * sizeof *s->rows);
  s->codes = take(block, &used, reads * sizeof *s->codes);
  s->sums = take(block, &used, (size_t)tile * COLUMNS * sizeof *s->sums);
  s->spread = take(block, &used, inputs * sizeof *s->spread);
  s->signs = take(block, &used, inputs / 8 + 8);
  s->lost = take(block, &used, (size_t)tile);
  return used;
}

int edgetk_lookup_linear(const edgetk_lookup *p, float *out, const edgetk_share *share, int order, const char *isa) {
  const lookup_function run = find(isa);
  if (!run) return EDGETK_NO_SUCH_ISA;
  const edgetk_share all = {0, p->tokens, 0, p->outputs};
  if (!share) share = &all;
  const int64_t tokens = share->last_token - share->first_token;
  if (tokens < 1 || share->last_output <= share->first_output) return EDGETK_OK;
  /* staying with some tables for a tile of tokens pays where their rows are read more than once */
  const int again = (tokens < TILE ? tokens : TILE) >= (int64_t)1 << p->bits;
  const int by_table = order == EDGETK_TABLES || (order == EDGETK_AUTO && again);
  const int64_t slice = COLUMNS * ((int64_t)1 << p->bits), fitting = slice < CACHE ? CACHE / slice : 1;
  const lookup_order chosen = {by_table ? TILE : 1, by_table ? fitting : p->tables};
  lookup_scratch scratch;
  void *block = NULL;
  if (posix_memalign(&block, 64, lay_out(&scratch, p, chosen.tile, NULL))) return EDGETK_NO_MEMORY;
  lay_out(&scratch, p, chosen.tile, block);
  run(p, out, share, chosen, &scratch);
  free(block);
  return EDGETK_OK;
}
