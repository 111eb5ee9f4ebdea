/* SPDX-License-Identifier: Apache-2.0 */
/* Products by blocks of a, b and k.  Some hundred k of ROWS rows of a and of COLS rows of b are packed into
 * tiles (16 rows x 32 k of bf16), a job that the threads share.  Then each pair of panels of a meets each
 * pair of panels of b, which makes 32 x 32 elements of c: in four tile registers or, eight rows at a time, in
 * sixteen vectors.  The panels of a stay while those of b change, so c is gone through along its rows; down
 * its columns each tile would be on other pages of memory. */
#include "kernels/cpu/product.h"

#include "base/die.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/pieces.h"
#include "kernels/cpu/product_pack.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROWS  1024
#define COLS  2048
#define TEAM  (1 << 22) /* products with fewer multiplications do not pay for a team of threads */
#define CHUNK 512       /* rows of b whose tiles stay in the second-level cache, for all rows of a */

/* ---- what the processor has ---- */

static bool tiles(unsigned leaf7) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return (leaf7 >> 24 & 1) && (leaf7 >> 22 & 1) &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static bq_product_unit ask(void) {
    unsigned a, b, c, d, more;
    if (getenv("BQ_CPU_ISA") || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return BQ_PRODUCT_NONE;
    if (!__get_cpuid_count(7, 1, &more, &a, &b, &c) || !(more >> 5 & 1)) return BQ_PRODUCT_NONE;
    if (!__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512bw")) return BQ_PRODUCT_NONE;
    return tiles(d) ? BQ_PRODUCT_TILES : BQ_PRODUCT_VECTORS;
}

bq_product_unit bq_products(void) {
    static int known; /* 1 + the answer; 0: not asked yet */
    if (!known) known = 1 + (int)ask();
    return (bq_product_unit)(known - 1);
}

bq_product_kind bq_product_of(bq_compute compute) {
    if (compute == BQ_COMPUTE_BF16)
        return bq_products() == BQ_PRODUCT_NONE ? BQ_PRODUCT_BLAS : BQ_PRODUCT_BF16;
    if (bq_products() == BQ_PRODUCT_NONE) return BQ_PRODUCT_BLAS;
    if (bq_products() == BQ_PRODUCT_VECTORS) return BQ_PRODUCT_F32;
    return compute == BQ_COMPUTE_BF16X3 ? BQ_PRODUCT_BF16X3 : BQ_PRODUCT_BF16X6;
}

bq_product_kind bq_product_of_codes(bq_compute compute) {
    bool tiles = bq_products() == BQ_PRODUCT_TILES;
    return tiles && compute == BQ_COMPUTE_FP16X2 ? BQ_PRODUCT_CODES : BQ_PRODUCT_BLAS;
}

static void configure(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } all = {.palette = 1};
    for (int i = 0; i < 8; i++) all.bytes[i] = 64, all.rows[i] = LANES;
    _tile_loadconfig(&all);
}

/* ---- 32 x 32 elements ---- */

#define PAIR(r, s, at, apart)                                                                                \
    do {                                                                                                     \
        _tile_loadd(r, at, 64);                                                                              \
        _tile_loadd(s, (at) + (apart), 64);                                                                  \
    } while (0)
#define LOAD_A(t) PAIR(4, 5, a + (t)*TILE, steps * of_a)
#define LOAD_B(t) PAIR(6, 7, b + (t)*TILE, steps * of_b)
#define MULTIPLY()                                                                                           \
    do {                                                                                                     \
        _tile_dpbf16ps(0, 4, 6);                                                                             \
        _tile_dpbf16ps(1, 4, 7);                                                                             \
        _tile_dpbf16ps(2, 5, 6);                                                                             \
        _tile_dpbf16ps(3, 5, 7);                                                                             \
    } while (0)

/* Fetch elements of c to the right, which are next: this step's share of the rows. */
INLINE void fetch_next(int64_t step, int64_t steps, const float *c, int64_t ldc) {
    for (int64_t r = step * 32 / steps; r < (step + 1) * 32 / steps; r++) {
        __builtin_prefetch(c + r * ldc + 32, 1);
        __builtin_prefetch(c + r * ldc + 48, 1);
    }
}

/* a, b: pairs of panels, one panel after the other.  Adds to c, or with `zero` overwrites it. */
INLINE void product(bq_product_kind kind, int64_t steps, const char *a, const char *b, bool zero, float *c,
                    int64_t ldc) {
    const int64_t of_a = bq_product_terms(kind, false) * TILE, of_b = bq_product_terms(kind, true) * TILE,
                  stride = ldc * 4; /* of_a, of_b: bytes of a step */
    if (zero) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, c, stride);
        _tile_loadd(1, c + 16, stride);
        _tile_loadd(2, c + 16 * ldc, stride);
        _tile_loadd(3, c + 16 * ldc + 16, stride);
    }
    for (int64_t s = 0; s < steps; s++, a += of_a, b += of_b) {
        fetch_next(s, steps, c, ldc);
        if (kind == BQ_PRODUCT_CODES) { /* the smallest products are added first */
            LOAD_B(0);
            LOAD_A(2);
            MULTIPLY();
            LOAD_A(1);
            MULTIPLY();
            LOAD_A(0);
            MULTIPLY();
            continue;
        }
        LOAD_A(0);
        if (kind == BQ_PRODUCT_BF16X6) {
            LOAD_B(2);
            MULTIPLY();
        }
        if (kind != BQ_PRODUCT_BF16) {
            LOAD_B(1);
            MULTIPLY();
        }
        if (kind == BQ_PRODUCT_BF16X6) {
            LOAD_A(1);
            MULTIPLY();
        }
        LOAD_B(0);
        MULTIPLY();
        if (kind == BQ_PRODUCT_BF16X3) {
            LOAD_A(1);
            MULTIPLY();
        }
        if (kind == BQ_PRODUCT_BF16X6) {
            LOAD_A(2);
            MULTIPLY();
            LOAD_A(0);
            MULTIPLY();
        }
    }
    _tile_stored(0, c, stride);
    _tile_stored(1, c + 16, stride);
    _tile_stored(2, c + 16 * ldc, stride);
    _tile_stored(3, c + 16 * ldc + 16, stride);
}

