/* Times the steps of a library of generated C, one by one: c_time LIBRARY ISA STEPS READ_BYTES, inputs are seeded noise.
 *
 * Prints the instruction set, percentiles of a step in microseconds, and how long it takes to read READ_BYTES of memory from
 * beginning to end, again and again, as weights are: no step that needs them all can be faster than that.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FRAMES 64
#define LARGEST 4096

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int order(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double at(const double *sorted, long n, double share) { return sorted[(long)(share * (double)(n - 1))]; }

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  void *library = dlopen(argv[1], RTLD_NOW);
  if (library == NULL) return 3;
  int (*use)(const char *) = (int (*)(const char *))dlsym(library, "edgetk_c_use");
  const char *(*isa)(void) = (const char *(*)(void))dlsym(library, "edgetk_c_isa");
  void (*reset)(void *) = (void (*)(void *))dlsym(library, "edgetk_c_reset");
  void (*step)(void *, const float *const *, float *const *) =
      (void (*)(void *, const float *const *, float *const *))dlsym(library, "edgetk_c_step");
  if (use(strcmp(argv[2], "best") ? argv[2] : NULL)) return 4;
  const long steps = atol(argv[3]), bytes = atol(argv[4]);
  static float frames[FRAMES][LARGEST], scores[LARGEST];
  static uint64_t state[1 << 16];
  uint32_t seed = 1;
  for (int i = 0; i < FRAMES; i++)
    for (int j = 0; j < LARGEST; j++) {
      seed = seed * 1664525u + 1013904223u;
      frames[i][j] = (float)(int32_t)seed * 4.0e-10f;
    }
  double *times = calloc((size_t)steps + 1, sizeof *times), *reading = calloc((size_t)steps + 1, sizeof *reading);
  unsigned char *memory = malloc((size_t)bytes + 64);
  memset(memory, 1, (size_t)bytes + 64);
  reset(state);
  for (long i = 0; i < steps; i++) {
    const float *in[1] = {frames[i % FRAMES]};
    float *out[1] = {scores};
    const double start = now();
    step(state, in, out);
    times[i] = now() - start;
  }
  volatile uint64_t total = 0;
  for (long i = 0; bytes && i < steps; i++) {
    const double start = now();
    uint64_t sums[8] = {0};
    for (long j = 0; j + 64 <= bytes; j += 64)
      for (int k = 0; k < 8; k++) {
        uint64_t word;
        memcpy(&word, memory + j + 8 * k, 8);
        sums[k] += word;
      }
    for (int k = 0; k < 8; k++) total += sums[k];
    reading[i] = now() - start;
  }
  qsort(times, (size_t)steps, sizeof *times, order);
  qsort(reading, (size_t)steps, sizeof *reading, order);
  printf("{\"isa\": \"%s\", \"n\": %ld, \"p10_us\": %.2f, \"median_us\": %.2f, \"p90_us\": %.2f, \"read_p10_us\": %.2f, \"read_median_us\": %.2f}\n",
         isa(), steps, at(times, steps, 0.1), at(times, steps, 0.5), at(times, steps, 0.9), at(reading, steps, 0.1), at(reading, steps, 0.5));
  return 0;
}
