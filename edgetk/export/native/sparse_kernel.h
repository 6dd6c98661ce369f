/* The product with a sparse matrix, written once for every instruction set; see head_kernel.h for what a file defines.
 *
 * Tokens are lanes: a tile of x is turned around, so that one coefficient is one multiplication of whole vectors that lie in the
 * first-level cache, and results are turned back LINES at a time; each number is added up in the order of its coefficients. A few
 * tokens alone are done one by one, in four sums a line. Either way the order is that of every other instruction set.
 */
#include <string.h>

#include "sparse.h"

#define STEP(bytes, p, i) (bytes == 1 ? (int)((const uint8_t *)(p)->indices)[i] : (int)((const uint16_t *)(p)->indices)[i])
/* A stored coefficient as a float; `codes`: they are int8, to be multiplied by their line's scale. */
#define VALUE(codes, p, i) (codes ? (float)((const int8_t *)(p)->values)[i] : ((const float *)(p)->values)[i])

/* out[c][r] = in[r][c] for four r and four c; strides in floats. */
ALWAYS_INLINE void NAME(turn_block)(const float *in, int64_t in_stride, float *out, int64_t out_stride) {
#if LANES > 4
  __m128 r0 = _mm_loadu_ps(in), r1 = _mm_loadu_ps(in + in_stride);
  __m128 r2 = _mm_loadu_ps(in + 2 * in_stride), r3 = _mm_loadu_ps(in + 3 * in_stride);
  _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
  _mm_storeu_ps(out, r0);
  _mm_storeu_ps(out + out_stride, r1);
  _mm_storeu_ps(out + 2 * out_stride, r2);
  _mm_storeu_ps(out + 3 * out_stride, r3);
#elif defined(_AARCH64_NEON_H_) || defined(__ARM_NEON_H)
  const float32x4x2_t a = vtrnq_f32(vld1q_f32(in), vld1q_f32(in + in_stride));
  const float32x4x2_t b = vtrnq_f32(vld1q_f32(in + 2 * in_stride), vld1q_f32(in + 3 * in_stride));
  vst1q_f32(out, vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0])));
  vst1q_f32(out + out_stride, vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1])));
  vst1q_f32(out + 2 * out_stride, vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0])));
  vst1q_f32(out + 3 * out_stride, vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1])));
#else
  for (int r = 0; r < 4; ++r) {
    for (int c = 0; c < 4; ++c) out[c * out_stride + r] = in[r * in_stride + c];
  }
#endif
}

/* The same for any number of r and c. `inwards`: rows of `in` lie far apart, and one after the other is read; else those of `out`
 * do, and one after the other is written. */
