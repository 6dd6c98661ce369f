/* What all kernels of the library share: visible names, results, and the instruction sets of this processor. */
#ifndef EDGETK_ISA_H
#define EDGETK_ISA_H

#if defined(__GNUC__)
#define EDGETK_PUBLIC __attribute__((visibility("default")))
#else
#define EDGETK_PUBLIC
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { EDGETK_OK = 0, EDGETK_NO_MEMORY = 1, EDGETK_NO_SUCH_ISA = 2 };

/* The instruction sets that this processor has, best first, with spaces between. */
EDGETK_PUBLIC const char *edgetk_isas(void);

/* Whether it has "avx512" (F and BW), "avx2", "neon" or "portable", which is plain C. */
int edgetk_has(const char *isa);

#ifdef __cplusplus
}
#endif
#endif
