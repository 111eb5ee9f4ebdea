/* SPDX-License-Identifier: Apache-2.0 */
/* gemm against a naive loop in double: transposes, factors, odd shapes, views, tiles, threads; and the BLAS
 * itself. */
#include "ops_common.h"

#include "base/num.h"
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <threads.h>

#define LIMIT 1e-12 /* of ops.h's 1e-10: float32 with sums up to a few hundred terms leaves about 1e-14 */

typedef struct {
    int64_t m, n, k;
} shape;

static void check_one(bq_dev *dev, shape s, bool ta, bool tb, float alpha, float beta) {
    bq_mat a = make_filled(ta ? s.k : s.m, ta ? s.m : s.k, 3, 1, 1);
    bq_mat b = make_filled(tb ? s.n : s.k, tb ? s.k : s.n, 0, 2, 1);
    bq_mat c = make_filled(s.m, s.n, 5, 3, 1);
    if (beta == 0) /* 0 * anything is 0 here: old contents must not matter */
        for (int64_t i = 0; i < s.m; i++) *(float *)bq_mat_at(c, i, s.n - 1) = NAN;
    double *want = zeros(s.m * s.n), *left = doubles(a), *right = doubles(b);
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = 0; j < s.n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < s.k; p++)
                sum += left[ta ? p * s.m + i : i * s.k + p] * right[tb ? j * s.k + p : p * s.n + j];
            want[i * s.n + j] = (double)alpha * sum + (beta == 0 ? 0 : (double)beta * at(c, i, j));
        }
    dev->op->gemm(dev, ta, tb, alpha, a, b, beta, c);
    assert_true(nmse(c, want) < LIMIT);
    assert_true(intact(a) && intact(b) && intact(c));
    drop(a), drop(b), drop(c), free(want), free(left), free(right);
}

static void equals_naive(void **state) {
    (void)state;
    static const shape some[] = {
        {1, 1, 1},      {1, 257, 31}, {31, 1, 129},   {33, 129, 127}, {129, 33, 257}, {257, 127, 33},
        {129, 257, 1},  {1, 1, 257},  {97, 101, 103}, {600, 17, 40},  {7, 1100, 9},   {530, 533, 16},
        {780, 770, 12}, {5, 3, 0},    {1060, 40, 33}, {33, 2100, 20}, {65, 63, 700}};
    bq_dev dev = cpu_with(2, 0);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        for (int t = 0; t < 4; t++) {
            check_one(&dev, some[i], t & 1, t & 2, 1, 0);
            check_one(&dev, some[i], t & 1, t & 2, -0.5f, 1);
            check_one(&dev, some[i], t & 1, t & 2, 2, 0.25f);
            dev.compute = BQ_COMPUTE_FP16X2; /* to the cpu the same as F32, but for codes */
            if ((i + (size_t)t) % 4 == 0) check_one(&dev, some[i], t & 1, t & 2, 2, i % 2 ? 0.25f : 0);
            dev.compute = BQ_COMPUTE_F32;
        }
    bq_dev_close(&dev);
}

/* b, with its numbers rounded to codes, and the same as f16 or bf16. */
static bq_mat codes_of(bq_mat b, bq_type type) {
    bq_mat codes = make(b.rows, b.cols, 3, type);
    for (int64_t e = 0; e < b.rows * b.cols; e++) {
        float x = *ptr(b, e / b.cols, e % b.cols) = (float)(e * 7919 % 255 - 127);
        *(uint16_t *)bq_mat_at(codes, e / b.cols, e % b.cols) = type == BQ_F16 ? bq_to_f16(x) : bq_to_bf16(x);
    }
    return codes;
}

/* Codes: a product of b in f16, and in bf16 on the cpu, is that of the same numbers in f32. */
static void check_codes(shape s, bool ta, bool tb, bq_type type) {
    bq_dev dev = cpu_with(2, 1 << 20);
    bq_mat a = make_filled(ta ? s.k : s.m, ta ? s.m : s.k, 1, 1, 1), c[2];
    bq_mat wide = make(tb ? s.n : s.k, tb ? s.k : s.n, 0, BQ_F32), b = codes_of(wide, type);
    dev.compute = BQ_COMPUTE_FP16X2;
    for (int i = 0; i < 2; i++) {
        c[i] = make_filled(s.m, s.n, 2, 3, 1);
        dev.op->gemm(&dev, ta, tb, 2, a, i ? wide : b, 0.5f, c[i]);
    }
    double *want = doubles(c[1]);
    assert_true(nmse(c[0], want) < LIMIT && intact(a) && intact(b) && intact(c[0]));
    free(want), drop(a), drop(b), drop(wide), drop(c[0]), drop(c[1]), bq_dev_close(&dev);
}

