/* Log-mel features in fixed point, one frame of 400 samples every 160, from 16-bit sound at 16 kHz.
 *
 * No floating point but for the last conversion of a feature, no allocation, no libm. Kaldi's filter banks: the frame's mean
 * removed, pre-emphasis, symmetric Hann window, 512-point FFT, power, 128 triangles, natural logarithm, normalised.
 */
#ifndef EDGETK_LOG_MEL_H
#define EDGETK_LOG_MEL_H

#include <stdint.h>

#define EDGETK_LOG_MEL_WINDOW 400
#define EDGETK_LOG_MEL_HOP 160
#define EDGETK_LOG_MEL_BANDS 128

#ifdef __cplusplus
extern "C" {
#endif

/* What the next frame still needs. Zeros are the start of a stream. */
typedef struct {
  int16_t samples[EDGETK_LOG_MEL_WINDOW];
  int32_t count;
} edgetk_log_mel_state;

/* Features of one whole window. */
void edgetk_log_mel_frame(const int16_t *window, float *features);

/* Takes samples until a frame is complete: returns how many it took, and whether there is one in *ready. Call it again with
 * the rest until all are taken. */
int32_t edgetk_log_mel_push(
    edgetk_log_mel_state *state, const int16_t *samples, int32_t count, float *features, int32_t *ready);

#ifdef __cplusplus
}
#endif
#endif
