/* Which way of making products a device takes; and on a GPU, where this build has one, products of rounded
 * operands against exact ones. */
#include "ops/ops_common.h"

#include "base/num.h"

#include <math.h>

static const char *const backend[] = {"cpu", "cuda"};
enum { ARENA = 1 << 20 };

/* Opens the i-th backend, unless there is none here. */
static bool open_one(int i, bq_dev *dev) {
    if (i == 1 && bq_cuda_devices() == 0) return false;
    assert_int_equal(bq_dev_open(dev, backend[i], 1, ARENA), BQ_OK);
    return true;
}

static void nearest_that_is_not_less_exact(void **state) {
    (void)state;
    bq_dev dev = {.computes = 1u << BQ_COMPUTE_F32 | 1u << BQ_COMPUTE_TF32};
    assert_int_equal(bq_dev_compute(&dev, BQ_COMPUTE_F32), BQ_COMPUTE_F32);
    assert_int_equal(bq_dev_compute(&dev, BQ_COMPUTE_BF16X3), BQ_COMPUTE_F32);
    assert_int_equal(bq_dev_compute(&dev, BQ_COMPUTE_TF32), BQ_COMPUTE_TF32);
    assert_int_equal(bq_dev_compute(&dev, BQ_COMPUTE_BF16), BQ_COMPUTE_TF32);
    for (int i = 0; i < 2; i++) {
        if (!open_one(i, &dev)) continue;
        assert_int_equal(dev.compute, BQ_COMPUTE_F32);
        assert_int_equal(bq_dev_compute(&dev, BQ_COMPUTE_F32), BQ_COMPUTE_F32);
        assert_true(i == 0 || bq_dev_compute(&dev, BQ_COMPUTE_BF16) == BQ_COMPUTE_BF16);
        assert_int_equal(bq_dev_compute(&dev, BQ_COMPUTE_TF32) == BQ_COMPUTE_TF32, i == 1);
        bq_dev_close(&dev);
    }
}

static double rounded(double x, bq_compute compute) {
    if (compute == BQ_COMPUTE_BF16) return (double)bq_from_bf16(bq_to_bf16((float)x));
    int e;
    double m = frexp(x, &e); /* 0.5 <= |m| < 1: 11 bits behind its point */
    return compute == BQ_COMPUTE_TF32 ? ldexp(round(ldexp(m, 11)), e - 11) : x;
}

/* On the device and back, as the ops have it: ld is the columns there. */
static bq_mat up(bq_dev *dev, bq_mat host) {
    bq_mat m = bq_arena_push(&dev->mem, host.rows, host.cols, host.type);
    dev->op->put(dev, host, m);
    return m;
}

static void check(bq_dev *dev, bq_compute compute, int64_t m, int64_t n, int64_t k, int turn, float beta) {
    bool ta = turn & 1, tb = turn & 2;
    bq_mat a = make_filled(ta ? k : m, ta ? m : k, 3, 1, 1), b = make_filled(tb ? n : k, tb ? k : n, 0, 2, 1),
           c = make_filled(m, n, 5, 3, 1);
    double *want = zeros(m * n);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++)
                sum += rounded(at(a, ta ? p : i, ta ? i : p), compute) *
                       rounded(at(b, tb ? j : p, tb ? p : j), compute);
            want[i * n + j] = 2 * sum + (double)beta * at(c, i, j);
        }
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat x = up(dev, a), y = up(dev, b), z = up(dev, c);
    size_t before = dev->mem.used;
    dev->mem.peak = before;
    dev->compute = compute;
    dev->op->gemm(dev, ta, tb, 2, x, y, beta, z);
    dev->compute = BQ_COMPUTE_F32;
    assert_true(dev->mem.used == before);
    assert_true(dev->mem.peak - before <= bq_gemm_scratch(compute, m, n, k));
    dev->op->get(dev, z, c);
    dev->op->wait(dev);
    assert_true(nmse(c, want) < 1e-12);
    bq_arena_reset(&dev->mem, mark);
    drop(a), drop(b), drop(c), free(want);
}

static void equals_products_of_rounded_operands(void **state) {
    (void)state;
    static const int64_t some[][3] = {{1, 1, 1}, {31, 33, 129}, {129, 127, 31}, {40, 257, 64}, {5, 3, 0}};
    bq_dev dev;
    for (int i = 0; i < 2; i++) {
        if (!open_one(i, &dev)) continue;
        for (bq_compute compute = 0; compute < BQ_COMPUTES; compute++)
            for (int s = 0; s < 5 && (i == 1 || !compute) && bq_dev_compute(&dev, compute) == compute; s++)
                for (int turn = 0; turn < 4; turn++)
                    check(&dev, compute, some[s][0], some[s][1], some[s][2], turn, turn == 2 ? 0.5f : 0);
        bq_dev_close(&dev);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nearest_that_is_not_less_exact),
                                       cmocka_unit_test(equals_products_of_rounded_operands)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
