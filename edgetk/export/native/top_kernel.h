/* The largest weights of each row and the sum of their values, written once for every instruction set; see head_kernel.h for
 * what a file defines, and besides
 *
 *   GREATER(a, b)                          one bit for a lane
 *   tally, NOTHING(), TOTAL(t)             a count for each lane, and their sum; COUNT_GREATER(t, a, b) adds to them
 *   PACK(weight, place, v, first, bits)    the lanes of v whose bits are set, and their places from `first` on, put together; it
 *                                          may write a whole vector of each. Without it they are taken one by one
 *
 * A bound that K weights of a row are above is looked for among floats counted as integers, between two that have more and fewer
 * above them, where a straight line between the two says. The search begins with the bound of the row before, for neighbours
 * are alike. Which weights are kept does not depend on the way there.
 */
#include <math.h>
#include <string.h>

#include "top.h"

/* Floats as integers of the same order: neighbours differ by 1. */
ALWAYS_INLINE float NAME(from_key)(int32_t key) {
  const int32_t bits = key < 0 ? key ^ INT32_MAX : key;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

enum { NAME(LOWEST_KEY) = -0x7f800001, NAME(HIGHEST_KEY) = 0x7f800000 }; /* of the two infinities */

/* How many of n weights are above `bound`. */
ALWAYS_INLINE int64_t NAME(above)(const float *x, int64_t n, float bound) {
  const vec limit = SPLAT(bound);
  tally even = NOTHING(), odd = NOTHING();
  int64_t i = 0;
  for (; i + 2 * LANES <= n; i += 2 * LANES) {
    even = COUNT_GREATER(even, LOAD(x + i), limit);
    odd = COUNT_GREATER(odd, LOAD(x + i + LANES), limit);
  }
  int64_t count = (int64_t)TOTAL(even) + TOTAL(odd);
  for (; i < n; i += LANES) {
    const int part = n - i < LANES ? (int)(n - i) : LANES;
    const vec rest = part == LANES ? LOAD(x + i) : LOAD_PART(x + i, part);
    count += __builtin_popcount(GREATER(rest, limit) & (uint32_t)(((uint64_t)1 << part) - 1));
  }
  return count;
}

/* Whether none of n weights is NaN. */
ALWAYS_INLINE int NAME(are_numbers)(const float *x, int64_t n) {
  const uint32_t every = (uint32_t)(((uint64_t)1 << LANES) - 1);
  uint32_t all = every;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) all &= EQUAL(LOAD(x + i), LOAD(x + i));
  if (i < n) {
    const vec rest = LOAD_PART(x + i, (int)(n - i));
    all &= EQUAL(rest, rest);
  }
  return all == every;
}

/* A bound for the `keep` largest of more than so many weights, looked for from `near` on. Returns how many are above it: `keep`, or
 * fewer where the bound itself is the K-th largest, with equals. */
TARGET static int64_t NAME(find_bound)(const float *x, int64_t n, int64_t keep, int32_t near, int32_t *bound) {
  int64_t low = NAME(LOWEST_KEY) - (int64_t)1, high = NAME(HIGHEST_KEY), more = n, fewer = 0;
  int64_t key = near, step = 1 << 22; /* half an octave */
  for (int tries = 0; high - low > 1; ++tries) {
    const int64_t count = NAME(above)(x, n, NAME(from_key)((int32_t)key));
    if (count == keep) {
      *bound = (int32_t)key;
      return keep;
    }
    if (count > keep) {
      low = key, more = count;
    } else {
      high = key, fewer = count;
    }
    if (high == NAME(HIGHEST_KEY) && high - low > 2 * step) {
      key = low + step;
    } else if (low < NAME(LOWEST_KEY) && high - low > 2 * step) {
      key = high - step;
    } else {
      const double share = tries < 12 ? (double)(more - keep) / (double)(more - fewer) : 0.5;
      key = low + (int64_t)((double)(high - low) * share);
      if (key <= low) key = low + 1;
      if (key >= high) key = high - 1;
    }
    step *= 2;
  }
  *bound = (int32_t)high;
  return fewer;
}

