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

/* ---- attention of rounded operands, on a GPU ---- */

typedef struct {
    int64_t t, hd;
    bq_compute compute;
    double *q, *k, *v, *dout, *out, *slack, *dq, *dk, *dv; /* (t, hd), one head; slack: see below */
} attended;

static double *rounded_all(bq_mat m, bq_compute compute) {
    double *x = doubles(m);
    for (int64_t i = 0; i < m.rows * m.cols; i++) x[i] = rounded(x[i], compute);
    return x;
}

static double product(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* In double, of rounded operands: out, and slack = sum p |v|; from out and lse of the device, d = dout out of
 * the matrices as they are, the gradients, where p and ds are rounded as operands are. */
static void attend_exactly(attended *a, float scale, bq_mat dout, bq_mat out, bq_mat lse) {
    int64_t hd = a->hd;
    for (int64_t i = 0; i < a->t; i++) {
        double sum = 0, d = 0;
        for (int64_t j = 0; j <= i; j++)
            sum += exp((double)scale * product(a->q + i * hd, a->k + j * hd, hd));
        for (int64_t c = 0; c < hd; c++) d += at(dout, i, c) * at(out, i, c);
        for (int64_t j = 0; j <= i; j++) {
            double s = (double)scale * product(a->q + i * hd, a->k + j * hd, hd), p = exp(s - at(lse, 0, i)),
                   ds = p * (product(a->dout + i * hd, a->v + j * hd, hd) - d), weight = exp(s) / sum;
            p = rounded(p, a->compute), ds = rounded(ds, a->compute);
            for (int64_t c = 0; c < hd; c++) {
                double v = a->v[j * hd + c];
                a->out[i * hd + c] += weight * v, a->slack[i * hd + c] += weight * fabs(v);
                a->dv[j * hd + c] += p * a->dout[i * hd + c];
                a->dk[j * hd + c] += (double)scale * ds * a->q[i * hd + c];
                a->dq[i * hd + c] += (double)scale * ds * a->k[j * hd + c];
            }
        }
    }
}

/* The forward rounds p relative to a maximum that depends on its tiles, so an element of out may differ from
 * that of p as it is by u sum p |v|, with u the largest error of a rounding: 2^-8 of a number in bf16, 2^-11
 * in tf32; and by what sums in floats leave, 2^-16 of that sum at these sizes.
 * The backward rounds p and ds as the exact form does, unless an error in float takes one of them across the
 * middle between two operands, which are 2 u of themselves apart.  That error is below e = 2^-20 at these
 * sizes. So of the operands the part e / 2 u is expected to be off by 2 u of itself: an NMSE of 2 u e.  One
 * of the largest operands, of which a result has about t, may be among them: (2 u)^2 / t.  Operands that are
 * cut are off by u of themselves on average, all in one direction: an NMSE of u^2 or more. */
static void attention_rounds(bq_dev *dev, bq_compute compute, int64_t t, int64_t hd, float scale) {
    const double u = compute == BQ_COMPUTE_BF16 ? 0x1p-8 : 0x1p-11,
                 limit = 0x1p-19 * u + 4 * u * u / (double)t;
    bq_mat m[9], on[9]; /* q, k, v, dout, out, dq, dk, dv; lse */
    size_t mark = bq_arena_mark(&dev->mem);
    for (int i = 0; i < 9; i++) {
        m[i] = i < 8 ? make_filled(t, hd, 3, (uint32_t)i, 1) : make(1, t, 0, BQ_F32);
        on[i] = up(dev, m[i]);
    }
    bq_attention how = HEADS(1, 1, hd, scale, 0);
    dev->compute = compute;
    dev->op->attention(dev, how, on[0], on[1], on[2], on[4], on[8]);
    dev->op->attention_bwd(dev, how, on[0], on[1], on[2], on[4], on[8], on[3], on[5], on[6], on[7]);
    dev->compute = BQ_COMPUTE_F32;
    for (int i = 4; i < 9; i++) dev->op->get(dev, on[i], m[i]);
    dev->op->wait(dev);
    attended a = {t,
                  hd,
                  compute,
                  rounded_all(m[0], compute),
                  rounded_all(m[1], compute),
                  rounded_all(m[2], compute),
                  rounded_all(m[3], compute),
                  zeros(t * hd),
                  zeros(t * hd),
                  zeros(t * hd),
                  zeros(t * hd),
                  zeros(t * hd)};
    attend_exactly(&a, scale, m[3], m[4], m[8]);
    for (int64_t i = 0; i < t * hd; i++)
        assert_true(fabs(at(m[4], i / hd, i % hd) - a.out[i]) <= (u + 0x1p-16) * a.slack[i]);
    print_message("%s, %ld tokens: nmse %.1e %.1e %.1e %.1e, limit %.1e\n", bq_compute_name(compute), (long)t,
                  nmse(m[4], a.out), nmse(m[5], a.dq), nmse(m[6], a.dk), nmse(m[7], a.dv), limit);
    assert_true(nmse(m[5], a.dq) < limit && nmse(m[6], a.dk) < limit && nmse(m[7], a.dv) < limit);
    bq_arena_reset(&dev->mem, mark);
    for (int i = 0; i < 9; i++) drop(m[i]);
    free(a.q), free(a.k), free(a.v), free(a.dout), free(a.out), free(a.slack), free(a.dq), free(a.dk),
        free(a.dv);
}

static void attention_is_of_rounded_operands(void **state) {
    (void)state;
    static const struct {
        int64_t t, hd;
        float scale;
    } some[] = {{67, 64, 0.125f}, {130, 22, 0.2f}, {40, 128, 0.09f}, {35, 200, 0.07f}};
    bq_dev dev;
    if (!open_one(1, &dev)) skip();
    for (int i = 0; i < 4; i++) {
        attention_rounds(&dev, BQ_COMPUTE_TF32, some[i].t, some[i].hd, some[i].scale);
        attention_rounds(&dev, BQ_COMPUTE_BF16, some[i].t, some[i].hd, some[i].scale);
    }
    bq_dev_close(&dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nearest_that_is_not_less_exact),
                                       cmocka_unit_test(equals_products_of_rounded_operands),
                                       cmocka_unit_test(attention_is_of_rounded_operands)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
