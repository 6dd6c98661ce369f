/* Runs a generated step over frames.bin and writes outputs.bin; prints the steps and SysTick's ticks inside them.
 *
 * With TICKS and qemu -icount shift=0 an instruction takes one nanosecond, so that ticks tell instructions exactly.
 */
#include <stdint.h>
#include <stdio.h>

#include MODEL_HEADER
#include "edgetk_kernels.h"

#if TICKS
#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)
#endif

static MODEL_STATE state;
static float in[MODEL_INPUTS], out[MODEL_OUTPUTS];

int main(void) {
  FILE *frames = fopen("frames.bin", "rb"), *outputs = fopen("outputs.bin", "wb");
  if (!frames || !outputs) return 2;
#if TICKS
  SYST_RVR = 0xffffff;
  SYST_CVR = 0;
  SYST_CSR = 5;
  (void)SYST_CVR; /* the first reading after a start is 0 */
#endif
  unsigned long long ticks = 0;
  unsigned steps = 0;
  MODEL_RESET(&state);
  while (fread(in, sizeof in, 1, frames) == 1) {
#if TICKS
    const uint32_t before = SYST_CVR;
#endif
    MODEL_STEP(&state, in, out);
#if TICKS
    ticks += (before - SYST_CVR) & 0xffffff;
#endif
    steps++;
    fwrite(out, sizeof out, 1, outputs);
  }
  fclose(outputs);
  printf("steps %u ticks %llu isa %s\n", steps, ticks, EDGETK_ISA);
  return 0;
}
