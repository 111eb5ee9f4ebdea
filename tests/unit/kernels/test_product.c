/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products made of products of bf16: as near to the exact ones as those of floats, as three products
 * of bf16 can be, or as those of rounded operands. */
#include "ops/ops_common.h"

#include "base/num.h"
#include "kernels/cpu/product.h"

#include <math.h>

typedef struct {
    int64_t m, n, k;
    float spread; /* numbers from e^-spread to e^spread */
} problem;

/* One after the other, as kernels of sgemm do it for each element. */
static float plain(const float *a, const float *b, int64_t k) {
    float sum = 0;
    for (int64_t i = 0; i < k; i++) sum += a[i] * b[i];
    return sum;
}

static bool has(bq_product_kind kind) {
    return bq_products() == BQ_PRODUCT_TILES ||
           (bq_products() == BQ_PRODUCT_VECTORS && (kind == BQ_PRODUCT_BF16 || kind == BQ_PRODUCT_F32));
}

static double *exact(problem p, bq_mat a, bq_mat b, bool rounded) {
    double *want = zeros(p.m * p.n);
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++)
            for (int64_t q = 0; q < p.k; q++) {
                double x = at(a, i, q), y = at(b, j, q);
                if (rounded)
                    x = (double)bq_from_bf16(bq_to_bf16((float)x)),
                    y = (double)bq_from_bf16(bq_to_bf16((float)y));
                want[i * p.n + j] += x * y;
            }
    return want;
}

static void check(problem p) {
    bq_mat a = make_filled(p.m, p.k, 0, 1, 1), b = make_filled(p.n, p.k, 0, 2, 1), c[5],
           floats = make(p.m, p.n, 0, BQ_F32);
    for (int64_t i = 0; i < p.m * p.k; i++) bq_f32(a)[i] *= expf(p.spread * sinf((float)i));
    for (int64_t i = 0; i < p.n * p.k; i++) bq_f32(b)[i] *= expf(p.spread * cosf((float)i));
    double *want = exact(p, a, b, false), *rounded = exact(p, a, b, true), error[5] = {0};
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++)
            *(float *)bq_mat_at(floats, i, j) = plain(bq_mat_at(a, i, 0), bq_mat_at(b, j, 0), p.k);
    error[0] = nmse(floats, want);
    bq_product_side x = {a.data, a.ld, p.m, false}, y = {b.data, b.ld, p.n, false};
    for (int v = BQ_PRODUCT_BF16; v <= BQ_PRODUCT_F32; v++) {
        if (!has((bq_product_kind)v)) continue;
        c[v] = make(p.m, p.n, 3, BQ_F32);
        bq_product_gemm((bq_product_kind)v, p.k, 1, x, y, 0, c[v].data, c[v].ld);
        error[v] = nmse(c[v], want);
        if (v == BQ_PRODUCT_BF16)
            assert_true(nmse(c[v], rounded) <= 1e-11); /* operands are rounded to even, sums are floats */
        assert_true(intact(c[v])), drop(c[v]);
    }
    print_message(
        "%ld x %ld x %ld: in floats %.1e; one product %.1e, three %.1e, six %.1e, ours in floats %.1e\n",
        (long)p.m, (long)p.n, (long)p.k, error[0], error[1], error[2], error[3], error[4]);
    assert_true(error[BQ_PRODUCT_F32] <= 2 * error[0]);
    assert_true(error[BQ_PRODUCT_BF16X6] <= 2 * error[0]);
    assert_true(error[BQ_PRODUCT_BF16X3] <= 5e-11);
    assert_true(error[BQ_PRODUCT_BF16] <= 2e-5);
    if (has(BQ_PRODUCT_BF16X3) && p.k >= 8)
        assert_true(error[BQ_PRODUCT_BF16X3] > error[BQ_PRODUCT_BF16X6]); /* it is another sum */
    drop(a), drop(b), drop(floats), free(want), free(rounded);
}

static void near_the_exact_products(void **state) {
    (void)state;
    if (bq_products() == BQ_PRODUCT_NONE) skip();
    check((problem){64, 64, 64, 0});
    check((problem){33, 31, 577, 0});
    check((problem){100, 129, 1536, 0});
    check((problem){48, 96, 641, 3});
    check((problem){1, 1, 1, 0});
}

