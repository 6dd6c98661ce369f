/* Hashing and summing of one share of a look-up, written once for every instruction set. An including file defines
 *
 *   NAME(f), TARGET    a name of its own for each function, and function attributes
 *   LANES, vec         32-bit integers of a vector (LANES divides COLUMNS), and its type
 *   ZERO() LOAD(p) STORE(p, v)
 *   ROW(p)             LANES bytes with their sign, as 32-bit integers
 *   CODE(w)            a weight of at most 15 bits for every lane
 *   MADD(sum, row, code)
 *   SIGNS(p)           of LANES floats, one bit each: 1 where it is >= 0
 *   QUADS              where there is a quicker way for four tables: adds multiples of four of them, and says how many
 *
 * Loops over floats are left to the compiler: no product is fused with a sum, so that all instruction sets round alike.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "lookup.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline)) TARGET

enum { VECTORS = COLUMNS / LANES, AHEAD = 6, LINE = 64 };

/* spread[i] = 1 + exp(-|x[i]| * steepness), within 2e-7: 2^n by its bits, and a polynomial for what is left. */
TARGET static void NAME(spread)(const float *x, int64_t n, float steepness, float *spread) {
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding and taking it away rounds to a whole number */
  const uint32_t EIGHTY = 0x42A00000u, INFINITE = 0x7F800000u, MAGIC = 0x4B400000u; /* 80, infinity and `magic` in bits */
  for (int64_t i = 0; i < n; ++i) {
    const float size = fabsf(x[i]) * steepness;
    uint32_t bits; /* at most 80, and NaN as it is, in whole numbers: to compilers a choice of floats may trap, and is a branch */
    memcpy(&bits, &size, sizeof bits);
    const uint32_t above = 0u - (uint32_t)((bits > EIGHTY) & (bits <= INFINITE));
    bits = (bits & ~above) | (EIGHTY & above);
    float low;
    memcpy(&low, &bits, sizeof low);
    low = -low;
    const float shifted = low * 1.44269504f + magic, whole = shifted - magic;
    const float r = (low - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float y = 1.98756915e-4f;
    y = y * r + 1.39819995e-3f;
    y = y * r + 8.33345190e-3f;
    y = y * r + 4.16657958e-2f;
    y = y * r + 1.66666655e-1f;
    y = y * r + 5.00000012e-1f;
    y = (y * r) * r + r + 1.0f;
    memcpy(&bits, &shifted, sizeof bits); /* the lowest ones are the whole number */
    bits = (bits - MAGIC + 127u) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    spread[i] = 1.0f + y * power;
  }
}

/* Signs of n floats as a stream of bits. */
TARGET static void NAME(signs)(const float *x, int64_t n, uint8_t *signs) {
  int64_t i = 0;
  memset(signs, 0, (size_t)(n / 8 + 8));
  for (; i + LANES <= n; i += LANES) {
    const uint32_t some = SIGNS(x + i);
    if (LANES >= 8) {
      memcpy(signs + i / 8, &some, LANES / 8);
    } else {
      signs[i / 8] |= (uint8_t)(some << i % 8);
    }
  }
  for (; i < n; ++i) signs[i / 8] |= (uint8_t)((x[i] >= 0.0f) << i % 8);
}

/* What a token x reads: a row of each table and its weight. */
TARGET static void NAME(hash)(const edgetk_lookup *p, const float *x, const lookup_scratch *s, int64_t slot) {
  const int64_t bits = p->bits, tables = p->tables, height = (int64_t)1 << bits;
  const int8_t **rows = s->rows + slot * tables;
  int32_t *codes = s->codes + slot * tables;
  const int fine = p->weighting == EDGETK_P || p->weighting == EDGETK_ONE;
  const float one = fine ? 16384.0f : 2048.0f, top = fine ? 16384.0f : 32767.0f, magic = 12582912.0f;
  NAME(signs)(x, tables * bits, s->signs);
  if (p->weighting == EDGETK_P || p->weighting == EDGETK_L1P) {
    NAME(spread)(x, tables * bits, 2.0f / p->temperature, s->spread);
  }
  int lost = 0;
  for (int64_t k = 0; k < tables; ++k) {
    const int64_t at = k * bits;
    uint32_t some;
    memcpy(&some, s->signs + at / 8, sizeof some);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    some = __builtin_bswap32(some);
#endif
    rows[k] = p->rows + (k * height + (some >> at % 8 & (uint32_t)(height - 1))) * p->outputs;
    float length = 0.0f, product = 1.0f;
    if (p->weighting == EDGETK_L1P || p->weighting == EDGETK_L1) {
      for (int64_t i = 0; i < bits; ++i) length += fabsf(x[at + i]);
    }
    if (p->weighting == EDGETK_P || p->weighting == EDGETK_L1P) {
      for (int64_t i = 0; i < bits; ++i) product *= s->spread[at + i];
    }
    const float weight = p->weighting == EDGETK_P ? 1.0f / product
                         : p->weighting == EDGETK_L1P ? length / product
                         : p->weighting == EDGETK_L1 ? length
                                                     : 1.0f;
    const float code = weight * one;
    lost |= !(code >= 0.0f);
    codes[k] = code < top ? (int32_t)((code + magic) - magic) : (int32_t)top;
  }
  s->lost[slot] = (uint8_t)lost;
}

/* Add rows times codes of `count` tables to COLUMNS sums, from column c on. */
ALWAYS_INLINE void NAME(add)(const int8_t *const *rows, const int32_t *codes, int64_t count, int64_t c, int32_t *sums,
                             const int fetch, int64_t end) {
  int64_t k = 0;
#if defined(QUADS)
  if (fetch) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t line = c; line < end; line += LINE) __builtin_prefetch(rows[i] + line);
    }
  }
  k = QUADS(rows, codes, count, c, sums);
