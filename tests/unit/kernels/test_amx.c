/* Products on the tile unit: as near to the exact ones as those of floats, or as near as three products of
 * bf16 can be. */
#include "ops/ops_common.h"

#include "kernels/cpu/amx.h"

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

static void check(problem p) {
    bq_mat a = make_filled(p.m, p.k, 0, 1, 1), b = make_filled(p.n, p.k, 0, 2, 1);
    for (int64_t i = 0; i < p.m * p.k; i++) bq_f32(a)[i] *= expf(p.spread * sinf((float)i));
    for (int64_t i = 0; i < p.n * p.k; i++) bq_f32(b)[i] *= expf(p.spread * cosf((float)i));
    double *want = zeros(p.m * p.n);
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++)
            for (int64_t q = 0; q < p.k; q++) want[i * p.n + j] += at(a, i, q) * at(b, j, q);
    bq_mat c[3];
    for (int v = 0; v < 3; v++) c[v] = make(p.m, p.n, 3, BQ_F32);
    bq_amx_side x = {a.data, a.ld, p.m, false}, y = {b.data, b.ld, p.n, false};
    bq_amx_gemm(BQ_AMX_F32, p.k, 1, x, y, 0, c[0].data, c[0].ld);
    bq_amx_gemm(BQ_AMX_BF16X3, p.k, 1, x, y, 0, c[1].data, c[1].ld);
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++)
            *(float *)bq_mat_at(c[2], i, j) = plain(bq_mat_at(a, i, 0), bq_mat_at(b, j, 0), p.k);
    print_message("%ld x %ld x %ld: %.1e, three products %.1e, in floats %.1e\n", (long)p.m, (long)p.n,
                  (long)p.k, nmse(c[0], want), nmse(c[1], want), nmse(c[2], want));
    assert_true(nmse(c[0], want) <= 2 * nmse(c[2], want));
    assert_true(nmse(c[1], want) <= 5e-11);
    assert_true(p.k < 8 || nmse(c[1], want) > nmse(c[0], want)); /* it is another sum */
    for (int v = 0; v < 3; v++) assert_true(intact(c[v])), drop(c[v]);
    drop(a), drop(b), free(want);
}

static void near_the_exact_products(void **state) {
    (void)state;
    if (!bq_amx()) skip();
    check((problem){64, 64, 64, 0});
    check((problem){33, 31, 577, 0});
    check((problem){100, 129, 1536, 0});
    check((problem){48, 96, 641, 3});
    check((problem){1, 1, 1, 0});
}

/* An element is the same sum wherever it stands. */
static void rows_do_not_know_each_other(void **state) {
    (void)state;
    if (!bq_amx()) skip();
    enum { M = 1200, N = 2100, K = 400, ROW = 1111, COL = 2077 };
    bq_mat a = make_filled(M, K, 0, 1, 1), b = make_filled(N, K, 0, 2, 1), c = make(M, N, 0, BQ_F32);
    bq_amx_side x = {a.data, a.ld, M, false}, y = {b.data, b.ld, N, false};
    bq_amx_gemm(BQ_AMX_F32, K, 1, x, y, 0, c.data, c.ld);
    float one;
    x = (bq_amx_side){bq_mat_at(a, ROW, 0), a.ld, 1, false},
    y = (bq_amx_side){bq_mat_at(b, COL, 0), b.ld, 1, false};
    bq_amx_gemm(BQ_AMX_F32, K, 1, x, y, 0, &one, 1);
    assert_memory_equal(&one, bq_mat_at(c, ROW, COL), sizeof one);
    drop(a), drop(b), drop(c);
}

/* gemm does what the device is asked for; without the unit that is f32, whatever is allowed. */
static void compute_is_heeded(void **state) {
    (void)state;
    enum { M = 70, N = 50, K = 90 };
    bq_dev dev = cpu_with(1, 0);
    bq_mat a = make_filled(M, K, 2, 1, 1), b = make_filled(N, K, 0, 2, 1), c[3];
    for (int v = 0; v < 3; v++) {
        dev.compute = v == 1 ? BQ_COMPUTE_BF16X3 : BQ_COMPUTE_F32;
        c[v] = make(M, N, 0, BQ_F32);
        dev.op->gemm(&dev, false, true, 1, a, b, 0, c[v]);
    }
    assert_true(same(c[0], c[2]));
    assert_int_equal(same(c[0], c[1]), !bq_amx());
    for (int v = 0; v < 3; v++) drop(c[v]);
    drop(a), drop(b), bq_dev_close(&dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(near_the_exact_products),
                                       cmocka_unit_test(rows_do_not_know_each_other),
                                       cmocka_unit_test(compute_is_heeded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
