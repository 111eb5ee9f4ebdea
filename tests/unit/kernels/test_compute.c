/* SPDX-License-Identifier: Apache-2.0 */
/* Which way of making products a device takes; products of FP16X2 against chains of FMAs; and on a GPU, where
 * this build has one, products of rounded operands against exact ones. */
#include "ops/ops_common.h"

#include "base/num.h"
#include "kernels/cpu/product.h"

#include <math.h>

static const char *const backend[] = {"cpu", "cuda"};
enum { ARENA = 8 << 20 };

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
        bool tensor = i || bq_products() == BQ_PRODUCT_TILES;
        assert_int_equal(bq_dev_compute(&dev, BQ_COMPUTE_FP16X2),
                         tensor ? BQ_COMPUTE_FP16X2 : BQ_COMPUTE_F32);
        assert_true(i == 0 || bq_dev_compute(&dev, BQ_COMPUTE_BF16X3) == BQ_COMPUTE_FP16X2);
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

/* ---- FP16X2 ---- */

/* What one product c = op(a) op(b) + beta c gives on the device; b may be f16. */
static void multiply(bq_dev *dev, bq_compute compute, bool ta, bool tb, bq_mat a, bq_mat b, float beta,
                     bq_mat c) {
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat x = up(dev, a), y = up(dev, b), z = up(dev, c);
    dev->compute = compute;
    dev->op->gemm(dev, ta, tb, 1, x, y, beta, z);
    dev->compute = BQ_COMPUTE_F32;
    dev->op->get(dev, z, c);
    dev->op->wait(dev);
    bq_arena_reset(&dev->mem, mark);
}

static double uniform(uint64_t *s) {
    *s ^= *s << 13, *s ^= *s >> 7, *s ^= *s << 17;
    return (double)(*s >> 11) * 0x1p-53;
}
static double normal(uint64_t *s) { return sqrt(-2 * log(uniform(s) + 1e-300)) * cos(2 * M_PI * uniform(s)); }

/* Inputs with an outlier of 60 in 500, and weights: codes of 4 bits times the scale of their row. */
typedef struct {
    bq_mat x, w, code, scale; /* (n, K), (n, K), (n, K) f16, (n, 1) */
} layer;
static layer layer_of(int64_t n, int64_t k) {
    uint64_t s = 88172645463325252u;
    layer l = {make(n, k, 0, BQ_F32), make(n, k, 0, BQ_F32), make(n, k, 0, BQ_F16), make(n, 1, 0, BQ_F32)};
    for (int64_t r = 0; r < n; r++) {
        *ptr(l.scale, r, 0) = 0.013f * (float)(0.5 + uniform(&s));
        for (int64_t c = 0; c < k; c++) {
            float code = (float)fmax(-8, fmin(7, rint(2.5 * normal(&s))));
            *ptr(l.x, r, c) = (float)(normal(&s) * (uniform(&s) < 0.002 ? 60 : 1));
            *(uint16_t *)bq_mat_at(l.code, r, c) = bq_to_f16(code);
            *ptr(l.w, r, c) = code * *ptr(l.scale, r, 0);
        }
    }
    return l;
}

/* NMSE of c, times the rows' scales for codes, against sums in double; c.data NULL: of chains of FMAs. */
static double error_of(const layer *l, bq_mat c, bool codes) {
    double error = 0, power = 0;
    for (int64_t i = 0; i < l->x.rows; i++)
        for (int64_t j = 0; j < l->w.rows; j++) {
            double sum = 0;
            float chain = 0;
            for (int64_t p = 0; p < l->x.cols; p++) {
                sum += at(l->x, i, p) * at(l->w, j, p);
                chain = fmaf(*ptr(l->x, i, p), *ptr(l->w, j, p), chain);
            }
            if (c.data) chain = *ptr(c, i, j) * (codes ? *ptr(l->scale, j, 0) : 1);
            error += ((double)chain - sum) * ((double)chain - sum), power += sum * sum;
        }
    return error / power;
}