TARGET static void NAME(turn)(const float *in, int64_t in_stride, float *out, int64_t out_stride, int rows, int columns,
                              int inwards) {
  const int whole_rows = rows & ~3, whole_columns = columns & ~3;
  if (inwards) {
    for (int r = 0; r < whole_rows; r += 4) {
      for (int c = 0; c < whole_columns; c += 4) {
        NAME(turn_block)(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
      }
    }
  } else {
    for (int c = 0; c < whole_columns; c += 4) {
      for (int r = 0; r < whole_rows; r += 4) {
        NAME(turn_block)(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
      }
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int c = r < whole_rows ? whole_columns : 0; c < columns; ++c) out[c * out_stride + r] = in[r * in_stride + c];
  }
}

/* The sums of `lines` lines from `line` on over a tile of `vectors` vectors of tokens: tile (width, vectors * LANES). Several
 * sums at once, so that they do not wait for each other. */
ALWAYS_INLINE void NAME(sparse_gather)(const edgetk_sparse_product *p, int64_t line, const float *tile, float *out,
                                       const int lines, const int vectors, const int bytes, const int codes) {
  const int64_t first = line * p->nonzeros, stride = vectors * LANES;
  vec sum[4];
  for (int i = 0; i < lines * vectors; ++i) sum[i] = ZERO();
  for (int64_t k = 0; k < p->nonzeros; ++k) {
    for (int i = 0; i < lines; ++i) {
      const int64_t at = first + i * p->nonzeros + k;
      const float *row = tile + STEP(bytes, p, at) * stride;
      const vec value = SPLAT(VALUE(codes, p, at));
      for (int v = 0; v < vectors; ++v) sum[i * vectors + v] = ADD(sum[i * vectors + v], MUL(value, LOAD(row + v * LANES)));
    }
  }
  for (int i = 0; i < lines * vectors; ++i) {
    STORE(out + i * LANES, codes ? MUL(sum[i], SPLAT(p->scale[line + i / vectors])) : sum[i]);
  }
}

/* One line's share of all sums over a tile: row (vectors * LANES) of x, tile as above. */
ALWAYS_INLINE void NAME(sparse_scatter)(const edgetk_sparse_product *p, int64_t line, const float *x, float *tile,
                                        const int vectors, const int bytes, const int codes) {
  const int64_t first = line * p->nonzeros, stride = vectors * LANES;
  vec row[4];
  for (int v = 0; v < vectors; ++v) {
    row[v] = codes ? MUL(LOAD(x + v * LANES), SPLAT(p->scale[line])) : LOAD(x + v * LANES);
  }
  for (int64_t k = 0; k < p->nonzeros; ++k) {
    float *sum = tile + STEP(bytes, p, first + k) * stride;
    const vec value = SPLAT(VALUE(codes, p, first + k));
    for (int v = 0; v < vectors; ++v) STORE(sum + v * LANES, ADD(LOAD(sum + v * LANES), MUL(value, row[v])));
  }
}

/* `tokens` of x from `x` on, at most vectors * LANES. */
ALWAYS_INLINE void NAME(tiled)(const edgetk_sparse_product *p, const float *x, float *out, float *scratch, int tokens,
                               const int vectors, const int bytes, const int codes) {
  const int stride = vectors * LANES;
  float *const tile = scratch, *const part = scratch + p->width * stride;
  if (p->side == EDGETK_BY_COLUMN) {
    if (tokens < stride) memset(tile, 0, (size_t)(p->width * stride) * sizeof(float));
    NAME(turn)(x, p->width, tile, stride, tokens, (int)p->width, 1);
    for (int64_t line = 0; line < p->lines; line += LINES) {
      const int n = p->lines - line < LINES ? (int)(p->lines - line) : LINES;
      int i = 0;
      for (; i + 4 / vectors <= n; i += 4 / vectors) {
        NAME(sparse_gather)(p, line + i, tile, part + i * stride, 4 / vectors, vectors, bytes, codes);
      }
      for (; i < n; ++i) NAME(sparse_gather)(p, line + i, tile, part + i * stride, 1, vectors, bytes, codes);
      NAME(turn)(part, stride, out + line, p->lines, n, tokens, 0);
    }
  } else {
    memset(tile, 0, (size_t)(p->width * stride) * sizeof(float));
    memset(part, 0, (size_t)(LINES * stride) * sizeof(float));
    for (int64_t line = 0; line < p->lines; line += LINES) {
      const int n = p->lines - line < LINES ? (int)(p->lines - line) : LINES;
      NAME(turn)(x + line, p->lines, part, stride, tokens, n, 1);
      for (int i = 0; i < n; ++i) NAME(sparse_scatter)(p, line + i, part + i * stride, tile, vectors, bytes, codes);
    }
    NAME(turn)(tile, stride, out, p->width, (int)p->width, tokens, 0);
  }
}

#if LANES > 4
ALWAYS_INLINE __m128 NAME(four_codes)(const int8_t *codes) {
  int32_t four;
  memcpy(&four, codes, sizeof four);
  return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
}
#endif

/* The sum of one line for one token: four sums of every fourth product. Wide gathers are no faster, and far slower where the
 * processor's microcode guards them. */
ALWAYS_INLINE float NAME(line_sum)(const edgetk_sparse_product *p, int64_t line, const float *x, const int bytes, const int codes) {
  const int64_t s = p->nonzeros, first = line * s, whole = s & ~(int64_t)3;
  float sum[4] = {0};
#if LANES > 4
  __m128 part = _mm_setzero_ps();
  for (int64_t k = 0; k < whole; k += 4) {
    const int64_t at = first + k;
    const __m128 numbers =
        _mm_setr_ps(x[STEP(bytes, p, at)], x[STEP(bytes, p, at + 1)], x[STEP(bytes, p, at + 2)], x[STEP(bytes, p, at + 3)]);
    const __m128 values = codes ? NAME(four_codes)((const int8_t *)p->values + at) : _mm_loadu_ps((const float *)p->values + at);
    part = _mm_add_ps(part, _mm_mul_ps(values, numbers));
  }
  _mm_storeu_ps(sum, part);
#else
  for (int64_t k = 0; k < whole; k += 4) {
    for (int i = 0; i < 4; ++i) sum[i] += VALUE(codes, p, first + k + i) * x[STEP(bytes, p, first + k + i)];
  }
#endif
  for (int64_t k = whole; k < s; ++k) sum[k - whole] += VALUE(codes, p, first + k) * x[STEP(bytes, p, first + k)];
  const float total = (sum[0] + sum[2]) + (sum[1] + sum[3]);
  return codes ? total * p->scale[line] : total;
}

/* One token alone. */
ALWAYS_INLINE void NAME(single)(
    const edgetk_sparse_product *p, const float *x, float *out, const int bytes, const int codes) {
  const int64_t s = p->nonzeros;
  if (p->side == EDGETK_BY_COLUMN) {
    for (int64_t line = 0; line < p->lines; ++line) out[line] = NAME(line_sum)(p, line, x, bytes, codes);
    return;
  }
  memset(out, 0, (size_t)p->width * sizeof(float));
  for (int64_t line = 0; line < p->lines; ++line) {
    const float number = codes ? x[line] * p->scale[line] : x[line];
    for (int64_t k = line * s; k < (line + 1) * s; ++k) out[STEP(bytes, p, k)] += VALUE(codes, p, k) * number;
  }
}

ALWAYS_INLINE void NAME(all)(
    const edgetk_sparse_product *p, float *out, float *scratch, const int bytes, const int codes) {
  const int by_column = p->side == EDGETK_BY_COLUMN;
  const int64_t from = by_column ? p->width : p->lines, to = by_column ? p->lines : p->width;
  const int64_t room = (int64_t)32768 / 4 / p->width; /* tokens of a tile that fits the first-level cache */
  const float *x = p->x;
  int64_t left = p->tokens;
  if (left <= FEW_TOKENS) {
    for (; left; --left, x += from, out += to) NAME(single)(p, x, out, bytes, codes);
    return;
  }
  while (left > 0) {
    int64_t done;
    if (left >= 4 * LANES && room >= 4 * LANES && 4 * LANES <= MAX_TILE) {
      NAME(tiled)(p, x, out, scratch, (int)(done = 4 * LANES), 4, bytes, codes);
    } else if (left >= 2 * LANES && room >= 2 * LANES) {
      NAME(tiled)(p, x, out, scratch, (int)(done = 2 * LANES), 2, bytes, codes);
    } else {
      NAME(tiled)(p, x, out, scratch, (int)(done = left < LANES ? left : LANES), 1, bytes, codes);
    }
    x += done * from;
    out += done * to;
    left -= done;
  }
}

TARGET void NAME(edgetk_sparse)(const edgetk_sparse_product *p, float *out, float *scratch) {
  if (p->index_bytes == 1) {
    p->scale ? NAME(all)(p, out, scratch, 1, 1) : NAME(all)(p, out, scratch, 1, 0);
  } else {
    p->scale ? NAME(all)(p, out, scratch, 2, 1) : NAME(all)(p, out, scratch, 2, 0);
  }
}
