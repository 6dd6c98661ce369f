/* Binary attention in plain C99, for every other processor: four floats in a structure. */
#include <stdint.h>
#include <string.h>

typedef struct {
  float lane[4];
} four;

#define NAME(f) f##_portable
#define TARGET
#define LANES 4
#define vec four
#define ZERO() splat(0.0f)
#define SPLAT(x) splat(x)
#define LOAD(p) load_part(p, LANES)
#define STORE(p, v) store_part(p, v, LANES)
#define LOAD_PART(p, n) load_part(p, n)
#define STORE_PART(p, v, n) store_part(p, v, n)
#define ADD add
#define SUB subtract
#define MUL multiply
#define EQUAL(a, b) equal(a, b)
#define GREATER(a, b) greater(a, b)
#define tally int32_t
#define NOTHING() 0
#define COUNT_GREATER(t, a, b) ((t) + above_lanes(a, b))
#define TOTAL(t) (t)

static inline four splat(float x) {
  const four v = {{x, x, x, x}};
  return v;
}

static inline four load_part(const float *p, int n) {
  four v = {{0.0f, 0.0f, 0.0f, 0.0f}};
  memcpy(v.lane, p, (size_t)n * sizeof(float));
  return v;
}

static inline void store_part(float *p, four v, int n) {
  memcpy(p, v.lane, (size_t)n * sizeof(float));
}

static inline four add(four a, four b) {
  for (int i = 0; i < LANES; ++i) a.lane[i] += b.lane[i];
  return a;
}

static inline four subtract(four a, four b) {
  for (int i = 0; i < LANES; ++i) a.lane[i] -= b.lane[i];
  return a;
}

static inline four multiply(four a, four b) {
  for (int i = 0; i < LANES; ++i) a.lane[i] *= b.lane[i];
  return a;
}

static inline uint32_t equal(four a, four b) {
  uint32_t bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= (uint32_t)(a.lane[i] == b.lane[i]) << i;
  return bits;
}

static inline uint32_t greater(four a, four b) {
  uint32_t bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= (uint32_t)(a.lane[i] > b.lane[i]) << i;
  return bits;
}

static inline int32_t above_lanes(four a, four b) {
  int32_t count = 0;
  for (int i = 0; i < LANES; ++i) count += a.lane[i] > b.lane[i];
  return count;
}

#include "head_kernel.h"
#include "sparse_kernel.h"
#include "top_kernel.h"