static void narrow_types_are_numbers(void **state) {
    (void)state;
    static const shape some[] = {{33, 41, 70},   {1, 1, 1},     {1, 127, 31},  {127, 1, 257},
                                 {97, 101, 193}, {1060, 33, 7}, {31, 2100, 5}, {5, 3, 0}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        for (int t = 0; t < 8; t++)
            check_codes(some[i], t & 1, t & 2, ops_mirror || t & 4 ? BQ_F16 : BQ_BF16);
}

static void empty_is_nothing(void **state) {
    (void)state;
    bq_dev dev = cpu_with(1, 0);
    bq_mat a = make(0, 4, 0, BQ_F32), b = make(4, 3, 0, BQ_F32), c = make(0, 3, 0, BQ_F32);
    dev.op->gemm(&dev, false, false, 1, a, b, 0, c);
    assert_true(intact(c));
    drop(a), drop(b), drop(c), bq_dev_close(&dev);
}

/* Larger than several tiles in both directions; of the cpu alone, as what follows. */
static void same_for_any_threads(void **state) {
    (void)state;
    for (int t = 0; t < 8 && !ops_mirror; t++) { /* from 4 on with codes */
        shape s = {1300, 1111, 70};
        bool ta = t & 1, tb = t & 2;
        bq_mat a = make_filled(ta ? s.k : s.m, ta ? s.m : s.k, 0, 4, 1);
        bq_mat b = make_filled(tb ? s.n : s.k, tb ? s.k : s.n, 0, 5, 1), codes = codes_of(b, BQ_F16), c[3];
        for (int n = 0; n < 3; n++) {
            bq_dev dev = cpu_with(n + 1, 1 << 20);
            dev.compute = t & 4 ? BQ_COMPUTE_FP16X2 : BQ_COMPUTE_F32;
            c[n] = make(s.m, s.n, n, BQ_F32);
            dev.op->gemm(&dev, ta, tb, 1, a, t & 4 ? codes : b, 0, c[n]);
            bq_dev_close(&dev);
        }
        assert_true(same(c[0], c[1]) && same(c[0], c[2]));
        assert_true(intact(c[0]) && intact(c[1]) && intact(c[2]));
        drop(a), drop(b), drop(codes), drop(c[0]), drop(c[1]), drop(c[2]);
    }
}

/* More threads than cores, so that calls are interrupted anywhere: the BLAS must keep its buffers apart. */
enum { CALLERS = 24, CALLS = 100, SIDE = 128 }; /* one tile: a call makes no threads of its own */

typedef struct {
    bq_dev *dev;
    bq_mat a, b, once;
    int wrong;
} caller;

static int call(void *arg) {
    caller *me = arg;
    bq_mat again = make(SIDE, SIDE, 0, BQ_F32);
    for (int i = 0; i < CALLS; i++) {
        me->dev->op->gemm(me->dev, false, true, 1, me->a, me->b, 0, again);
        me->wrong += !same(again, me->once);
    }
    drop(again);
    return 0;
}

static void blas_is_safe_in_threads(void **state) {
    (void)state;
    if (ops_mirror) return;
    bq_dev dev = cpu_with(1, 0);
    bq_mat a = make_filled(SIDE, SIDE, 0, 6, 1), b = make_filled(SIDE, SIDE, 0, 7, 1),
           once = make(SIDE, SIDE, 0, BQ_F32);
    dev.op->gemm(&dev, false, true, 1, a, b, 0, once);
    thrd_t threads[CALLERS];
    caller callers[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (caller){&dev, a, b, once, 0};
        assert_int_equal(thrd_create(&threads[i], call, &callers[i]), thrd_success);
    }
    for (int i = 0; i < CALLERS; i++) {
        assert_int_equal(thrd_join(threads[i], NULL), thrd_success);
        assert_int_equal(callers[i].wrong, 0);
    }
    drop(a), drop(b), drop(once), bq_dev_close(&dev);
}

static void blas_has_a_name(void **state) {
    (void)state;
    bq_dev dev = cpu_with(1, 0);
    assert_true(strncmp(dev.name, "cpu ", 4) == 0);
    assert_non_null(strstr(dev.name, bq_blas_name()));
    assert_true(strlen(bq_blas_name()) >= 5);
    print_message("%s\n", dev.name);
    bq_dev_close(&dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_naive),
        cmocka_unit_test(empty_is_nothing),
        cmocka_unit_test(narrow_types_are_numbers),
        cmocka_unit_test(same_for_any_threads),
        cmocka_unit_test(blas_is_safe_in_threads),
        cmocka_unit_test(blas_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