/* An element is the same sum wherever it stands, and however its operands lie in memory. */
static void rows_do_not_know_each_other(void **state) {
    (void)state;
    enum { M = 1200, N = 2100, K = 400, ROW = 1111, COL = 2077 };
    bq_mat a = make_filled(M, K, 0, 1, 1), b = make_filled(N, K, 0, 2, 1), c = make(M, N, 0, BQ_F32);
    float one, row[K];
    for (int v = BQ_PRODUCT_BF16; v <= BQ_PRODUCT_F32; v++) {
        bq_product_side x = {a.data, a.ld, M, false}, y = {b.data, b.ld, N, false};
        if (!has((bq_product_kind)v)) continue;
        bq_product_gemm((bq_product_kind)v, K, 1, x, y, 0, c.data, c.ld);
        x = (bq_product_side){bq_mat_at(a, ROW, 0), a.ld, 1, false};
        y = (bq_product_side){bq_mat_at(b, COL, 0), b.ld, 1, false};
        bq_product_gemm((bq_product_kind)v, K, 1, x, y, 0, &one, 1);
        assert_memory_equal(&one, bq_mat_at(c, ROW, COL), sizeof one);
        memcpy(row, bq_mat_at(a, ROW, 0), sizeof row);
        x = (bq_product_side){row, 1, 1, true}; /* the same numbers as a column */
        bq_product_gemm((bq_product_kind)v, K, 1, x, y, 0, &one, 1);
        assert_memory_equal(&one, bq_mat_at(c, ROW, COL), sizeof one);
    }
    drop(a), drop(b), drop(c);
}

/* c = alpha a b + beta c, added to what is there block of k after block. */
static void adds_to_c(void **state) {
    (void)state;
    enum { M = 37, N = 45, K = 700 };
    if (!has(BQ_PRODUCT_BF16)) skip();
    bq_mat a = make_filled(M, K, 0, 1, 1), b = make_filled(N, K, 0, 2, 1);
    bq_product_side x = {a.data, a.ld, M, false}, y = {b.data, b.ld, N, false};
    for (int n = 0; n < 2; n++) {
        bq_mat c = make_filled(M, N, 1, 3, 1);
        double *want = exact((problem){M, N, K, 0}, a, b, n == 0);
        for (int64_t i = 0; i < M * N; i++) want[i] = want[i] * -0.5 + 2 * at(c, i / N, i % N);
        bq_product_gemm(n == 0 ? BQ_PRODUCT_BF16 : BQ_PRODUCT_F32, K, -0.5f, x, y, 2, c.data, c.ld);
        assert_true(nmse(c, want) <= 1e-11);
        assert_true(intact(c)), drop(c), free(want);
    }
    drop(a), drop(b);
}

/* x^T x has both triangles, and where they are made the bits of a product of x with itself. */
static void gram_is_half_a_product(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 33, 129, 1061};
    enum { K = 390 };
    for (int n = 0; n < 4; n++) {
        int64_t size = sizes[n];
        bq_mat x = make_filled(K, size, 3, 1, 1), c = make(size, size, 5, BQ_F32),
               whole = make(size, size, 0, BQ_F32);
        bq_product_side side = {x.data, x.ld, size, true};
        for (int v = BQ_PRODUCT_BF16; v <= BQ_PRODUCT_F32; v++) {
            if (!has((bq_product_kind)v)) continue;
            bq_product_gemm((bq_product_kind)v, K, 1, side, side, 0, whole.data, whole.ld);
            bq_product_gram((bq_product_kind)v, K, side, c.data, c.ld);
            for (int64_t i = 0; i < size; i++)
                for (int64_t j = 0; j <= i; j++) {
                    assert_memory_equal(bq_mat_at(c, j, i), bq_mat_at(whole, j, i), sizeof(float));
                    assert_memory_equal(bq_mat_at(c, i, j), bq_mat_at(c, j, i), sizeof(float));
                }
            assert_true(intact(c));
        }
        drop(x), drop(c), drop(whole);
    }
}

