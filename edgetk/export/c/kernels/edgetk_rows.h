/* Kernels over whole rows in float32, and the memory layers and attention that work on signs. The same bits on all builds. */

/* The sum of x, or of the squares of x - center: eight sums side by side, added up in one stated order. */
static inline float edgetk_total(const float *x, int32_t n, float center, int32_t squares) {
  float lane[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  for (int32_t i = 0; i < n; i++) {
    const float v = x[i] - center;
    lane[i % 8] += squares ? v * v : v;
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static inline void edgetk_layer_norm(
    const float *x, int32_t rows, int32_t width, const float *weight, const float *bias, float epsilon, float *out) {
  for (int32_t r = 0; r < rows; r++, x += width, out += width) {
    const float mean = edgetk_total(x, width, 0.0f, 0) / (float)width;
    const float deviation = edgetk_sqrt(edgetk_total(x, width, mean, 1) / (float)width + epsilon);
    for (int32_t i = 0; i < width; i++) {
      const float y = (x[i] - mean) / deviation * weight[i];
      out[i] = bias ? y + bias[i] : y;
    }
  }
}

static inline void edgetk_softmax(const float *x, int32_t rows, int32_t width, float *out) {
  for (int32_t r = 0; r < rows; r++, x += width, out += width) {
    float top = x[0];
    for (int32_t i = 1; i < width; i++) top = edgetk_max(top, x[i]);
    for (int32_t i = 0; i < width; i++) out[i] = edgetk_exp(x[i] - top);
    const float sum = edgetk_total(out, width, 0.0f, 0);
    for (int32_t i = 0; i < width; i++) out[i] /= sum;
  }
}

/* x (outer, count, inner) over its middle axis. */
enum { EDGETK_SUM, EDGETK_MEAN, EDGETK_L2 };
static inline void edgetk_reduce(const float *x, int32_t outer, int32_t count, int32_t inner, int32_t kind, float *out) {
  for (int32_t o = 0; o < outer; o++, x += count * inner)
    for (int32_t i = 0; i < inner; i++) {
      float sum = 0.0f;
      if (inner == 1)
        sum = edgetk_total(x, count, 0.0f, kind == EDGETK_L2);
      else
        for (int32_t k = 0; k < count; k++) {
          const float v = x[k * inner + i];
          sum += kind == EDGETK_L2 ? v * v : v;
        }
      *out++ = kind == EDGETK_MEAN ? sum / (float)count : kind == EDGETK_L2 ? edgetk_sqrt(sum) : sum;
    }
}

/* a (batch, rows, inner) times b (batch, inner, columns). */
static inline void edgetk_product(
    const float *a, const float *b, int32_t batch, int32_t rows, int32_t inner, int32_t columns, float *out) {
  for (int32_t k = 0; k < batch; k++, b += inner * columns)
    for (int32_t r = 0; r < rows; r++, a += inner, out += columns) edgetk_dense_float(a, b, 0, inner, columns, out);
}

/* What a table's row counts by: the product of the sigmoids of its coordinates, their sum without signs, both, or one. */
enum { EDGETK_WEIGHT_ONE, EDGETK_WEIGHT_P, EDGETK_WEIGHT_L1, EDGETK_WEIGHT_L1P };
static inline float edgetk_row_weight(const float *z, int32_t bits, int32_t weighting, float steepness) {
  float length = 0.0f, spread = 1.0f;
  if (weighting == EDGETK_WEIGHT_ONE) return 1.0f;
  for (int32_t i = 0; i < bits; i++) {
    const float size = edgetk_max(z[i], -z[i]);
    length += size;
    if (weighting != EDGETK_WEIGHT_L1) spread *= 1.0f + edgetk_exp(-size * steepness);
  }
  return (weighting == EDGETK_WEIGHT_P ? 1.0f : length) / spread;
}

/* The row that the signs of z name: the first coordinate is the lowest bit. Both zeros count as positive. */
static inline int32_t edgetk_row_of(const float *z, int32_t bits) {
  int32_t row = 0;
  for (int32_t i = 0; i < bits; i++) {
    uint32_t pattern;
    memcpy(&pattern, z + i, sizeof pattern);
    row |= (int32_t)(pattern <= 0x80000000u) << i;
  }
  return row;
}

/* out = (sum of rows times codes) * scale + bias: `count` rows, an even number, of int8; `starts` say where they begin, and codes
 * have at most 15 bits. Some columns at a time, their sums in registers. */
static inline void edgetk_sum_rows(
    const int8_t *tables, const int32_t *starts, const int16_t *codes, int32_t count, int32_t outputs, const float *scale,
    const float *bias, float *out) {
  int32_t c = 0;
#if defined(EDGETK_MVE)
#define EDGETK_PUT(at, sum) \
  vstrwq_f32(out + (at), vaddq_f32(vmulq_f32(vcvtq_f32_s32(sum), vldrwq_f32(scale + (at))), vldrwq_f32(bias + (at))))
  for (; c + 16 <= outputs; c += 16) {
    int32x4_t s = vdupq_n_s32(0), t = s, u = s, v = s;
    for (int32_t k = 0; k < count; k++) {
      const int8_t *row = tables + starts[k] + c;
      s = vmlaq_n_s32(s, vldrbq_s32(row), codes[k]);
      t = vmlaq_n_s32(t, vldrbq_s32(row + 4), codes[k]);
      u = vmlaq_n_s32(u, vldrbq_s32(row + 8), codes[k]);
      v = vmlaq_n_s32(v, vldrbq_s32(row + 12), codes[k]);
    }
    EDGETK_PUT(c, s);
    EDGETK_PUT(c + 4, t);
    EDGETK_PUT(c + 8, u);
    EDGETK_PUT(c + 12, v);
  }
  for (; c + 4 <= outputs; c += 4) {
    int32x4_t s = vdupq_n_s32(0);
    for (int32_t k = 0; k < count; k++) s = vmlaq_n_s32(s, vldrbq_s32(tables + starts[k] + c), codes[k]);
    EDGETK_PUT(c, s);
  }
#elif defined(EDGETK_DSP)
  for (; c + 4 <= outputs; c += 4) { /* two rows at once: a byte of each becomes one pair */
    int32_t s = 0, t = 0, u = 0, v = 0;
    for (const int32_t *start = starts, *end = starts + count, *pair = (const int32_t *)(const void *)codes; start != end;
         start += 2, pair++) {
      uint32_t a, b, code;
      memcpy(&a, tables + start[0] + c, sizeof a);
      memcpy(&b, tables + start[1] + c, sizeof b);
      memcpy(&code, pair, sizeof code);
      const uint32_t even_a = edgetk_even(a), odd_a = edgetk_odd(a), even_b = edgetk_even(b), odd_b = edgetk_odd(b);
      s = edgetk_smlad(edgetk_low(even_a, even_b), code, s);
      t = edgetk_smlad(edgetk_low(odd_a, odd_b), code, t);
      u = edgetk_smlad(edgetk_high(even_a, even_b), code, u);
      v = edgetk_smlad(edgetk_high(odd_a, odd_b), code, v);
    }
    out[c] = (float)s * scale[c] + bias[c];
    out[c + 1] = (float)t * scale[c + 1] + bias[c + 1];
    out[c + 2] = (float)u * scale[c + 2] + bias[c + 2];
    out[c + 3] = (float)v * scale[c + 3] + bias[c + 3];
  }
#else
  for (; c + 16 <= outputs; c += 16) {
    int32_t sum[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int32_t k = 0; k < count; k++)
      for (int32_t v = 0; v < 16; v++) sum[v] += codes[k] * tables[starts[k] + c + v];
    for (int32_t v = 0; v < 16; v++) out[c + v] = (float)sum[v] * scale[c + v] + bias[c + v];
  }
#endif
  for (; c < outputs; c++) {
    int32_t sum = 0;
    for (int32_t k = 0; k < count; k++) sum += codes[k] * tables[starts[k] + c];
    out[c] = (float)sum * scale[c] + bias[c];
  }
}

/* A memory layer with int8 tables (count, 2^bits, outputs): weights rounded to fixed point, sums of 32 bits, then scale and
 * bias; `scale` holds the weights' step as well. `scratch` has room for three halves of a number for each table, the
 * count made even. Source: MemoryFormer, arXiv:2411.12992, eq. 4 to 8. */
static inline void edgetk_table_rows(
    const float *x, const int8_t *tables, const float *scale, const float *bias, int32_t count, int32_t bits, int32_t outputs,
    int32_t weighting, float steepness, int32_t *scratch, float *out) {
  const int32_t fine = weighting == EDGETK_WEIGHT_P || weighting == EDGETK_WEIGHT_ONE, even = count + (count & 1);
  const float one = fine ? 16384.0f : 2048.0f, top = fine ? 16384.0f : 32767.0f;
  int32_t *starts = scratch;
  int16_t *codes = (int16_t *)(void *)(scratch + even);
  for (int32_t k = 0; k < count; k++, x += bits) {
    starts[k] = ((k << bits) + edgetk_row_of(x, bits)) * outputs;
    codes[k] = (int16_t)one;
    if (weighting == EDGETK_WEIGHT_ONE) continue;
    codes[k] = (int16_t)edgetk_min(edgetk_round(edgetk_row_weight(x, bits, weighting, steepness) * one), top);
  }
  if (even > count) {
    starts[count] = 0;
    codes[count] = 0;
  }
  edgetk_sum_rows(tables, starts, codes, even, outputs, scale, bias, out);
}

/* The same in float32. */
static inline void edgetk_table_rows_float(
    const float *x, const float *tables, const float *bias, int32_t count, int32_t bits, int32_t outputs, int32_t weighting,
    float steepness, float *out) {
  memset(out, 0, (size_t)outputs * sizeof *out);
  for (int32_t k = 0; k < count; k++, x += bits, tables += outputs << bits) {
    const float *row = tables + edgetk_row_of(x, bits) * outputs;
    const float weight = edgetk_row_weight(x, bits, weighting, steepness);
    for (int32_t i = 0; i < outputs; i++) out[i] += weight * row[i];
  }
  for (int32_t i = 0; i < outputs; i++) out[i] += bias[i];
}

/* Linear attention on codes of -1, 0 and +1, for each head:
 *
 *   out_n = (sum_j (q_n . k_j) v_j + beta * own_n) / (q_n . sum_j k_j + tokens * beta),   beta = bits + 1
 *
 * with own_n = v_n, or the sum of all values. Values are added and taken away; nothing is multiplied but by beta.
 * `context` has room for (bits + 1) * width + bits numbers. Source: EcoFormer, arXiv:2209.09004. */
static inline void edgetk_binary_attention(
    const float *queries, const float *keys, const float *values, int32_t heads, int32_t tokens, int32_t bits, int32_t width,
    int32_t own_token, float *context, float *out) {
  const float beta = (float)(bits + 1);
  float *all = context + bits * width, *total = all + width;
  for (int32_t h = 0; h < heads; h++, values += tokens * width) {
    memset(context, 0, (size_t)((bits + 1) * width + bits) * sizeof *context);
    for (int32_t t = 0; t < tokens; t++, keys += bits) {
      const float *v = values + t * width;
      for (int32_t r = 0; r < bits; r++) {
        float *sum = context + r * width;
        total[r] += keys[r];
        if (keys[r] > 0.0f)
          for (int32_t c = 0; c < width; c++) sum[c] += v[c];
        else if (keys[r] < 0.0f)
          for (int32_t c = 0; c < width; c++) sum[c] -= v[c];
      }
      if (!own_token)
        for (int32_t c = 0; c < width; c++) all[c] += v[c];
    }
    for (int32_t t = 0; t < tokens; t++, queries += bits, out += width) {
      const float *own = own_token ? values + t * width : all;
      float weight = (float)tokens * beta;
      for (int32_t c = 0; c < width; c++) out[c] = beta * own[c];
      for (int32_t r = 0; r < bits; r++) {
        const float *sum = context + r * width;
        weight += queries[r] * total[r];
        if (queries[r] > 0.0f)
          for (int32_t c = 0; c < width; c++) out[c] += sum[c];
        else if (queries[r] < 0.0f)
          for (int32_t c = 0; c < width; c++) out[c] -= sum[c];
      }
      for (int32_t c = 0; c < width; c++) out[c] /= weight;
    }
  }
}
