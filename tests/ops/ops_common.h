/* SPDX-License-Identifier: Apache-2.0 */
/* ops_common.h - what the tests of ops share: guarded matrices, repeatable numbers, errors, devices.
 *
 * A test compares an op with a naive loop in double precision written in the test.  Matrices come from
 * make(): bytes around them and between cols and ld hold a pattern, which intact() demands back after the op.
 */
#ifndef OPS_COMMON_H
#define OPS_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/die.h"
#include "base/hash.h"
#include "base/rng.h"
#include "kernels/ops.h"

#define GUARD      64 /* bytes on each side */
#define GUARD_BYTE 0xA5

/* Sizes around vector and tile borders; the shapes of a test are drawn from here. */
static const int64_t odd_sizes[] = {1, 31, 33, 127, 129, 257};
#define ODD_SIZES ((int)(sizeof odd_sizes / sizeof *odd_sizes))
static const int64_t few_rows[] = {1, 3, 17};

/* Grids of a row: their widths and the types of their scales. */
static const int bit_widths[] = {2, 3, 4, 8};
static const bq_type scale_types[] = {BQ_F32, BQ_BF16, BQ_F16};
static inline bq_scheme grid_of(int bits, bq_type scale) {
    return (bq_scheme){bits, -1, true, scale, BQ_GRID_AIMET, 1, 0};
}

/* The numbers of an attention; what is not named is 0. */
#define HEADS(n, kv, size, by, w)                                                                            \
    { .heads = n, .kv_heads = kv, .head_dim = size, .scale = by, .window = w }

#define VALUES(n, kv, size, values, by, w)                                                                   \
    { .heads = n, .kv_heads = kv, .head_dim = size, .scale = by, .window = w, .value_dim = values }

/* rows x cols with ld = cols + pad, guarded; contents undefined. */
static inline bq_mat make(int64_t rows, int64_t cols, int64_t pad, bq_type type) {
    bq_mat m = {NULL, rows, cols, cols + pad, type, BQ_HOST};
    size_t bytes = (size_t)(rows * m.ld) * bq_type_size(type) + 2 * GUARD;
    char *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!block) abort();
    memset(block, GUARD_BYTE, (bytes + 63) / 64 * 64);
    m.data = block + GUARD;
    return m;
}

static inline void drop(bq_mat m) {
    if (m.data) free((char *)m.data - GUARD);
}

static inline bool untouched(const char *from, const char *end) {
    for (; from < end; from++)
        if (*from != (char)GUARD_BYTE) return false;
    return true;
}

/* Nothing was written outside rows x cols. */
static inline bool intact(bq_mat m) {
    const char *first = m.data, *end = bq_mat_at(m, m.rows, 0);
    if (!untouched(first - GUARD, first) || !untouched(end, end + GUARD)) return false;
    for (int64_t r = 0; r < m.rows; r++)
        if (!untouched(bq_mat_at(m, r, m.cols), bq_mat_at(m, r + 1, 0))) return false;
    return true;
}

/* f32: numbers near a normal distribution of the given deviation; a function of stream, row and column alone.
 */
static inline void fill(bq_mat m, uint32_t stream, float deviation) {
    bq_rng_key key = {.seed = 20240607, .sample = stream};
    for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.cols; c++) {
            uint32_t word[4];
            key.iteration = (uint32_t)r;
            bq_philox(key, (uint32_t)c, word);
            double sum = 0; /* four uniforms: variance 1/3 */
            for (int i = 0; i < 4; i++) sum += word[i] * 0x1p-32 - 0.5;
            *(float *)bq_mat_at(m, r, c) = (float)(sum * 1.7320508 * deviation);
        }
}

/* i32: whole numbers in [0, limit). */
static inline void fill_below(bq_mat m, uint32_t stream, int32_t limit) {
    bq_rng_key key = {.seed = 20240607, .sample = stream};
    for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.cols; c++) {
            uint32_t word[4];
            key.iteration = (uint32_t)r;
            bq_philox(key, (uint32_t)c, word);
            *(int32_t *)bq_mat_at(m, r, c) = (int32_t)(word[0] % (uint32_t)limit);
        }
}