/* gemm and gram do what the device is asked for; where nothing is faster that is f32, whatever is allowed. */
static void compute_is_heeded(void **state) {
    (void)state;
    enum { M = 70, N = 50, K = 90 };
    static const bq_compute asked[] = {BQ_COMPUTE_F32, BQ_COMPUTE_BF16X3, BQ_COMPUTE_BF16, BQ_COMPUTE_F32};
    bq_dev dev = cpu_with(1, 0);
    bq_mat a = make_filled(M, K, 2, 1, 1), b = make_filled(N, K, 0, 2, 1), c[4], h[4];
    for (int v = 0; v < 4; v++) {
        dev.compute = asked[v];
        c[v] = make(M, N, 0, BQ_F32), h[v] = make(K, K, 0, BQ_F32);
        dev.op->gemm(&dev, false, true, 1, a, b, 0, c[v]);
        dev.op->gram(&dev, a, h[v]);
    }
    assert_true(same(c[0], c[3]) && same(h[0], h[3]));
    assert_int_equal(same(c[0], c[1]) && same(h[0], h[1]), !has(BQ_PRODUCT_BF16X3));
    assert_int_equal(same(c[0], c[2]) && same(h[0], h[2]), !has(BQ_PRODUCT_BF16));
    for (int v = 0; v < 4; v++) drop(c[v]), drop(h[v]);
    drop(a), drop(b), bq_dev_close(&dev);
}

/* Products of codes: as near as chains of floats; an element is the same sum wherever it stands, and however
 * b lies in memory. */
static void codes_are_exact(void **state) {
    (void)state;
    static const problem some[] = {{1, 1, 1, 0}, {33, 31, 577, 0}, {131, 67, 1536, 3}, {1061, 2099, 5, 0}};
    if (bq_products() != BQ_PRODUCT_TILES) skip();
    for (size_t s = 0; s < sizeof some / sizeof *some; s++) {
        problem p = some[s];
        bq_mat a = make_filled(p.m, p.k, 3, 1, 1), b = make(p.n, p.k, 0, BQ_F32),
               c = make(p.m, p.n, 1, BQ_F32), floats = make(p.m, p.n, 0, BQ_F32);
        bq_mat code = make(p.n, p.k, 5, BQ_F16), turned = make(p.k, p.n, 2, BQ_F16);
        for (int64_t i = 0; i < p.m * p.k; i++) *ptr(a, i / p.k, i % p.k) *= expf(p.spread * sinf((float)i));
        for (int64_t i = 0; i < p.n * p.k; i++) {
            float x = *ptr(b, i / p.k, i % p.k) = (float)(i * 7919 % 513 - 256);
            *(uint16_t *)bq_mat_at(code, i / p.k, i % p.k) = bq_to_f16(x);
            *(uint16_t *)bq_mat_at(turned, i % p.k, i / p.k) = bq_to_f16(x);
        }
        for (int64_t i = 0; i < p.m * p.n; i++)
            *ptr(floats, i / p.n, i % p.n) = plain(ptr(a, i / p.n, 0), ptr(b, i % p.n, 0), p.k);
        double *want = exact(p, a, b, false);
        bq_product_side x = {a.data, a.ld, p.m, false}, y = {code.data, code.ld, p.n, false},
                        z = {turned.data, turned.ld, p.n, true};
        bq_product_gemm(BQ_PRODUCT_CODES, p.k, 1, x, y, 0, c.data, c.ld);
        double error = nmse(c, want), chain = nmse(floats, want);
        print_message("%ld x %ld x %ld: in floats %.1e, codes %.1e\n", (long)p.m, (long)p.n, (long)p.k, chain,
                      error);
        assert_true(error <= chain && intact(c));
        bq_product_gemm(BQ_PRODUCT_CODES, p.k, 1, x, z, 0, floats.data, floats.ld);
        assert_true(same(c, floats));
        float one;
        y.at = bq_mat_at(code, p.n - 1, 0), x.at = ptr(a, p.m - 1, 0), x.rows = y.rows = 1;
        bq_product_gemm(BQ_PRODUCT_CODES, p.k, 1, x, y, 0, &one, 1);
        assert_memory_equal(&one, ptr(c, p.m - 1, p.n - 1), sizeof one);
        drop(a), drop(b), drop(c), drop(floats), drop(code), drop(turned), free(want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(near_the_exact_products),
                                       cmocka_unit_test(rows_do_not_know_each_other),
                                       cmocka_unit_test(adds_to_c),
                                       cmocka_unit_test(gram_is_half_a_product),
                                       cmocka_unit_test(codes_are_exact),
                                       cmocka_unit_test(compute_is_heeded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
