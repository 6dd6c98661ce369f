/* One head of binary attention, as the instruction sets share it: its tensors, its scratch memory, and their entry points. */
#ifndef EDGETK_HEAD_H
#define EDGETK_HEAD_H

#include <stdint.h>

enum { GROUP = 4, PATTERNS = 16, MAX_BITS = 32, MAX_LANES = 16 };

/* Floats from row to row of the scratch memory: whole vectors, on every processor. */
#define ROUND_UP(width) (((width) + MAX_LANES - 1) / MAX_LANES * MAX_LANES)

typedef struct {
  const float *queries; /* (tokens, bits) */
  const float *keys;    /* (tokens, bits) */
  const float *values;  /* (tokens, width) */
  float *out;           /* (tokens, width) */
  float *denominators;  /* (tokens), or NULL: divide */
  int64_t tokens;
  int64_t width;
  int bits;
  int sum; /* the numerator: 0 own token, 1 sum */
} head_problem;

/* Codes are packed into two planes, one bit for a token and a bit of its code: `positive` (+1) and `used` (not 0). */
typedef struct {
  int groups;     /* of four bits of a code */
  int64_t stride; /* ROUND_UP(width) */
  uint32_t *key_positive, *key_used, *query_positive, *query_used; /* (tokens) */
  float *total;     /* (MAX_BITS + MAX_LANES): sum of the keys, bit by bit */
  int32_t *weights; /* (groups, PATTERNS): signed sums of `total` */
  float *table;     /* (groups, PATTERNS, stride) */
  float *context;   /* (groups * GROUP, stride): sum_j k_j v_j^T */
  float *all;       /* (stride): sum_j v_j */
} head_scratch;

/* 0 where a code is none of -1, 0 and +1: nothing is written then. */
typedef int (*head_function)(const head_problem *, const head_scratch *);

int edgetk_head_portable(const head_problem *, const head_scratch *);
#if defined(__x86_64__)
int edgetk_head_avx2(const head_problem *, const head_scratch *);
int edgetk_head_avx512(const head_problem *, const head_scratch *);
#endif
#if defined(__aarch64__)
int edgetk_head_neon(const head_problem *, const head_scratch *);
#endif

#endif
