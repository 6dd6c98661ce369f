/* Runs a generated step over frames.bin and writes outputs.bin; prints the steps and, on a board, the ticks inside them. */
#include <stdint.h>
#include <stdio.h>

#include MODEL_HEADER
#include "edgetk_kernels.h"
#if TICKS
#include "ticks.h"
#else
static void ticks_start(void) {}
static uint32_t ticks_now(void) { return 0; }
static uint32_t ticks_since(uint32_t before) { return before; }
#endif

static MODEL_STATE state;
static float in[MODEL_INPUTS], out[MODEL_OUTPUTS];

int main(void) {
  FILE *frames = fopen("frames.bin", "rb"), *outputs = fopen("outputs.bin", "wb");
  if (!frames || !outputs) return 2;
  unsigned long long ticks = 0;
  unsigned steps = 0;
  ticks_start();
  MODEL_RESET(&state);
  while (fread(in, sizeof in, 1, frames) == 1) {
    const uint32_t before = ticks_now();
    MODEL_STEP(&state, in, out);
    ticks += ticks_since(before);
    steps++;
    fwrite(out, sizeof out, 1, outputs);
  }
  fclose(outputs);
  printf("steps %u ticks %llu isa %s\n", steps, ticks, EDGETK_ISA);
  return 0;
}
