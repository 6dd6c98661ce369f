/* The largest weights of each row and the sum of their values, written once for every instruction set; see head_kernel.h for
 * what a file defines, and GREATER(a, b), one bit for a lane, besides.
 *
 * A row's K-th largest weight is found by halving an interval of floats, counted as integers, in which it lies. The search begins
 * at what the row before ended with, for neighbours are alike, and stops as soon as few weights are above: those are put
 * together, and the rest is done among them. Which weights are kept does not depend on the way there.
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
  int64_t i = 0, count = 0;
  for (; i + LANES <= n; i += LANES) count += __builtin_popcount(GREATER(LOAD(x + i), limit));
  if (i < n) count += __builtin_popcount(GREATER(LOAD_PART(x + i, (int)(n - i)), limit) & ((1u << (n - i)) - 1));
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

/* A bound with at least `keep` and not many more weights above it, from `near` on; below them all where there is none. */
TARGET static int32_t NAME(loose_bound)(const float *x, int64_t n, int64_t keep, int32_t near) {
  int64_t low = NAME(LOWEST_KEY) - (int64_t)1, high = NAME(HIGHEST_KEY), key = near, step = 1 << 20;
  while (high - low > 1) {
    const int64_t count = NAME(above)(x, n, NAME(from_key)((int32_t)key));
    if (count >= keep) {
      low = key;
      if (count <= 2 * keep) break;
      key = high == NAME(HIGHEST_KEY) && high - key > 2 * step ? key + step : low + (high - low) / 2;
    } else {
      high = key;
      key = low < NAME(LOWEST_KEY) && key - low > 2 * step ? key - step : low + (high - low) / 2;
    }
    step *= 2;
  }
  return low < NAME(LOWEST_KEY) ? NAME(LOWEST_KEY) - 1 : (int32_t)low;
}

/* The weights of a row above a bound, in order; all where `key` stands for no number. How many. */
ALWAYS_INLINE int64_t NAME(gather_above)(const float *x, int64_t n, int32_t key, const top_scratch *s) {
  int64_t count = 0;
  if (key < NAME(LOWEST_KEY)) {
    for (; count < n; ++count) s->weight[count] = x[count], s->place[count] = (int32_t)count;
    return count;
  }
  const vec limit = SPLAT(NAME(from_key)(key));
  for (int64_t i = 0; i < n; i += LANES) {
    const int part = n - i < LANES ? (int)(n - i) : LANES;
    uint32_t bits = part == LANES ? GREATER(LOAD(x + i), limit)
                                  : GREATER(LOAD_PART(x + i, part), limit) & ((1u << part) - 1);
    for (; bits; bits &= bits - 1, ++count) {
      const int64_t at = i + __builtin_ctz(bits);
      s->weight[count] = x[at];
      s->place[count] = (int32_t)at;
    }
  }
  return count;
}

/* Of `count` weights, more than `keep`, the largest stay, in order; `key` is below them. */
ALWAYS_INLINE void NAME(choose)(int64_t count, int64_t keep, int32_t key, const top_scratch *s) {
  int64_t low = key, high = NAME(HIGHEST_KEY), middle = low, exact = 0;
  for (int64_t step = 1 << 20; high - low > 1 && !exact; step *= 2) {
    middle = high == NAME(HIGHEST_KEY) && high - low > 2 * step ? low + step : low + (high - low) / 2;
    const int64_t n = NAME(above)(s->weight, count, NAME(from_key)((int32_t)middle));
    exact = n == keep;
    if (n >= keep) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const float bound = NAME(from_key)((int32_t)(exact ? low : high)); /* else the K-th largest itself: its equals fill up */
  int64_t level = exact ? 0 : keep - NAME(above)(s->weight, count, bound), kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float x = s->weight[i];
    const int taken = x > bound || (x == bound && level > 0);
    level -= x == bound && taken;
    s->weight[kept] = x;
    s->place[kept] = s->place[i];
    kept += taken;
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
    int32_t key = NAME(LOWEST_KEY) - 1;
    if (keep < n) key = NAME(loose_bound)(x, n, keep, near);
    const int64_t count = NAME(gather_above)(x, n, key, s);
    if (count > keep) NAME(choose)(count, keep, key, s);
    if (keep < n && key > NAME(LOWEST_KEY)) near = key;
    NAME(attend_row)(values, width, keep, s, out);
  }
}
