/* SPDX-License-Identifier: Apache-2.0 */
/* Products of small matrices, and attention made of them from rounded operands. */
#include "kernels/cpu/small.h"
#include "ops/ops_common.h"

#include "base/num.h"
#include "kernels/cpu/product.h"

typedef struct {
    int64_t m, n, k;
    bool across; /* rows of a are neighbours in memory */
} problem;

static double rounded(double x) { return (double)bq_from_bf16(bq_to_bf16((float)x)); }

/* a (m, k), b (k, n): c = -0.5 a b, then 2 a b added. */
static void check(problem p, bool pairs) {
    bq_mat a = make_filled(p.m, p.k, 3, 1, 1), b = make_filled(p.k, p.n, 5, 2, 1),
           c = make(p.m, p.n, 2, BQ_F32);
    int64_t words = pairs ? (p.k + 1) / 2 : p.k;
    double *want = zeros(p.m * p.n);
    for (int64_t i = 0; i < p.m * p.n; i++)
        for (int64_t q = 0; q < p.k; q++) {
            double x = at(a, i / p.n, q), y = at(b, q, i % p.n);
            want[i] += 1.5 * (pairs ? rounded(x) * rounded(y) : x * y);
        }
    bq_mat turned = make(p.k, p.m, 1, BQ_F32), left = make(words, p.m, 0, BQ_F32),
           rows = make(p.m, words, 0, BQ_F32), right = make(words, p.n, 4, BQ_F32);
    for (int64_t i = 0; i < p.m * p.k; i++)
        *(float *)bq_mat_at(turned, i % p.k, i / p.k) = (float)at(a, i / p.k, i % p.k);
    bq_small_left x = {p.across ? turned.data : a.data, p.across ? 1 : a.ld, p.across ? turned.ld : 1};
    bq_small_right y = {b.data, b.ld};
    if (pairs) {
        bq_small_pair_rows(p.m, p.k, a.data, a.ld, rows.data, rows.ld);
        bq_small_pair_columns(p.k, p.m, turned.data, turned.ld, left.data, left.ld);
        bq_small_pair_columns(p.k, p.n, b.data, b.ld, right.data, right.ld);
        x = p.across ? (bq_small_left){left.data, 1, left.ld} : (bq_small_left){rows.data, rows.ld, 1};
        y = (bq_small_right){right.data, right.ld};
    }
    bq_small_gemm(pairs, p.m, p.n, words, -0.5f, x, y, false, c.data, c.ld);
    bq_small_gemm(pairs, p.m, p.n, words, 2, x, y, true, c.data, c.ld);
    assert_true(nmse(c, want) <= 1e-12);
    assert_true(intact(c) && intact(rows) && intact(left) && intact(right));
    drop(a), drop(b), drop(c), drop(turned), drop(left), drop(rows), drop(right), free(want);
}

static void equals_naive(void **state) {
    (void)state;
    static const problem all[] = {{1, 1, 1, 0},     {8, 32, 64, 0}, {9, 33, 31, 1},   {17, 15, 2, 0},
                                  {64, 64, 128, 1}, {7, 70, 5, 1},  {31, 48, 127, 0}, {16, 17, 33, 1}};
    if (bq_products() == BQ_PRODUCT_NONE) skip();
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) check(all[i], false), check(all[i], true);
}

typedef struct {
    bq_mat out, dqkv;
} outcome;

static outcome attend(bq_compute compute, int64_t t, bq_attention a, int threads) {
    int64_t vd = a.value_dim > 0 ? a.value_dim : a.head_dim, nq = a.heads * a.head_dim,
            nk = a.kv_heads * a.head_dim, nv = a.kv_heads * vd, no = a.heads * vd;
    bq_mat qkv = make_filled(t, nq + nk + nv, 3, 1, 1), dout = make_filled(t, no, 1, 2, 1),
           lse = make(a.heads, t, 0, BQ_F32);
    bq_mat q = bq_mat_cols(qkv, 0, nq), k = bq_mat_cols(qkv, nq, nk), v = bq_mat_cols(qkv, nq + nk, nv);
    outcome o = {make(t, no, 0, BQ_F32), make(t, nq + nk + nv, 0, BQ_F32)};
    bq_dev dev; /* not under the emulator's mirror, whose other backend does not round here */
    assert_int_equal(bq_dev_open(&dev, "cpu", threads, bq_op_scratch(t, a, 1)), 0);
    dev.compute = compute;
    dev.op->attention(&dev, a, q, k, v, o.out, lse);
    dev.op->attention_bwd(&dev, a, q, k, v, o.out, lse, dout, bq_mat_cols(o.dqkv, 0, nq),
                          bq_mat_cols(o.dqkv, nq, nk), bq_mat_cols(o.dqkv, nq + nk, nv));
    dev.op->wait(&dev);
    bq_dev_close(&dev), drop(qkv), drop(dout), drop(lse);
    return o;
}

static void drop_outcome(outcome o) { drop(o.out), drop(o.dqkv); }

/* Operands rounded to bf16 leave 2^-9 of each, and the same bits on any number of threads. */
static void attention_may_round(void **state) {
    (void)state;
    static const struct {
        int64_t t;
        bq_attention a;
    } all[] = {{129, VALUES(4, 2, 24, 10, 0.2f, 0)}, {1, HEADS(2, 1, 6, 0.4f, 0)},
               {65, HEADS(4, 2, 10, 0.3f, 0)},       {127, HEADS(9, 3, 64, 0.125f, 0)},
               {389, HEADS(2, 1, 96, 0.1f, 130)},    {521, HEADS(3, 1, 14, 0.27f, 0)}};
    if (bq_products() == BQ_PRODUCT_NONE) skip();
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        outcome f = attend(BQ_COMPUTE_F32, all[i].t, all[i].a, 1),
                one = attend(BQ_COMPUTE_BF16, all[i].t, all[i].a, 1),
                three = attend(BQ_COMPUTE_BF16, all[i].t, all[i].a, 3);
        double *out = doubles(f.out), *dqkv = doubles(f.dqkv), error = nmse(one.out, out),
               back = nmse(one.dqkv, dqkv);
        print_message("%ld tokens: %.1e, backward %.1e\n", (long)all[i].t, error, back);
        assert_true(error > 1e-8 && error < 2e-5 && back > 1e-8 && back < 3e-5);
        assert_true(same(one.out, three.out) && same(one.dqkv, three.dqkv));
        drop_outcome(f), drop_outcome(one), drop_outcome(three), free(out), free(dqkv);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_naive), cmocka_unit_test(attention_may_round)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
