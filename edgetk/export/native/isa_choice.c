/* Which instruction sets this processor has. */
#include <string.h>

#include "isa.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

int edgetk_has(const char *isa) {
#if defined(__x86_64__)
  if (!strcmp(isa, "avx512")) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  if (!strcmp(isa, "avx2")) return __builtin_cpu_supports("avx2");
#elif defined(__aarch64__) && defined(__linux__)
  if (!strcmp(isa, "neon")) return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0;
#elif defined(__aarch64__)
  if (!strcmp(isa, "neon")) return 1;
#endif
  return !strcmp(isa, "portable");
}

const char *edgetk_isas(void) {
  if (edgetk_has("avx512")) return "avx512 avx2 portable";
  if (edgetk_has("avx2")) return "avx2 portable";
  return edgetk_has("neon") ? "neon portable" : "portable";
}
