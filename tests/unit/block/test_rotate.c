/* SPDX-License-Identifier: Apache-2.0 */
/* Hadamard matrices in exact integers, rotations against their definition, panels against plain loops. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "block/model/rotate.h"

/* H H^T = n I of an integer matrix. */
static void check_orthogonal(const int *h, int n) {
    for (int i = 0; i < n; i++) {
        for (int k = 0; k <= i; k++) {
            long sum = 0;
            for (int j = 0; j < n; j++) sum += (long)h[i * n + j] * h[k * n + j];
            if (sum != (i == k ? n : 0))
                fail_msg("size %d: rows %d and %d have the product %ld", n, i, k, sum);
        }
    }
}

static int *factor_of(int order) {
    int8_t m[BQ_HADAMARD_ORDER * BQ_HADAMARD_ORDER];
    int *h = malloc((size_t)(order * order) * sizeof *h);
    bq_hadamard_factor(order, m);
    for (int i = 0; i < order * order; i++) {
        h[i] = m[i];
        assert_true(h[i] == 1 || h[i] == -1);
    }
    return h;
}

static void factors(void **state) {
    (void)state;
    static const int one[] = {12, 20, 44, 60, 68, 72, 80, 84, 108, 132, 140, 152, 180, 0};
    static const int two[] = {28, 36, 76, 124, 148, 196, 0};
    for (int k = 0; k < 2; k++) {
        for (const int *order = k ? two : one; *order; order++) {
            int *h = factor_of(*order), odd = 0;
            check_orthogonal(h, *order);
            for (int i = 0; i < *order; i++)
                for (int j = 0; j < i; j++) odd += h[i * *order + j] != h[j * *order + i];
            assert_int_equal(odd == 0, k); /* Paley's second construction is symmetric */
            free(h);
        }
    }
    for (int order = 1; order <= BQ_HADAMARD_ORDER; order++) {
        if (!bq_hadamard_has(order)) continue;
        int *h = factor_of(order);
        check_orthogonal(h, order);
        free(h);
    }
    static const int none[] = {1, 2, 6, 40, 92, 116, 156, 172, 188};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) assert_false(bq_hadamard_has(none[i]));
}

/* The rows of R, by rotating unit vectors: the caller's. */
static double *matrix_of(const bq_rotation *r) {
    int64_t n = r->n;
    double *m = malloc((size_t)(n * n) * sizeof *m), *x = malloc((size_t)n * BQ_ROTATE_LANES * sizeof *x);
    for (int64_t i = 0; i < n; i += BQ_ROTATE_LANES) {
        memset(x, 0, (size_t)n * BQ_ROTATE_LANES * sizeof *x);
        for (int64_t l = 0; l < BQ_ROTATE_LANES && i + l < n; l++) x[(i + l) * BQ_ROTATE_LANES + l] = 1;
        bq_rotation_apply(r, x);
        for (int64_t l = 0; l < BQ_ROTATE_LANES && i + l < n; l++)
            for (int64_t j = 0; j < n; j++) m[(i + l) * n + j] = x[j * BQ_ROTATE_LANES + l];
    }
    free(x);
    return m;
}

static double *make(bq_rotation *r, bq_rotate_kind kind, int64_t n, int64_t block, uint64_t seed) {
    double *memory = malloc(bq_rotation_need(kind, n, block) * sizeof *memory + 1);
    bq_rotation_make(r, kind, n, block, (bq_rng_key){.seed = seed}, memory);
    return memory;
}

/* Entry (i, j) as the Kronecker product says. */
static int entry(const bq_hadamard *h, int64_t i, int64_t j) {
    int sign = __builtin_parityl((unsigned long)(i % h->power & j % h->power)) ? -1 : 1;
    i /= h->power, j /= h->power;
    for (int f = h->factors - 1; f >= 0; f--) {
        int8_t m[BQ_HADAMARD_ORDER * BQ_HADAMARD_ORDER];
        int order = h->order[f];
        bq_hadamard_factor(order, m);
        sign *= m[i % order * order + j % order];
        i /= order, j /= order;
    }
    return sign;
}

