/* Look-up sums, as the instruction sets share them: sizes of tiles, what is found for each token, their entry points. */
#ifndef EDGETK_LOOKUP_H
#define EDGETK_LOOKUP_H

#include <stdint.h>

#include "lookup_linear.h"

/* Columns that are summed up in registers, and tokens that are hashed before they are summed up. */
enum { COLUMNS = 64, TILE = 64 };

/* For a tile of tokens: which row of each table, and its weight as a whole number; then sums of COLUMNS columns. */
typedef struct {
  const int8_t **rows; /* (TILE, tables) */
  int32_t *codes;      /* (TILE, tables) */
  int32_t *sums;       /* (TILE, COLUMNS) */
  float *spread;       /* (tables * bits): 1 + exp(-2 |x| / t) of a token */
  uint8_t *signs;      /* (tables * bits / 8 + 8): one bit for a coordinate, the first one lowest */
  uint8_t *lost;       /* (TILE): 1 where a weight is no number */
} lookup_scratch;

typedef struct {
  int64_t tile;  /* tokens that go together */
  int64_t group; /* tables that go together */
} lookup_order;

typedef void (*lookup_function)(const edgetk_lookup *, float *out, const edgetk_share *, lookup_order, const lookup_scratch *);

void edgetk_lookup_portable(const edgetk_lookup *, float *, const edgetk_share *, lookup_order, const lookup_scratch *);
#if defined(__x86_64__)
void edgetk_lookup_avx2(const edgetk_lookup *, float *, const edgetk_share *, lookup_order, const lookup_scratch *);
void edgetk_lookup_vnni(const edgetk_lookup *, float *, const edgetk_share *, lookup_order, const lookup_scratch *);
void edgetk_lookup_avx512(const edgetk_lookup *, float *, const edgetk_share *, lookup_order, const lookup_scratch *);
#endif
#if defined(__aarch64__)
void edgetk_lookup_neon(const edgetk_lookup *, float *, const edgetk_share *, lookup_order, const lookup_scratch *);
#endif

#endif