/* The same in vectors, for floats or for one bf16 for each float: 8 x 32 elements in 16 vectors at a time. */
INLINE void vectors(bool floats, int64_t steps, const char *a, const char *b, bool zero, float *c,
                    int64_t ldc) {
    enum { DOWN = 8 };
    int64_t skip = steps * TILE;
    for (int64_t r = 0; r < 32; r += DOWN) {
        const char *row = a + r / LANES * skip + r % LANES * 64;
        float *to = c + r * ldc;
        __m512 sum[DOWN][2];
#pragma GCC unroll 8
        for (int i = 0; i < DOWN; i++)
            for (int h = 0; h < 2; h++)
                sum[i][h] = zero ? _mm512_setzero_ps() : _mm512_loadu_ps(to + i * ldc + 16 * h);
        for (int64_t s = 0; s < steps; s++) {
#pragma GCC unroll 16
            for (int64_t at = s * TILE; at < (s + 1) * TILE; at += 64) {
                __m512 left = _mm512_load_ps(b + at), right = _mm512_load_ps(b + skip + at);
                const char *pair = row + s * TILE + (at - s * TILE) / LANES;
#pragma GCC unroll 8
                for (int i = 0; i < DOWN; i++) {
                    __m512 x = _mm512_castsi512_ps(_mm512_set1_epi32(*(const int *)(pair + 64 * i)));
                    if (floats) {
                        sum[i][0] = _mm512_fmadd_ps(x, left, sum[i][0]);
                        sum[i][1] = _mm512_fmadd_ps(x, right, sum[i][1]);
                    } else {
                        sum[i][0] = _mm512_dpbf16_ps(sum[i][0], (__m512bh)x, (__m512bh)left);
                        sum[i][1] = _mm512_dpbf16_ps(sum[i][1], (__m512bh)x, (__m512bh)right);
                    }
                }
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < DOWN; i++)
            for (int h = 0; h < 2; h++) _mm512_storeu_ps(to + i * ldc + 16 * h, sum[i][h]);
    }
}

typedef struct {
    char *room;
    int64_t k, depth, steps;         /* of this block: its first k, how many, and how many steps they are */
    int64_t row, rows, col, columns; /* of this block in c: rows from `row`, columns from `col` */
    bool upper, last;                /* only c's upper triangle; this is the last block of k */
} block;

static void elements(bq_product_kind kind, block w, int64_t i, int64_t j, const char *a, const char *b,
                     bool zero, float *c, int64_t ldc) {
    float edge[32 * 32] __attribute__((aligned(64)));
    int64_t rows = w.rows - i < 32 ? w.rows - i : 32, cols = w.columns - j < 32 ? w.columns - j : 32;
    bool whole = rows == 32 && cols == 32;
    float *at = whole ? c : edge;
    if (!whole && !zero) {
        memset(edge, 0, sizeof edge);
        for (int64_t r = 0; r < rows; r++) memcpy(edge + 32 * r, c + r * ldc, (size_t)cols * 4);
    }
    int64_t ld = whole ? ldc : 32;
    if (kind == BQ_PRODUCT_F32)
        vectors(true, w.steps, a, b, zero, at, ld);
    else if (bq_products() == BQ_PRODUCT_VECTORS)
        vectors(false, w.steps, a, b, zero, at, ld);
    else if (kind == BQ_PRODUCT_CODES)
        product(BQ_PRODUCT_CODES, w.steps, a, b, zero, at, ld);
    else if (kind == BQ_PRODUCT_BF16X6)
        product(BQ_PRODUCT_BF16X6, w.steps, a, b, zero, at, ld);
    else if (kind == BQ_PRODUCT_BF16X3)
        product(BQ_PRODUCT_BF16X3, w.steps, a, b, zero, at, ld);
    else
        product(BQ_PRODUCT_BF16, w.steps, a, b, zero, at, ld);
    for (int64_t r = 0; r < rows && !whole; r++) memcpy(c + r * ldc, edge + 32 * r, (size_t)cols * 4);
}

/* Copy the 32 x 32 elements at (i, j), those on or above the diagonal, to (j, i). */
static void mirror(int64_t n, int64_t i, int64_t j, float *c, int64_t ldc) {
    float tile[LANES][LANES] __attribute__((aligned(64)));
    for (int64_t r = i; r < i + 32 && r < n; r += LANES)
        for (int64_t q = j > r ? j : r; q < j + 32 && q < n; q += LANES) {
            for (int64_t t = 0; t < LANES && r + t < n; t++)
                _mm512_store_ps(tile[t], _mm512_maskz_loadu_ps(lanes(n - q), c + (r + t) * ldc + q));
            bq_product_transpose((char *)tile);
            for (int64_t t = 0; t < LANES && q + t < n; t++)
                _mm512_mask_storeu_ps(c + (q + t) * ldc + r, lanes(r == q ? t : n - r),
                                      _mm512_load_ps(tile[t]));
        }
}

/* ---- the loops ---- */

/* The thread's buffer, on huge pages where the system has them, since all threads read its
 * tiles again and again. */
static char *room(void) {
    enum { HUGE = 2 << 20 };
    static _Thread_local char *at;
    if (!at) {
        void *p = mmap(NULL, BQ_PRODUCT_BYTES + HUGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        BQ_CHECK(p != MAP_FAILED, "no memory for the tiles of a matrix product");
        at = (char *)(((uintptr_t)p + HUGE - 1) / HUGE * HUGE);
        madvise(at, BQ_PRODUCT_BYTES, MADV_HUGEPAGE); /* the kernel may refuse: this changes
                                                         speed only, never results */
    }
    return at;
}

/* One block.  All threads of a team call it. */
static void multiply(bq_product_kind kind, block w, float alpha, bq_product_side a, bq_product_side b,
                     bool zero, float *c, int64_t ldc) {
    int64_t panel_a = w.steps * bq_product_terms(kind, false) * TILE,
            panel_b = w.steps * bq_product_terms(kind, true) * TILE;
    int64_t pa = pieces(w.rows, 32) * 2, pb = pieces(w.columns, 32) * 2;
    char *ta = w.room, *tb = ta + pa * panel_a;
#pragma omp for schedule(static)
    for (int64_t p = 0; p < pa + pb; p++) {
        int64_t row = p < pa ? w.row + p * LANES : w.col + (p - pa) * LANES;
        bq_product_side from = p < pa ? a : b;
        char *to = p < pa ? ta + p * panel_a : tb + (p - pa) * panel_b;
        if (row < from.rows)
            bq_product_pack(from, kind, p >= pa, p < pa ? alpha : 1, row, w.k, w.depth, to);
        else
            memset(to, 0, (size_t)(p < pa ? panel_a : panel_b));
    }
    int64_t down = pa / 2, chunks = pieces(w.columns, CHUNK);
#pragma omp for schedule(dynamic)
    for (int64_t n = 0; n < chunks * down; n++) {
        int64_t i = n % down * 32, first = n / down * CHUNK, end = least(first + CHUNK, w.columns);
        if (w.upper && w.row + i > w.col + first) first = w.row + i - w.col;
        for (int64_t j = first; j < end; j += 32) {
            elements(kind, w, i, j, ta + i / LANES * panel_a, tb + j / LANES * panel_b, zero,
                     c + (w.row + i) * ldc + w.col + j, ldc);
            if (w.upper && w.last) mirror(a.rows, w.row + i, w.col + j, c, ldc);
        }
    }
}

static void scale_rows(int64_t rows, int64_t cols, float beta, float *c, int64_t ldc) {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < cols; i++) c[r * ldc + i] = beta == 0 ? 0 : c[r * ldc + i] * beta;
}

/* The most k in a block.  With few blocks c is read and written less often; a block must fit into room(). */
static int64_t deepest(bq_product_kind kind) {
    if (kind == BQ_PRODUCT_F32) return 384;
    if (kind == BQ_PRODUCT_CODES) return 576;
    return bq_products() == BQ_PRODUCT_VECTORS ? 576 : 320;
}

static void run(bq_product_kind kind, int64_t k, float alpha, bq_product_side a, bq_product_side b,
                bool upper, float beta, float *c, int64_t ldc) {
    bool floats = kind == BQ_PRODUCT_F32, vectored = floats || kind == BQ_PRODUCT_BF16;
    BQ_CHECK(bq_products() == BQ_PRODUCT_TILES || (bq_products() == BQ_PRODUCT_VECTORS && vectored),
             "this processor has no products of kind %d", (int)kind);
    int64_t step = floats ? FLOAT_STEP : STEP,
            depth = pieces(pieces(k, pieces(k, deepest(kind))), step) * step;
    char *tiles = room();
#pragma omp parallel if (a.rows * b.rows * k >= TEAM)
    {
        if (beta != 1 && (beta != 0 || k == 0)) scale_rows(a.rows, b.rows, beta, c, ldc);
        if (bq_products() == BQ_PRODUCT_TILES) configure();
        for (int64_t i = 0; i < a.rows; i += ROWS)
            for (int64_t j = upper ? i : 0; j < b.rows; j += COLS)
                for (int64_t p = 0; p < k; p += depth) {
                    block w = {.room = tiles,
                               .k = p,
                               .depth = least(depth, k - p),
                               .row = i,
                               .rows = least(ROWS, a.rows - i),
                               .col = j,
                               .columns = least(COLS, b.rows - j),
                               .upper = upper,
                               .last = p + depth >= k};
                    w.steps = pieces(w.depth, step);
                    multiply(kind, w, alpha, a, b, beta == 0 && p == 0, c, ldc);
                }
        if (bq_products() == BQ_PRODUCT_TILES) _tile_release();
    }
}

void bq_product_gemm(bq_product_kind kind, int64_t k, float alpha, bq_product_side a, bq_product_side b,
                     float beta, float *c, int64_t ldc) {
    run(kind, k, alpha, a, b, false, beta, c, ldc);
}

void bq_product_gram(bq_product_kind kind, int64_t k, bq_product_side x, float *c, int64_t ldc) {
    run(kind, k, 1, x, x, true, 0, c, ldc);
}
