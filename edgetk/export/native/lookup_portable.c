/* Look-up sums in plain C99, for every other processor: four columns in a structure. */
#include <stdint.h>
#include <string.h>

typedef struct {
  int32_t lane[4];
} four;

#define NAME(f) f##_portable
#define TARGET
#define LANES 4
#define vec four
#define ZERO() splat(0)
#define LOAD(p) load(p)
#define STORE(p, v) memcpy(p, (v).lane, sizeof(four))
#define ROW(p) row_of(p)
#define CODE(w) splat(w)
#define MADD(sum, row, code) madd(sum, row, code)
#define SIGNS(p) signs_of(p)

static inline four splat(int32_t x) {
  const four v = {{x, x, x, x}};
  return v;
}

static inline four load(const int32_t *p) {
  four v;
  memcpy(v.lane, p, sizeof v);
  return v;
}

static inline four row_of(const int8_t *p) {
  const four v = {{p[0], p[1], p[2], p[3]}};
  return v;
}

static inline four madd(four sum, four row, four code) {
  for (int i = 0; i < LANES; ++i) sum.lane[i] += row.lane[i] * code.lane[i];
  return sum;
}

static inline uint32_t signs_of(const float *p) {
  uint32_t bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= (uint32_t)(p[i] >= 0.0f) << i;
  return bits;
}

#include "lookup_kernel.h"
