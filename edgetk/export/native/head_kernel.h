/* The kernel of one head, written once for every instruction set. An including file defines
 *
 *   NAME(f)               a name of its own for each function
 *   TARGET                function attributes
 *   LANES, vec            floats of a vector (4, 8 or 16), and its type
 *   ZERO() SPLAT(x) LOAD(p) STORE(p, v) LOAD_PART(p, n) STORE_PART(p, v, n) ADD SUB MUL EQUAL(a, b)
 *
 * EQUAL gives one bit for a lane. LOAD_PART fills with zeros. No product is fused with a sum, and lanes are columns of the
 * values: whatever the width of a vector, each number is added up in the same order.
 *
 * Additions only, and four bits of a code at once: the 16 patterns of a group have 16 sums of values, so that a token is one
 * addition for a group instead of four (`gather`); the context's rows are differences of these sums (`fold`); and a query adds
 * one of 16 signed sums of four rows for each group (`spread`, `attend`).
 */
#include <stddef.h>
#include <string.h>

#include "head.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline)) TARGET

/* Both planes of `codes` (tokens, bits) and the sum over the tokens; 0 where a code is none of -1, 0 and +1. */
TARGET static int NAME(pack)(const float *codes, int64_t tokens, int bits, uint32_t *positive, uint32_t *used, float *total) {
  const vec plus = SPLAT(1.0f), minus = SPLAT(-1.0f), zero = ZERO();
  const uint32_t every = (1u << LANES) - 1;
  uint32_t valid = every;
  for (int first = 0; first < bits; first += LANES) {
    const int n = bits - first < LANES ? bits - first : LANES;
    vec sum = zero;
    for (int64_t t = 0; t < tokens; ++t) {
      const float *code = codes + t * bits + first;
      const vec x = n == LANES ? LOAD(code) : LOAD_PART(code, n);
      const uint32_t up = EQUAL(x, plus), any = up | EQUAL(x, minus);
      valid &= any | EQUAL(x, zero);
      sum = ADD(sum, x);
      positive[t] = (first ? positive[t] : 0) | up << first;
      used[t] = (first ? used[t] : 0) | any << first;
    }
    STORE(total + first, sum);
  }
  return valid == every;
}

/* Add each token's values to the sum of its pattern in every group. A zero counts as -1 there, which is made good at once. */
ALWAYS_INLINE void NAME(gather)(const head_problem *p, const head_scratch *s, const int groups, const int64_t width) {
  const uint32_t full = (uint32_t)(((uint64_t)1 << p->bits) - 1);
  const uint32_t *restrict positive = s->key_positive, *restrict used = s->key_used;
  const int64_t tokens = p->tokens, stride = ROUND_UP(width), rest = width % LANES;
  const float *restrict v = p->values;
  float *const table = s->table, *const context = s->context;
  for (int64_t t = 0; t < tokens; ++t, v += width) {
    float *row[MAX_BITS / GROUP];
    for (int g = 0; g < groups; ++g) row[g] = table + (g * PATTERNS + (positive[t] >> g * GROUP & (PATTERNS - 1))) * stride;
    for (int64_t c = 0; c < width; c += LANES) {
      const vec x = rest && width - c < LANES ? LOAD_PART(v + c, (int)rest) : LOAD(v + c);
      for (int g = 0; g < groups; ++g) STORE(row[g] + c, ADD(LOAD(row[g] + c), x));
      for (uint32_t zeros = used[t] ^ full; zeros; zeros &= zeros - 1) {
        float *bit = context + __builtin_ctz(zeros) * stride + c;
        STORE(bit, ADD(LOAD(bit), x));
      }
    }
  }
}

/* Context rows out of the sums of the patterns: those with the bit set less those without it. Halves the table bit by bit. */
TARGET static void NAME(fold)(const head_problem *p, const head_scratch *s) {
  const int64_t stride = s->stride;
  for (int g = 0; g < s->groups; ++g) {
    for (int64_t c = 0; c < p->width; c += LANES) {
      float *table = s->table + g * PATTERNS * stride + c;
      vec sums[PATTERNS];
      for (int i = 0; i < PATTERNS; ++i) sums[i] = LOAD(table + i * stride);
      for (int bit = GROUP - 1; bit >= 0; --bit) {
        const int half = 1 << bit;
        vec difference = SUB(sums[half], sums[0]);
        for (int i = 1; i < half; ++i) difference = ADD(difference, SUB(sums[half + i], sums[i]));
        for (int i = 0; i < half; ++i) sums[i] = ADD(sums[half + i], sums[i]);
        if (g * GROUP + bit < p->bits) {
          float *row = s->context + (g * GROUP + bit) * stride + c;
          STORE(row, ADD(LOAD(row), difference));
        }
      }
      if (g == 0) STORE(s->all + c, sums[0]);
    }
  }
}

