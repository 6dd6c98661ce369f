/* SysTick as a counter: with qemu -icount shift=0 an instruction takes one nanosecond of the board's time. */
#include <stdint.h>

#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)

static void ticks_start(void) {
  SYST_RVR = 0xffffff;
  SYST_CVR = 0;
  SYST_CSR = 5;
  (void)SYST_CVR; /* the first reading after a start is 0 */
}

static uint32_t ticks_now(void) { return SYST_CVR; }

static uint32_t ticks_since(uint32_t before) { return (before - SYST_CVR) & 0xffffff; }
