/* Runs the front end over sound.bin (16-bit samples) in pieces of 160 and writes features.bin; prints frames and ticks. */
#include <stdio.h>

#include "edgetk_log_mel.h"
#include "ticks.h"

static edgetk_log_mel_state state;
static int16_t piece[EDGETK_LOG_MEL_HOP];
static float features[EDGETK_LOG_MEL_BANDS];

int main(void) {
  FILE *sound = fopen("sound.bin", "rb"), *out = fopen("features.bin", "wb");
  if (!sound || !out) return 2;
  unsigned long long ticks = 0;
  unsigned frames = 0;
  ticks_start();
  while (fread(piece, sizeof piece, 1, sound) == 1)
    for (int32_t at = 0, ready; at < EDGETK_LOG_MEL_HOP;) {
      const uint32_t before = ticks_now();
      at += edgetk_log_mel_push(&state, piece + at, EDGETK_LOG_MEL_HOP - at, features, &ready);
      ticks += ticks_since(before);
      frames += (unsigned)ready;
      if (ready) fwrite(features, sizeof features, 1, out);
    }
  fclose(out);
  printf("steps %u ticks %llu isa plain\n", frames, ticks);
  return 0;
}