static void check_exactness(bq_dev *dev, int64_t k) {
    layer l = layer_of(16, k);
    bq_mat c = make(16, 16, 0, BQ_F32);
    double chain = error_of(&l, (bq_mat){0}, false), general, codes;
    multiply(dev, BQ_COMPUTE_FP16X2, false, true, l.x, l.w, 0, c);
    general = error_of(&l, c, false);
    multiply(dev, BQ_COMPUTE_FP16X2, false, true, l.x, l.code, 0, c);
    codes = error_of(&l, c, true);
    print_message("%s, K %ld: chain %.2g, fp16x2 %.2g, of codes %.2g\n", dev->op->name, (long)k, chain,
                  general, codes);
    assert_true(general <= chain && codes <= chain);
    drop(l.x), drop(l.w), drop(l.code), drop(l.scale), drop(c);
}

static void as_exact_as_chains_of_fmas(void **state) {
    (void)state;
    static const int64_t depth[] = {576, 2048, 4096, 14336};
    bq_dev dev;
    for (int i = 0; i < 2; i++) {
        if (!open_one(i, &dev)) continue;
        bool has = bq_dev_compute(&dev, BQ_COMPUTE_FP16X2) == BQ_COMPUTE_FP16X2;
        for (int n = i ? 2 : 0; n < 4 && has; n++) check_exactness(&dev, depth[n]);
        bq_dev_close(&dev);
    }
}

/* Numbers of any size: 2^-40 of the largest one counts, whatever that is; and 0 times 0 is 0. */
static void sizes_do_not_matter(void **state) {
    (void)state;
    static const int size[][2] = {{0, 0}, {100, -100}, {-90, 60}, {-60, -30}, {60, 60}, {-90, 127}};
    bq_dev dev;
    if (!open_one(1, &dev)) return;
    bq_mat a = make(2, 3, 0, BQ_F32), b = make(3, 2, 0, BQ_F32), c = make(2, 2, 0, BQ_F32);
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        for (int64_t e = 0; e < 6; e++) {
            *ptr(a, e / 3, e % 3) = ldexpf(e ? 1 + (float)e / 7 : 1.9999999f, size[i][0] - (e < 3 ? 0 : 30));
            *ptr(b, e / 2, e % 2) = ldexpf(1 - (float)e / 11, size[i][1]);
        }
        multiply(&dev, BQ_COMPUTE_FP16X2, false, false, a, b, 0, c);
        for (int64_t e = 0; e < 4; e++) {
            double want = 0;
            for (int64_t p = 0; p < 3; p++) want += at(a, e / 2, p) * at(b, p, e % 2);
            assert_true(fabs(at(c, e / 2, e % 2) / want - 1) < (e < 2 ? 1e-6 : 1e-3));
        }
    }
    memset(a.data, 0, bq_mat_bytes(a));
    multiply(&dev, BQ_COMPUTE_FP16X2, false, false, a, b, 0, c);
    for (int64_t e = 0; e < 4; e++) assert_true(at(c, e / 2, e % 2) == 0);
    drop(a), drop(b), drop(c), bq_dev_close(&dev);
}

/* What is not finite reaches its row and no other one. */
static void not_finite_stays_so(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    bq_dev dev;
    if (!open_one(1, &dev)) return;
    bq_mat a = make_filled(5, 40, 0, 1, 1), b = make_filled(40, 6, 0, 2, 1), c = make(5, 6, 0, BQ_F32);
    for (int i = 0; i < 3; i++) {
        *ptr(a, 3, 7) = bad[i];
        multiply(&dev, BQ_COMPUTE_FP16X2, false, false, a, b, 0, c);
        for (int64_t e = 0; e < 30; e++) assert_int_equal(isfinite(*ptr(c, e / 6, e % 6)) != 0, e / 6 != 3);
    }
    drop(a), drop(b), drop(c), bq_dev_close(&dev);
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
                                       cmocka_unit_test(as_exact_as_chains_of_fmas),
                                       cmocka_unit_test(sizes_do_not_matter),
                                       cmocka_unit_test(not_finite_stays_so),
                                       cmocka_unit_test(attention_is_of_rounded_operands)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