#endif
  vec sum[VECTORS];
  for (int v = 0; v < VECTORS; ++v) sum[v] = LOAD(sums + v * LANES);
  for (; k < count; ++k) {
    if (fetch && k + AHEAD < count) {
      for (int64_t line = c; line < end; line += LINE) __builtin_prefetch(rows[k + AHEAD] + line);
    }
    const int8_t *row = rows[k] + c;
    const vec code = CODE(codes[k]);
    for (int v = 0; v < VECTORS; ++v) sum[v] = MADD(sum[v], ROW(row + v * LANES), code);
  }
  for (int v = 0; v < VECTORS; ++v) STORE(sums + v * LANES, sum[v]);
}

/* The same for the last columns, fewer than COLUMNS. */
ALWAYS_INLINE void NAME(add_rest)(const int8_t *const *rows, const int32_t *codes, int64_t count, int64_t c, int32_t *sums,
                                  int64_t width) {
  for (int64_t first = 0; first < width; first += LANES) {
    if (width - first < LANES) {
      for (int64_t k = 0; k < count; ++k) {
        for (int64_t i = first; i < width; ++i) sums[i] += rows[k][c + i] * codes[k];
      }
    } else {
      vec sum = LOAD(sums + first);
      for (int64_t k = 0; k < count; ++k) sum = MADD(sum, ROW(rows[k] + c + first), CODE(codes[k]));
      STORE(sums + first, sum);
    }
  }
}

ALWAYS_INLINE void NAME(finish)(const edgetk_lookup *p, const int32_t *sums, int lost, int64_t c, int64_t width, float *out) {
  const int fine = p->weighting == EDGETK_P || p->weighting == EDGETK_ONE;
  const float unit = fine ? 1.0f / 16384.0f : 1.0f / 2048.0f;
  for (int64_t i = 0; i < width; ++i) out[i] = lost ? NAN : (float)sums[i] * (p->scale[c + i] * unit) + p->bias[c + i];
}

TARGET void NAME(edgetk_lookup)(const edgetk_lookup *p, float *out, const edgetk_share *share, lookup_order order,
                                const lookup_scratch *s) {
  const int64_t inputs = p->tables * p->bits;
  for (int64_t first = share->first_token; first < share->last_token; first += order.tile) {
    const int64_t left = share->last_token - first, tokens = left < order.tile ? left : order.tile;
    for (int64_t t = 0; t < tokens; ++t) NAME(hash)(p, p->x + (first + t) * inputs, s, t);
    for (int64_t c = share->first_output; c < share->last_output; c += COLUMNS) {
      const int64_t room = share->last_output - c, width = room < COLUMNS ? room : COLUMNS;
      const int fetch = tokens == 1 && c == share->first_output;
      memset(s->sums, 0, (size_t)tokens * COLUMNS * sizeof *s->sums);
      for (int64_t k = 0; k < p->tables; k += order.group) {
        const int64_t count = p->tables - k < order.group ? p->tables - k : order.group;
        for (int64_t t = 0; t < tokens; ++t) {
          const int8_t *const *rows = s->rows + t * p->tables + k;
          const int32_t *codes = s->codes + t * p->tables + k;
          if (width < COLUMNS) {
            NAME(add_rest)(rows, codes, count, c, s->sums + t * COLUMNS, width);
          } else if (fetch) {
            NAME(add)(rows, codes, count, c, s->sums, 1, share->last_output);
          } else {
            NAME(add)(rows, codes, count, c, s->sums + t * COLUMNS, 0, 0);
          }
        }
      }
      for (int64_t t = 0; t < tokens; ++t) {
        NAME(finish)(p, s->sums + t * COLUMNS, s->lost[t], c, width, out + (first + t) * p->outputs + c);
      }
    }
  }
}
