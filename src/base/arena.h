/* SPDX-License-Identifier: Apache-2.0 */
/* arena.h - memory that is planned: reserved once, given out in pieces, taken back as a whole.
 *
 * A push takes the next piece; a reset takes back all pieces since a mark.  Single pieces are never freed.
 * Pieces start at multiples of 256 bytes and are followed by a gap of 256 bytes.  Under AddressSanitizer the
 * gap and all unused memory are poisoned, so a view that is stale or too long traps.  Sizes are the same with
 * and without it, so one plan holds for both. */
#ifndef BQ_ARENA_H
#define BQ_ARENA_H

#include "base/mat.h"

typedef struct {
    char *base;
    size_t size, used, peak;
    bq_place place;
    bool owns; /* close frees base */
} bq_arena;

#define BQ_ARENA_ALIGN ((size_t)256)

/* Bytes that one push takes: the matrix rounded up to 256 bytes, plus the gap of 256. */
size_t bq_arena_need(int64_t rows, int64_t cols, bq_type type);

/* Reserve size bytes of host memory (BQ_HOST); ends the job when the system has none. */
void bq_arena_open(bq_arena *arena, size_t size);
/* The same on memory of the caller, which starts at a multiple of 256 bytes.  Close does not free it. */
void bq_arena_adopt(bq_arena *arena, void *base, size_t size, bq_place place);
/* Free what open reserved.  A zeroed struct is fine. */
void bq_arena_close(bq_arena *arena);

/* A new matrix, contiguous, contents undefined.  Ends the job when there is not enough room: then the plan is
 * wrong, which is a bug. */
bq_mat bq_arena_push(bq_arena *arena, int64_t rows, int64_t cols, bq_type type);

/* A mark is how much is in use now.  Reset takes back everything that was pushed after the mark. */
size_t bq_arena_mark(const bq_arena *arena);
void bq_arena_reset(bq_arena *arena, size_t mark);

#endif