static inline bq_mat make_filled(int64_t rows, int64_t cols, int64_t pad, uint32_t stream, float deviation) {
    bq_mat m = make(rows, cols, pad, BQ_F32);
    fill(m, stream, deviation);
    return m;
}

/* A guarded copy with the same ld. */
static inline bq_mat clone(bq_mat m) {
    bq_mat c = make(m.rows, m.cols, m.ld - m.cols, m.type);
    size_t row = (size_t)m.cols * bq_type_size(m.type);
    for (int64_t r = 0; r < m.rows; r++) memcpy(bq_mat_at(c, r, 0), bq_mat_at(m, r, 0), row);
    return c;
}

static inline float *ptr(bq_mat m, int64_t r, int64_t c) { return bq_mat_at(m, r, c); }
static inline float f32(bq_mat m, int64_t r, int64_t c) { return *(float *)bq_mat_at(m, r, c); }
static inline double at(bq_mat m, int64_t r, int64_t c) {
    return m.type == BQ_F64 ? *(double *)bq_mat_at(m, r, c) : (double)*(float *)bq_mat_at(m, r, c);
}

/* A contiguous copy in double precision (f32 source), for oracles; free() it. */
static inline double *doubles(bq_mat m) {
    double *d = malloc((size_t)(m.rows * m.cols + 1) * sizeof *d);
    if (!d) abort();
    for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.cols; c++) d[r * m.cols + c] = at(m, r, c);
    return d;
}

/* Zeroed doubles; free() them. */
static inline double *zeros(int64_t n) {
    double *d = calloc((size_t)n + 1, sizeof *d);
    if (!d) abort();
    return d;
}

/* sum (got - want)^2 / sum want^2; want is contiguous.  Infinite when got holds a NaN; 0 / 0 counts as 0. */
static inline double nmse(bq_mat got, const double *want) {
    double error = 0, power = 0;
    for (int64_t r = 0; r < got.rows; r++)
        for (int64_t c = 0; c < got.cols; c++) {
            double w = want[r * got.cols + c], e = at(got, r, c) - w;
            error += e * e, power += w * w;
        }
    if (!(error <= 0x1p1000)) return 0x1p1000 * 0x1p1000;
    return error == 0 ? 0 : error / power;
}

/* Equal bits in rows x cols. */
static inline bool same(bq_mat a, bq_mat b) {
    if (a.rows != b.rows || a.cols != b.cols || a.type != b.type) return false;
    size_t row = (size_t)a.cols * bq_type_size(a.type);
    for (int64_t r = 0; r < a.rows; r++)
        if (memcmp(bq_mat_at(a, r, 0), bq_mat_at(b, r, 0), row) != 0) return false;
    return true;
}

/* Fold the rows x cols bytes of m into a running fingerprint. */
static inline uint64_t bits_of(uint64_t so_far, bq_mat m) {
    for (int64_t r = 0; r < m.rows; r++) {
        uint64_t row = bq_hash_bytes(bq_mat_at(m, r, 0), (size_t)m.cols * bq_type_size(m.type));
        uint64_t pair[2] = {so_far, row};
        so_far = bq_hash_bytes(pair, sizeof pair);
    }
    return so_far;
}

/* Makes a cpu device run every op on the cuda backend, too, and compare (tests/simt/mirror.c).  Only programs
 * that are linked with it have this function. */
void ops_mirror(bq_dev *dev) __attribute__((weak));
/* Calls of ops from here on may be this far from the cpu's, where their class allows less (but not 0). */
void ops_allow(double nmse) __attribute__((weak));
/* On the emulator, and nobody asks for all (BQ_FULL=1). */
bool ops_quick(void) __attribute__((weak));
static inline bool few_cases(void) { return ops_quick && ops_quick(); }

/* A cpu device that uses `threads` threads from here on (OpenMP's setting is the process's). */
static inline bq_dev cpu_with(int threads, size_t mem) {
    bq_dev dev;
    if (bq_dev_open(&dev, "cpu", threads, mem) != BQ_OK) abort();
    if (ops_mirror && !getenv("BQ_TEST_BITS")) ops_mirror(&dev);
    return dev;
}

/* 1, 2, ... threads that a test tries; they are the cpu's, and on the mirror one is enough. */
#define THREAD_COUNTS (ops_mirror ? 1 : 3)

#endif
