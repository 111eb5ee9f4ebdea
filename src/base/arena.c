/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include "base/die.h"

#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

static size_t round_up(size_t n) { return (n + BQ_ARENA_ALIGN - 1) / BQ_ARENA_ALIGN * BQ_ARENA_ALIGN; }

size_t bq_arena_need(int64_t rows, int64_t cols, bq_type type) {
    return round_up((size_t)(rows * cols) * bq_type_size(type)) + BQ_ARENA_ALIGN;
}

void bq_arena_open(bq_arena *arena, size_t size) {
    *arena = (bq_arena){.place = BQ_HOST};
    if (size == 0) return;
    size = round_up(size);
    void *p = bq_fault("arena_open") ? NULL : aligned_alloc(BQ_ARENA_ALIGN, size);
    BQ_CHECK(p, "no memory for an arena of %zu bytes", size);
    if (size >= (4u << 20))
        madvise(p, size, MADV_HUGEPAGE); /* the kernel may refuse: this changes speed only, never results */
    bq_arena_adopt(arena, p, size, BQ_HOST);
    arena->owns = true;
}

void bq_arena_adopt(bq_arena *arena, void *base, size_t size, bq_place place) {
    *arena = (bq_arena){.base = base, .size = size, .place = place};
    if (base) ASAN_POISON_MEMORY_REGION(base, size);
}

void bq_arena_close(bq_arena *arena) {
    if (arena->base) ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->size);
    if (arena->owns) free(arena->base);
    *arena = (bq_arena){0};
}

bq_mat bq_arena_push(bq_arena *arena, int64_t rows, int64_t cols, bq_type type) {
    size_t need = bq_arena_need(rows, cols, type);
    BQ_CHECK(rows >= 0 && cols >= 0 && need <= arena->size - arena->used,
             "arena of %zu bytes, %zu in use, cannot hold %ld x %ld %s: the plan is wrong", arena->size,
             arena->used, (long)rows, (long)cols, bq_type_name(type));
    bq_mat m = {arena->base + arena->used, rows, cols, cols, type, arena->place};
    ASAN_UNPOISON_MEMORY_REGION(m.data, (size_t)(rows * cols) * bq_type_size(type));
    arena->used += need;
    if (arena->used > arena->peak) arena->peak = arena->used;
    return m;
}

size_t bq_arena_mark(const bq_arena *arena) { return arena->used; }

void bq_arena_reset(bq_arena *arena, size_t mark) {
    BQ_CHECK(mark <= arena->used, "arena reset to %zu with %zu in use", mark, arena->used);
    if (arena->base && arena->place == BQ_HOST) /* memory of a device is not poisoned: a kernel may still
                                                   read what was taken back */
        ASAN_POISON_MEMORY_REGION(arena->base + mark, arena->used - mark);
    arena->used = mark;
}
