/* Start-up of a Cortex-M under QEMU: stack, vectors, floating point and MVE on, then main with semihosting. */
#include <stdint.h>

extern uint32_t stack_top;
void initialise_monitor_handles(void);
int main(void);
void exit(int);
void _init(void) {}
void _fini(void) {}

static void hang(void) {
  for (;;) exit(3);
}

void reset(void) {
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
  __asm__ volatile("dsb\n isb");
#if defined(__ARM_FEATURE_MVE)
  __asm__ volatile("mov r0, #4\n vmsr fpscr, r0\n mov r0, #0x40000\n vmsr fpscr, r0" ::: "r0"); /* LTPSIZE 4: no tail loop */
#endif
  initialise_monitor_handles();
  exit(main());
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)&stack_top, (uintptr_t)reset, (uintptr_t)hang, (uintptr_t)hang, (uintptr_t)hang, (uintptr_t)hang, (uintptr_t)hang};
