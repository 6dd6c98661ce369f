/* See edgetk_log_mel.h. Numbers are 32 bits with a common exponent for the frame (block floating point). */
#include "edgetk_log_mel.h"

#include "edgetk_log_mel_data.h"

#include <string.h>

#define POINTS 256 /* of the complex transform: even and odd samples are its real and imaginary parts */

enum { SILENCE = -64 }; /* no exponent is that low */

#ifndef EDGETK_ARENA
#define EDGETK_ARENA static
#endif

typedef struct {
  int32_t re, im;
} complex32;

/* The spectrum, and in its place the powers. */
EDGETK_ARENA union {
  complex32 z[POINTS];
  uint64_t power[POINTS];
} work;

/* a * b / 2^32, rounded. */
static inline int32_t high(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32); }

/* cos and sin of 2 pi k / 512, 0 <= k <= 256, in units of 2^-31. */
static inline int32_t cosine(int32_t k) { return edgetk_log_mel_cosine[k]; }
static inline int32_t sine(int32_t k) { return edgetk_log_mel_cosine[k < 128 ? 128 - k : k - 128]; }

static inline uint32_t magnitude(int32_t x) { return (uint32_t)(x < 0 ? -(int64_t)x : x); }

static inline int32_t leading(uint32_t x) {
  int32_t n = 0;
  if (x == 0) return 32;
#if defined(__GNUC__)
  n = __builtin_clz(x);
#else
  while (!(x & 0x80000000u)) { x <<= 1; n++; }
#endif
  return n;
}

/* Reversed order of 8 bits. */
static inline int32_t reversed(int32_t i) {
  uint32_t x = (uint32_t)i;
  x = (x & 0x55u) << 1 | (x >> 1 & 0x55u);
  x = (x & 0x33u) << 2 | (x >> 2 & 0x33u);
  return (int32_t)((x & 0x0fu) << 4 | x >> 4);
}

/* Mean, pre-emphasis and window of a frame, as large as 30 bits allow; returns the exponent, or SILENCE.
 * Units: samples times 400, so that taking the mean away is exact. */
static int32_t prepare(const int16_t *window) {
  int32_t sum = 0;
  uint32_t largest = 0;
  for (int32_t i = 0; i < EDGETK_LOG_MEL_WINDOW; i++) sum += window[i];
  for (int32_t i = 0; i < EDGETK_LOG_MEL_WINDOW; i++) {
    const uint32_t size = magnitude(EDGETK_LOG_MEL_WINDOW * (int32_t)window[i] - sum);
    largest = size > largest ? size : largest;
  }
  if (largest == 0) return SILENCE;
  const int32_t shift = leading(largest) - 3; /* pre-emphasis nearly doubles at most */
  int32_t before = (EDGETK_LOG_MEL_WINDOW * (int32_t)window[0] - sum) * (int32_t)(1 << shift);
  memset(work.z, 0, sizeof work.z);
  for (int32_t i = 0; i < EDGETK_LOG_MEL_WINDOW; i++) {
    const int32_t here = (EDGETK_LOG_MEL_WINDOW * (int32_t)window[i] - sum) * (int32_t)(1 << shift);
    const int32_t raised = here - 2 * high(before, EDGETK_LOG_MEL_PREEMPHASIS);
    const int32_t mirrored = i < EDGETK_LOG_MEL_WINDOW / 2 ? i : EDGETK_LOG_MEL_WINDOW - 1 - i;
    const int32_t value = high(raised, edgetk_log_mel_window[mirrored]);
    complex32 *place = &work.z[reversed(i / 2)];
    if (i % 2)
      place->im = value;
    else
      place->re = value;
    before = here;
  }
  return shift - 1; /* the window took one bit */
}

/* Radix-2 decimation in time, halved at every stage; the input lies in reversed order. */
static void transform(void) {
  for (int32_t half = 1, step = POINTS; half < POINTS; half *= 2, step /= 2)
    for (int32_t k = 0; k < half; k++) {
      const int32_t c = cosine(k * step), s = sine(k * step);
      for (int32_t i = k; i < POINTS; i += 2 * half) {
        complex32 *a = &work.z[i], *b = &work.z[i + half];
        const int32_t re = high(b->re, c) + high(b->im, s), im = high(b->im, c) - high(b->re, s);
        const int32_t x = a->re >> 1, y = a->im >> 1;
        a->re = x + re;
        a->im = y + im;
        b->re = x - re;
        b->im = y - im;
      }
    }
}