static void check_size(int n) {
    bq_rotation r;
    double *memory = make(&r, BQ_ROTATE_HADAMARD, n, 0, 0), *m = matrix_of(&r);
    int *h = malloc((size_t)(n * n) * sizeof *h);
    for (int i = 0; i < n * n; i++) {
        double x = m[i] * sqrt(n);
        h[i] = (int)lrint(x);
        assert_true(fabs(x - h[i]) < 1e-12 && (h[i] == 1 || h[i] == -1));
    }
    check_orthogonal(h, n);
    for (int i = 0; i < n; i += n / 3 + 1)
        for (int j = 0; j < n; j += n / 5 + 1) assert_int_equal(h[i * n + j], entry(&r.h, i, j));
    free(h);
    free(m);
    free(memory);
}

static void sizes(void **state) {
    (void)state;
    int known = 0;
    for (int n = 1; n <= 320; n++) {
        bq_hadamard h;
        if (!bq_hadamard_of(n, &h)) continue;
        check_size(n);
        known++;
    }
    assert_true(known > 40);
    static const int models[] = {576, 896, 960, 1024};
    for (int i = 0; i < 4; i++) check_size(models[i]);
}

/* Sizes of real models and the factors they have. */
static void tables(void **state) {
    (void)state;
    static const struct {
        int64_t n;
        int order[2];
        int64_t power;
    } row[] = {{96, {12}, 8},      {576, {36}, 16},     {896, {28}, 32},       {960, {60}, 16},
               {1536, {12}, 128},  {2560, {20}, 128},   {3072, {12}, 256},     {3584, {28}, 128},
               {4864, {76}, 64},   {8960, {140}, 64},   {9728, {76}, 128},     {12288, {12}, 1024},
               {14336, {28}, 512}, {18944, {148}, 128}, {25600, {20, 20}, 64}, {1024, {0}, 1024},
               {8192, {0}, 8192},  {128, {0}, 128},     {40, {20}, 2},         {48, {12}, 4}};
    bq_hadamard h;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        assert_true(bq_hadamard_of(row[i].n, &h));
        assert_int_equal(h.power, row[i].power);
        assert_int_equal(h.factors, (row[i].order[0] > 0) + (row[i].order[1] > 0));
        int64_t product = h.power;
        for (int f = 0; f < h.factors; f++) {
            assert_int_equal(h.order[f], row[i].order[f]);
            product *= h.order[f];
        }
        assert_int_equal(product, row[i].n);
    }
    static const int64_t none[] = {0, 3, 6, 50, 172, 11008};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) assert_false(bq_hadamard_of(none[i], &h));
}

static void check_rotation(bq_rotate_kind kind, int n, int block) {
    bq_rotation r;
    double *memory = make(&r, kind, n, block, 5), *m = matrix_of(&r);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k <= i; k++) {
            double sum = 0;
            for (int j = 0; j < n; j++) sum += m[i * n + j] * m[k * n + j];
            if (!(fabs(sum - (i == k)) < 1e-13)) fail_msg("kind %d of %d: %g", kind, n, sum - (i == k));
        }
    }
    free(m);
    free(memory);
}

static void kinds(void **state) {
    (void)state;
    static const int size[] = {1, 2, 12, 40, 96};
    for (int i = 0; i < 5; i++) {
        check_rotation(BQ_ROTATE_HADAMARD, size[i], 0);
        check_rotation(BQ_ROTATE_RANDOMIZED, size[i], 0);
        check_rotation(BQ_ROTATE_ORTHOGONAL, size[i], 0);
    }
    check_rotation(BQ_ROTATE_ORTHOGONAL, 53, 0);
    check_rotation(BQ_ROTATE_BLOCK, 72, 12);
    check_rotation(BQ_ROTATE_BLOCK, 56, 8);
    assert_false(bq_rotation_exists(BQ_ROTATE_BLOCK, 56, 16));
    assert_false(bq_rotation_exists(BQ_ROTATE_BLOCK, 56, 0));
    assert_false(bq_rotation_exists(BQ_ROTATE_BLOCK, 56, 7));
    assert_false(bq_rotation_exists(BQ_ROTATE_HADAMARD, 53, 0));
    assert_true(bq_rotation_exists(BQ_ROTATE_ORTHOGONAL, 53, 0));
}

