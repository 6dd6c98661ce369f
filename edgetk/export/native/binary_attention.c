/* Binary attention over all heads: which instruction set, scratch memory, and the plain sums for codes that are no codes. */
#define _POSIX_C_SOURCE 200112L
#include "binary_attention.h"

#include <stdlib.h>
#include <string.h>

#include "head.h"

/* With more tokens than this the sum of the keys is not exact in float. */
static const int64_t MAX_TOKENS = (int64_t)1 << 24;

static const struct {
  const char *name;
  head_function run;
} ISAS[] = {
#if defined(__x86_64__)
    {"avx512", edgetk_head_avx512},
    {"avx2", edgetk_head_avx2},
#elif defined(__aarch64__)
    {"neon", edgetk_head_neon},
#endif
    {"portable", edgetk_head_portable},
};

static head_function find(const char *name) {
  for (size_t i = 0; i < sizeof ISAS / sizeof *ISAS; ++i) {
    if ((!name || !strcmp(name, ISAS[i].name)) && edgetk_has(ISAS[i].name)) return ISAS[i].run;
  }
  return NULL;
}

/* The same in plain float sums, for any numbers in place of codes, NaN among them. `context` holds bits + 1 rows. */
static void plain_head(const head_problem *p, float *total, float *context) {
  const int64_t width = p->width;
  const float beta = (float)(p->bits + 1);
  float *all = context + p->bits * width;
  memset(total, 0, (size_t)p->bits * sizeof(float));
  memset(context, 0, (size_t)((p->bits + 1) * width) * sizeof(float));
  for (int64_t t = 0; t < p->tokens; ++t) {
    const float *code = p->keys + t * p->bits, *v = p->values + t * width;
    for (int r = 0; r < p->bits; ++r) {
      total[r] += code[r];
      for (int64_t c = 0; c < width; ++c) context[r * width + c] += code[r] * v[c];
    }
    for (int64_t c = 0; c < width; ++c) all[c] += v[c];
  }
  for (int64_t t = 0; t < p->tokens; ++t) {
    const float *code = p->queries + t * p->bits, *own = p->sum ? all : p->values + t * width;
    float *out = p->out + t * width, weight = (float)p->tokens * beta;
    for (int64_t c = 0; c < width; ++c) out[c] = beta * own[c];
    for (int r = 0; r < p->bits; ++r) {
      weight += code[r] * total[r];
      for (int64_t c = 0; c < width; ++c) out[c] += code[r] * context[r * width + c];
    }
    if (p->denominators) p->denominators[t] = weight;
    for (int64_t c = 0; c < width && !p->denominators; ++c) out[c] /= weight;
  }
}

/* The next `count` elements of 4 bytes of a block of memory, or only their size where there is no block yet. */
static void *take(char *block, size_t *used, size_t count) {
  void *part = block ? block + *used : NULL;
  *used += (count * 4 + 63) / 64 * 64;
  return part;
}

static size_t lay_out(head_scratch *s, const edgetk_attention *a, char *block) {
  const size_t tokens = (size_t)a->tokens, row = (size_t)s->stride;
  const size_t planes = a->queries == a->keys ? 0 : tokens;
  size_t used = 0;
  s->key_positive = take(block, &used, tokens);
  s->key_used = take(block, &used, tokens);
  s->query_positive = take(block, &used, planes);
  s->query_used = take(block, &used, planes);
  s->total = take(block, &used, MAX_BITS + MAX_LANES);
  s->weights = take(block, &used, (size_t)s->groups * PATTERNS);
  s->table = take(block, &used, (size_t)s->groups * PATTERNS * row);
  s->context = take(block, &used, (size_t)s->groups * GROUP * row);
  s->all = take(block, &used, row);
  return used;
}

int edgetk_binary_attention(const edgetk_attention *a, float *out, float *denominators, const char *isa) {
  const head_function run = find(isa);
  if (!run) return EDGETK_NO_SUCH_ISA;
  const int packs = a->bits >= 1 && a->bits <= MAX_BITS && a->tokens <= MAX_TOKENS;
  head_scratch scratch = {0};
  scratch.groups = (int)((a->bits + GROUP - 1) / GROUP);
  scratch.stride = ROUND_UP(a->width);
  void *block = NULL;
  float *plain = NULL;
  if (packs && posix_memalign(&block, 64, lay_out(&scratch, a, NULL))) return EDGETK_NO_MEMORY;
  if (packs) lay_out(&scratch, a, block);
  int result = EDGETK_OK;
  for (int64_t h = 0; h < a->heads && result == EDGETK_OK; ++h) {
    const int64_t codes = h * a->tokens * a->bits, values = h * a->tokens * a->width;
    const head_problem p = {a->queries + codes,
                            a->keys + codes,
                            a->values + values,
                            out + values,
                            denominators ? denominators + h * a->tokens : NULL,
                            a->tokens,
                            a->width,
                            (int)a->bits,
                            a->numerator == EDGETK_SUM};
    if (packs && run(&p, &scratch)) continue;
    if (!plain) plain = malloc((size_t)(a->bits + (a->bits + 1) * a->width + 1) * sizeof(float));
    if (plain) {
      plain_head(&p, plain, plain + a->bits);
    } else {
      result = EDGETK_NO_MEMORY;
    }
  }
  free(plain);
  free(block);
  return result;
}