/* The weights of a row above a bound, in order, and as many of those that are equal to it as it takes to have `keep`. */
ALWAYS_INLINE void NAME(take)(const float *x, int64_t n, int64_t keep, int32_t bound, int64_t over, const top_scratch *s) {
  const float limit = NAME(from_key)(bound);
  int64_t count = 0;
  if (over < keep) {
    for (int64_t i = 0, level = keep - over; i < n; ++i) {
      const int equal = x[i] == limit && level > 0;
      s->weight[count] = x[i];
      s->place[count] = (int32_t)i;
      count += x[i] > limit || equal;
      level -= equal;
    }
    return;
  }
  const vec limits = SPLAT(limit);
  for (int64_t i = 0; i < n; i += LANES) {
    const int part = n - i < LANES ? (int)(n - i) : LANES;
    const vec row = part == LANES ? LOAD(x + i) : LOAD_PART(x + i, part);
    uint32_t bits = GREATER(row, limits) & (uint32_t)(((uint64_t)1 << part) - 1);
#ifdef PACK
    PACK(s->weight + count, s->place + count, row, (int32_t)i, bits);
    count += __builtin_popcount(bits);
#else
    for (; bits; bits &= bits - 1, ++count) {
      const int64_t at = i + __builtin_ctz(bits);
      s->weight[count] = x[at];
      s->place[count] = (int32_t)at;
    }
#endif
  }
}

/* `vectors` vectors of an output row from column `first` on. */
ALWAYS_INLINE void NAME(sum_rows)(const float *values, int64_t width, int64_t keep, const top_scratch *s, float *out,
                                  const int vectors) {
  vec sum[4];
  for (int v = 0; v < vectors; ++v) sum[v] = ZERO();
  for (int64_t k = 0; k < keep; ++k) {
    const float *row = values + s->place[k] * width;
    const vec weight = SPLAT(s->weight[k]);
    for (int v = 0; v < vectors; ++v) sum[v] = ADD(sum[v], MUL(weight, LOAD(row + v * LANES)));
  }
  for (int v = 0; v < vectors; ++v) STORE(out + v * LANES, sum[v]);
}

ALWAYS_INLINE void NAME(attend_row)(const float *values, int64_t width, int64_t keep, const top_scratch *s, float *out) {
  int64_t c = 0;
  for (; c + 4 * LANES <= width; c += 4 * LANES) NAME(sum_rows)(values + c, width, keep, s, out + c, 4);
  for (; c + 2 * LANES <= width; c += 2 * LANES) NAME(sum_rows)(values + c, width, keep, s, out + c, 2);
  for (; c + LANES <= width; c += LANES) NAME(sum_rows)(values + c, width, keep, s, out + c, 1);
  if (c < width) {
    const int rest = (int)(width - c);
    vec sum = ZERO();
    for (int64_t k = 0; k < keep; ++k) {
      sum = ADD(sum, MUL(SPLAT(s->weight[k]), LOAD_PART(values + s->place[k] * width + c, rest)));
    }
    STORE_PART(out + c, sum, rest);
  }
}

TARGET void NAME(edgetk_top)(const edgetk_hard_problem *p, const top_scratch *s) {
  const int64_t n = p->tokens, width = p->width, keep = p->keep < n ? p->keep : n;
  int32_t near = 0x3b000000; /* 1/512 */
  for (int64_t row = 0; row < p->heads * p->queries; ++row) {
    const float *x = p->weights + row * n, *values = p->values + row / p->queries * n * width;
    float *out = p->out + row * width;
    if (!NAME(are_numbers)(x, n)) {
      for (int64_t c = 0; c < width; ++c) out[c] = NAN;
      continue;
    }
    int64_t over = 0;
    int32_t bound = NAME(LOWEST_KEY);
    if (keep < n) over = NAME(find_bound)(x, n, keep, near, &bound);
    if (over) near = bound;
    NAME(take)(x, n, keep, bound, over, s);
    NAME(attend_row)(values, width, keep, s, out);
  }
}
