/* Hard attention as the instruction sets share it: scratch memory, and their entry points. */
#ifndef EDGETK_TOP_H
#define EDGETK_TOP_H

#include "head.h"
#include "hard_attention.h"

/* The weights of a row that are kept, and where they are: (tokens + MAX_LANES) each. */
typedef struct {
  float *weight;
  int32_t *place;
} top_scratch;

/* All heads. */
typedef void (*top_function)(const edgetk_hard_problem *, const top_scratch *);

void edgetk_top_portable(const edgetk_hard_problem *, const top_scratch *);
#if defined(__x86_64__)
void edgetk_top_avx2(const edgetk_hard_problem *, const top_scratch *);
void edgetk_top_avx512(const edgetk_hard_problem *, const top_scratch *);
#endif
#if defined(__aarch64__)
void edgetk_top_neon(const edgetk_hard_problem *, const top_scratch *);
#endif

#endif