/* The signed sums of each group's four context rows, for every pattern, and the same of the keys' total. */
TARGET static void NAME(spread)(const head_problem *p, const head_scratch *s) {
  const int64_t stride = s->stride;
  for (int g = 0; g < s->groups; ++g) {
    for (int64_t c = 0; c < p->width; c += LANES) {
      const float *row = s->context + g * GROUP * stride + c;
      float *table = s->table + g * PATTERNS * stride + c;
      const vec r0 = LOAD(row), r1 = LOAD(row + stride), r2 = LOAD(row + 2 * stride), r3 = LOAD(row + 3 * stride);
      const vec low_sum = ADD(r0, r1), low_difference = SUB(r0, r1), high_sum = ADD(r2, r3), high_difference = SUB(r2, r3);
      const vec low[4] = {SUB(ZERO(), low_sum), low_difference, SUB(r1, r0), low_sum};
      const vec high[4] = {SUB(ZERO(), high_sum), high_difference, SUB(r3, r2), high_sum};
      for (int i = 0; i < PATTERNS; ++i) STORE(table + i * stride, ADD(low[i & 3], high[i >> 2]));
    }
    for (int i = 0; i < PATTERNS; ++i) {
      int32_t weight = 0;
      for (int bit = 0; bit < GROUP && g * GROUP + bit < p->bits; ++bit) {
        const int32_t k = (int32_t)s->total[g * GROUP + bit];
        weight += i >> bit & 1 ? k : -k;
      }
      s->weights[g * PATTERNS + i] = weight;
    }
  }
}

/* The outputs: a query takes one row of every group's table, and beta times what the numerator adds, over its weight. */
ALWAYS_INLINE void NAME(attend)(const head_problem *p, const head_scratch *s, const int groups, const int64_t width) {
  const int same = p->queries == p->keys;
  const uint32_t *restrict positive = same ? s->key_positive : s->query_positive;
  const uint32_t *restrict used = same ? s->key_used : s->query_used;
  const uint32_t full = (uint32_t)(((uint64_t)1 << p->bits) - 1);
  const int64_t tokens = p->tokens, stride = ROUND_UP(width), rest = width % LANES, next = p->sum ? 0 : width;
  const int32_t base = (int32_t)(tokens * (p->bits + 1)), *const weights = s->weights;
  const vec beta = SPLAT((float)(p->bits + 1));
  const float *const table = s->table, *const context = s->context, *own = p->sum ? s->all : p->values;
  float *const denominators = p->denominators, *out = p->out;
  for (int64_t t = 0; t < tokens; ++t, own += next, out += width) {
    const uint32_t zeros = used[t] ^ full;
    int32_t weight = base;
    const float *row[MAX_BITS / GROUP];
    for (int g = 0; g < groups; ++g) {
      const uint32_t pattern = g * PATTERNS + (positive[t] >> g * GROUP & (PATTERNS - 1));
      row[g] = table + pattern * stride;
      weight += weights[pattern];
    }
    for (uint32_t z = zeros; z; z &= z - 1) weight += (int32_t)s->total[__builtin_ctz(z)];
    if (denominators) denominators[t] = (float)weight;
    const vec scale = SPLAT(denominators ? 1.0f : 1.0f / (float)weight);
    for (int64_t c = 0; c < width; c += LANES) {
      vec x = LOAD(row[0] + c);
      for (int g = 1; g < groups; ++g) x = ADD(x, LOAD(row[g] + c));
      for (uint32_t z = zeros; z; z &= z - 1) x = ADD(x, LOAD(context + __builtin_ctz(z) * stride + c));
      if (rest && width - c < LANES) {
        STORE_PART(out + c, MUL(ADD(x, MUL(beta, LOAD_PART(own + c, (int)rest))), scale), (int)rest);
      } else {
        STORE(out + c, MUL(ADD(x, MUL(beta, LOAD(own + c))), scale));
      }
    }
  }
}

/* `step` for this problem; with the usual numbers known (16 bits; 32 or 64 columns), its inner loops unroll. */
#define UNROLLED(step, p, s)                       \
  if ((s)->groups == 4 && (p)->width == 32) {      \
    step(p, s, 4, 32);                             \
  } else if ((s)->groups == 4 && (p)->width == 64) { \
    step(p, s, 4, 64);                             \
  } else {                                         \
    step(p, s, (s)->groups, (p)->width);           \
  }

TARGET int NAME(edgetk_head)(const head_problem *p, const head_scratch *s) {
  const int same = p->queries == p->keys;
  if (!same && !NAME(pack)(p->queries, p->tokens, p->bits, s->query_positive, s->query_used, s->total)) return 0;
  if (!NAME(pack)(p->keys, p->tokens, p->bits, s->key_positive, s->key_used, s->total)) return 0;
  const size_t row = (size_t)s->stride * sizeof(float);
  memset(s->table, 0, (size_t)s->groups * PATTERNS * row);
  memset(s->context, 0, (size_t)s->groups * GROUP * row);
  UNROLLED(NAME(gather), p, s)
  NAME(fold)(p, s);
  NAME(spread)(p, s);
  UNROLLED(NAME(attend), p, s)
  return 1;
}
