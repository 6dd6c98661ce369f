/* Look-up sums with AVX-512 VNNI: lookup_avx512.c with products of four tables at once. */
#define EDGETK_VNNI
#include "lookup_avx512.c"
