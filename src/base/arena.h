/* arena.h - planned memory: sized once, pushed, reset, never freed piece by piece.
 *
 * Pushes are aligned to 256 bytes.  Under AddressSanitizer unused space is poisoned and a red zone follows
 * each push, so stale and overrunning views trap; sizes stay the same as without it, so a plan holds in both.
 */
#ifndef BQ_ARENA_H
#define BQ_ARENA_H

#include "base/mat.h"

typedef struct {
    char *base;
    size_t size, used, peak;
    bq_place place;
    bool owns; /* close frees it */
} bq_arena;

#define BQ_ARENA_ALIGN ((size_t)256)

/* What one push of that shape takes: bytes rounded up, plus the red zone of one alignment unit. */
size_t bq_arena_need(int64_t rows, int64_t cols, bq_type type);

/* Reserve size bytes of host memory (BQ_HOST); dies when the system has none.  Close takes a zeroed struct.
 */
void bq_arena_open(bq_arena *arena, size_t size);
/* The same on memory that the caller owns, aligned to 256 bytes: close gives it back untouched. */
void bq_arena_adopt(bq_arena *arena, void *base, size_t size, bq_place place);
void bq_arena_close(bq_arena *arena);

/* A fresh view, contents undefined; dies when the plan was too small (a bug in the plan). */
bq_mat bq_arena_push(bq_arena *arena, int64_t rows, int64_t cols, bq_type type);

/* Everything pushed after a mark is given back by reset. */
size_t bq_arena_mark(const bq_arena *arena);
void bq_arena_reset(bq_arena *arena, size_t mark);

#endif
