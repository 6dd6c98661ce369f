/* Integer products in portable C99. */
static inline void edgetk_dense(const edgetk_layer *layer, const uint8_t *x, int16_t *scratch, float *out) {
  (void)scratch;
  for (int32_t i = 0; i < layer->outputs; i++) {
    const int8_t *w = layer->weights + i * layer->stride;
    int32_t sum = 0;
    for (int32_t j = 0; j < layer->inputs; j++) sum += (int32_t)x[j] * w[j];
    out[i] = edgetk_finish(layer, i, sum - layer->zero * layer->sums[i]);
  }
}