/* What each kind is besides orthogonal: signs on the rows, zeros off the blocks, seeds that matter, and an
 * orthogonal matrix whose entries have the mean and variance of a uniform one. */
static void what_kinds_are(void **state) {
    (void)state;
    enum { N = 48 };
    bq_rotation plain, random, other, block, uniform;
    double *keep[] = {make(&plain, BQ_ROTATE_HADAMARD, N, 0, 1), make(&random, BQ_ROTATE_RANDOMIZED, N, 0, 1),
                      make(&other, BQ_ROTATE_RANDOMIZED, N, 0, 2), make(&block, BQ_ROTATE_BLOCK, N, 4, 0),
                      make(&uniform, BQ_ROTATE_ORTHOGONAL, N, 0, 1)};
    double *h = matrix_of(&plain), *m = matrix_of(&random), *o = matrix_of(&other), *b = matrix_of(&block),
           *u = matrix_of(&uniform);
    int turned = 0, differ = 0;
    double sum = 0, trace = 0;
    for (int i = 0; i < N; i++) {
        double sign = m[i * N] / h[i * N];
        turned += sign < 0, differ += m[i * N] != o[i * N], trace += u[i * N + i];
        for (int j = 0; j < N; j++) {
            assert_true(m[i * N + j] == sign * h[i * N + j]);
            assert_true((fabs(b[i * N + j]) == 0.5) == (i / 4 == j / 4));
            sum += u[i * N + j];
        }
    }
    assert_true(turned > 8 && turned < 40 && differ > 8 && differ < 40);
    assert_true(fabs(trace) < 5 && fabs(sum) < 5 * sqrt(N));
    double *mats[] = {h, m, o, b, u};
    for (int i = 0; i < 5; i++) free(mats[i]), free(keep[i]);
}

/* R1^T diag(gamma) W R2 by plain loops, with odd strides, and the same bits whichever panel a column is in.
 */
static void panels(void **state) {
    (void)state;
    enum { N = 20, M = 12, LD = 23 };
    bq_rotation r1, r2;
    double *keep1 = make(&r1, BQ_ROTATE_RANDOMIZED, N, 0, 3), *keep2 = make(&r2, BQ_ROTATE_HADAMARD, M, 0, 0);
    double *a = matrix_of(&r1), *b = matrix_of(&r2), *room = malloc(bq_rotate_room(N) * sizeof *room);
    float w[M * LD], was[M * LD], parts[M * LD], gamma[N];
    for (int i = 0; i < M * LD; i++) parts[i] = was[i] = w[i] = (float)sin(1.3 * i);
    for (int i = 0; i < N; i++) gamma[i] = (float)(1 + 0.1 * i);
    bq_rotate_panel((bq_panel){w, N, M, 1, LD}, gamma, &r1, &r2, room);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < M; j++) {
            double want = 0;
            for (int k = 0; k < N; k++)
                for (int l = 0; l < M; l++)
                    want += a[k * N + i] * (double)gamma[k] * (double)was[l * LD + k] * b[l * M + j];
            assert_true(fabs((double)w[j * LD + i] - want) < 1e-6);
        }
    }
    for (int j = 0; j < M; j++)
        for (int i = N; i < LD; i++) assert_true(w[j * LD + i] == was[j * LD + i]);
    memcpy(w, was, sizeof w);
    bq_rotate_panel((bq_panel){w, N, M, 1, LD}, gamma, &r1, NULL, room);
    for (int j = 0; j < M; j += 3)
        bq_rotate_panel((bq_panel){parts + j * LD, N, 3, 1, LD}, gamma, &r1, NULL, room);
    assert_memory_equal(w, parts, sizeof w);
    double *memory[] = {keep1, keep2, a, b, room};
    for (int i = 0; i < 5; i++) free(memory[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors), cmocka_unit_test(sizes),          cmocka_unit_test(tables),
        cmocka_unit_test(kinds),   cmocka_unit_test(what_kinds_are), cmocka_unit_test(panels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