static inline uint64_t squared(int32_t re, int32_t im) {
  return (uint64_t)((int64_t)re * re) + (uint64_t)((int64_t)im * im);
}

/* Powers of bins 0 to 255 from the transform of even and odd samples, halved once more; returns the largest. */
static uint64_t powers(void) {
  const int32_t dc = (work.z[0].re >> 1) + (work.z[0].im >> 1);
  uint64_t largest = squared(dc, 0);
  work.power[0] = largest;
  for (int32_t k = 1; k <= POINTS / 2; k++) {
    const complex32 a = work.z[k], b = work.z[POINTS - k];
    const int32_t even_re = (a.re >> 1) + (b.re >> 1), even_im = (a.im >> 1) - (b.im >> 1);
    const int32_t odd_re = (a.im >> 1) + (b.im >> 1), odd_im = (b.re >> 1) - (a.re >> 1);
    const int32_t c = cosine(k), s = sine(k);
    const int32_t re = high(odd_re, c) + high(odd_im, s), im = high(odd_im, c) - high(odd_re, s);
    const uint64_t low = squared((even_re >> 1) + re, (even_im >> 1) + im);
    const uint64_t mirror = squared((even_re >> 1) - re, (even_im >> 1) - im);
    work.power[k] = low;
    work.power[POINTS - k] = k == POINTS / 2 ? low : mirror;
    largest = low > largest ? low : largest;
    largest = mirror > largest ? mirror : largest;
  }
  return largest;
}

/* log2(x), x > 0, in units of 2^-20: the highest bit, and a table of the 64 steps below it with straight lines between. */
static int32_t logarithm(uint64_t x) {
  const uint32_t upper = (uint32_t)(x >> 32);
  const int32_t zeros = upper ? leading(upper) : 32 + leading((uint32_t)x);
  const uint32_t mantissa = (uint32_t)(x << zeros >> 32); /* the highest bit is set */
  const uint32_t index = mantissa >> 25 & 63u, rest = mantissa >> 9 & 0xffffu;
  const int32_t low = edgetk_log_mel_log2[index], up = edgetk_log_mel_log2[index + 1];
  return (63 - zeros) * (1 << 20) + low + (int32_t)(((int64_t)(up - low) * (int32_t)rest) >> 16);
}

void edgetk_log_mel_frame(const int16_t *window, float *features) {
  uint64_t energy[EDGETK_LOG_MEL_BANDS + 1];
  const int32_t exponent = prepare(window);
  uint64_t largest = 0;
  memset(energy, 0, sizeof energy);
  if (exponent != SILENCE) {
    transform();
    largest = powers();
  }
  int32_t shift = 0; /* powers become 41 bits, so that their sums with weights of 20 bits fit */
  while (largest >> shift >> 41) shift++;
  if (largest)
    for (int32_t k = 0; k < POINTS; k++) {
      const uint64_t power = work.power[k] >> shift;
      const int32_t band = edgetk_log_mel_band[k];
      energy[band] += power * edgetk_log_mel_weight[2 * k];
      energy[band + 1] += power * edgetk_log_mel_weight[2 * k + 1];
    }
  const int32_t scale = EDGETK_LOG_MEL_UNIT + (shift - 2 * exponent) * (1 << 20);
  for (int32_t b = 0; b < EDGETK_LOG_MEL_BANDS; b++) {
    int32_t level = EDGETK_LOG_MEL_FLOOR;
    if (energy[b]) {
      const int32_t found = logarithm(energy[b]) + scale;
      level = found > level ? found : level;
    }
    const int64_t normal = (int64_t)level * EDGETK_LOG_MEL_SLOPE + EDGETK_LOG_MEL_OFFSET; /* units of 2^-50 */
    features[b] = (float)(int32_t)((normal + ((int64_t)1 << 25)) >> 26) * (1.0f / 16777216.0f);
  }
}

int32_t edgetk_log_mel_push(
    edgetk_log_mel_state *state, const int16_t *samples, int32_t count, float *features, int32_t *ready) {
  int32_t taken = EDGETK_LOG_MEL_WINDOW - state->count;
  taken = taken < count ? taken : count;
  memcpy(state->samples + state->count, samples, (size_t)taken * sizeof *samples);
  state->count += taken;
  *ready = state->count == EDGETK_LOG_MEL_WINDOW;
  if (*ready) {
    edgetk_log_mel_frame(state->samples, features);
    state->count -= EDGETK_LOG_MEL_HOP;
    memmove(state->samples, state->samples + EDGETK_LOG_MEL_HOP, (size_t)state->count * sizeof *samples);
  }
  return taken;
}
