/* SPDX-License-Identifier: Apache-2.0 */
/* Ops on rows against naive loops in double; backwards also against differences of the naive forward. */
#include "same_bits.h"

#include "base/num.h"
#include "kernels/cpu/vec.h"

#include <math.h>

#define LIMIT      1e-12 /* of values: float32 rounding leaves about 1e-14 */
#define SLOPE_STEP 1e-5  /* central differences in double */
#define SLOPE_NMSE 1e-14 /* of the naive backward against them */

/* ---- the naive forms ---- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double act_of(bq_act act, double g) {
    if (act != BQ_GELU_TANH) return g * sigmoid(act == BQ_SILU ? g : 1.702 * g);
    return 0.5 * g * (1 + tanh(sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
}
static double act_slope(bq_act act, double g) {
    return (act_of(act, g + SLOPE_STEP) - act_of(act, g - SLOPE_STEP)) / (2 * SLOPE_STEP);
}

static void norm_of(int64_t n, const double *x, const double *w, double eps, double *y) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    for (int64_t i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / (double)n + eps) * w[i];
}

/* dx = sum_j dy_j dy_j/dx_i, written out */
static void norm_back(int64_t n, const double *x, const double *w, double eps, const double *dy, double *dx) {
    double sum = 0, dot = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i], dot += w[i] * dy[i] * x[i];
    double r = 1 / sqrt(sum / (double)n + eps);
    for (int64_t i = 0; i < n; i++) dx[i] = r * w[i] * dy[i] - x[i] * r * r * r / (double)n * dot;
}

/* ---- one case: some tokens by some channels ---- */

typedef struct {
    int64_t t, h;
} shape;

static const shape shapes[] = {{1, 1},    {1, 257}, {31, 33}, {129, 127}, {257, 31},
                               {33, 129}, {7, 16},  {3, 64},  {0, 5}};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

static void scale_add_bias(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 0);
    for (int i = 0; i < SHAPES; i++) {
        shape s = shapes[i];
        bq_mat x = make_filled(s.t, s.h, 2, 1, 1), y = make_filled(s.t, s.h, 7, 2, 1),
               b = make_filled(1, s.h, 0, 3, 1);
        bq_mat z = clone(y), old = clone(y), part = clone(y);
        dev.op->add(&dev, x, y), dev.op->bias(&dev, b, z), dev.op->scale(&dev, x, -0.3f, part);
        for (int64_t r = 0; r < s.t; r++)
            for (int64_t c = 0; c < s.h; c++) {
                assert_true((float)at(y, r, c) == (float)at(x, r, c) + (float)at(old, r, c));
                assert_true((float)at(z, r, c) == (float)at(b, 0, c) + (float)at(old, r, c));
                assert_true((float)at(part, r, c) == (float)at(x, r, c) * -0.3f);
            }
        assert_true(intact(x) && intact(y) && intact(z) && intact(b) && intact(part));
        drop(x), drop(y), drop(z), drop(b), drop(old), drop(part);
    }
    bq_dev_close(&dev);
}

/* Sums of what is not all f32 are made in f64 and rounded once. */
static void add_doubles(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 0);
    for (int i = 0; i < SHAPES; i++) {
        shape s = shapes[i];
        bq_mat f = make_filled(s.t, s.h, 2, 1, 1), g = make_filled(s.t, s.h, 1, 2, 1),
               x = make(s.t, s.h, 7, BQ_F64), y = make(s.t, s.h, 3, BQ_F64);
        for (int64_t r = 0; r < s.t; r++)
            for (int64_t c = 0; c < s.h; c++) {
                *(double *)bq_mat_at(x, r, c) = at(g, r, c) / 3;
                *(double *)bq_mat_at(y, r, c) = at(f, r, c) / 7;
            }
        bq_mat sum = clone(y), wide = clone(x), narrow = clone(f);
        dev.op->add(&dev, x, sum), dev.op->add(&dev, f, wide), dev.op->add(&dev, y, narrow);
        for (int64_t r = 0; r < s.t; r++)
            for (int64_t c = 0; c < s.h; c++) {
                assert_true(at(sum, r, c) == at(y, r, c) + at(x, r, c));
                assert_true(at(wide, r, c) == at(x, r, c) + at(f, r, c));
                assert_true((float)at(narrow, r, c) == (float)(at(f, r, c) + at(y, r, c)));
            }
        assert_true(intact(sum) && intact(wide) && intact(narrow) && intact(x) && intact(f));
        drop(f), drop(g), drop(x), drop(y), drop(sum), drop(wide), drop(narrow);
    }
    bq_dev_close(&dev);
}

/* A weight of `n` columns: each run of that many is normalized alone, in place as well. */
static void rmsnorm_runs(bq_dev *dev, shape s, int64_t runs, double eps) {
    int64_t n = s.h, cols = runs * n;
    bq_mat x = make_filled(s.t, cols, 2, 1, 3), w = make_filled(1, n, 0, 2, 1),
           y = make(s.t, cols, 5, BQ_F32);
    bq_mat dy = make_filled(s.t, cols, 1, 3, 1), dx = make_filled(s.t, cols, 4, 4, 1);
    double *dxs = doubles(x), *dws = doubles(w), *ddy = doubles(dy), *want = zeros(s.t * cols),
           *back = doubles(dx), *one = zeros(n);
    for (int64_t at = 0; at < s.t * cols; at += n) {
        norm_of(n, dxs + at, dws, eps, want + at);
        norm_back(n, dxs + at, dws, eps, ddy + at, one);
        for (int64_t c = 0; c < n; c++) back[at + c] += one[c];
    }
    dev->op->rmsnorm(dev, x, w, (float)eps, y);
    dev->op->rmsnorm_bwd(dev, x, w, (float)eps, dy, dx);
    assert_true(nmse(y, want) < LIMIT && nmse(dx, back) < LIMIT);
    assert_true(intact(y) && intact(dx) && intact(x));
    dev->op->rmsnorm(dev, x, w, (float)eps, x);
    assert_true(bits_of(0, x) == bits_of(0, y) && intact(x));
    free(dxs), free(dws), free(ddy), free(want), free(back), free(one);
    drop(x), drop(w), drop(y), drop(dy), drop(dx);
}

static void rmsnorm(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 0);
    for (int i = 0; i < SHAPES; i++) /* the larger eps shows if it is left out */
        for (int64_t runs = 1; runs < 4; runs++) rmsnorm_runs(&dev, shapes[i], runs, i % 2 ? 1e-5 : 0.25);
    for (int64_t runs = 1; runs < 3; runs++) rmsnorm_runs(&dev, (shape){19, 1030}, runs, 1e-5);
    bq_dev_close(&dev);
}

static void naive_norm_slope(void **state) {
    (void)state;
    enum { N = 33 };
    bq_mat x = make_filled(1, N, 0, 1, 2), w = make_filled(1, N, 0, 2, 1), dy = make_filled(1, N, 0, 3, 1);
    double *p = doubles(x), *q = doubles(w), *d = doubles(dy), back[N], y[2][N], error = 0, power = 0;
    norm_back(N, p, q, 1e-5, d, back);
    for (int i = 0; i < N; i++) {
        double slope = 0, old = p[i];
        p[i] = old + SLOPE_STEP, norm_of(N, p, q, 1e-5, y[0]);
        p[i] = old - SLOPE_STEP, norm_of(N, p, q, 1e-5, y[1]);
        p[i] = old;
        for (int j = 0; j < N; j++) slope += d[j] * (y[0][j] - y[1][j]) / (2 * SLOPE_STEP);
        error += (slope - back[i]) * (slope - back[i]), power += slope * slope;
    }
    assert_true(error / power < SLOPE_NMSE);
    free(p), free(q), free(d), drop(x), drop(w), drop(dy);
}

static void rope(void **state) {
    (void)state;
    static const struct {
        int64_t t, heads, hd, half;
    } cases[] = {{1, 1, 6, 3},    {31, 3, 10, 5}, {33, 2, 14, 5},  {127, 9, 64, 32},
                 {17, 2, 96, 48}, {5, 2, 96, 36}, {9, 1, 128, 64}, {3, 2, 8, 0}};
    bq_dev dev = cpu_with(2, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t t = cases[i].t, heads = cases[i].heads, hd = cases[i].hd, half = cases[i].half;
        bq_mat x = make_filled(t, heads * hd, 3, 1, 1), before = clone(x);
        bq_mat cs = make_filled(t, half, 1, 2, 1), sn = make_filled(t, half, 2, 3, 1);
        for (unsigned how = 0; how < 8; how++) {
            double *want = doubles(before);
            int64_t skip = how & BQ_TURN_LAST ? hd - 2 * half : 0, apart = how & BQ_TURN_PAIRS ? 1 : half;
            for (int64_t r = 0; r < t * heads; r++)
                for (int64_t k = 0; k < half; k++) {
                    double *p = want + r * hd + skip + (how & BQ_TURN_PAIRS ? 2 * k : k), a = p[0],
                           b = p[apart];
                    double c = at(cs, r / heads, k),
                           s = at(sn, r / heads, k) * (how & BQ_TURN_INVERSE ? -1 : 1);
                    p[0] = a * c - b * s, p[apart] = b * c + a * s;
                }
            bq_mat y = clone(before);
            dev.op->rope(&dev, y, heads, hd, cs, sn, how);
            assert_true(nmse(y, want) < LIMIT && intact(y));
            drop(y), free(want);
        }
        drop(x), drop(before), drop(cs), drop(sn);
    }
    bq_dev_close(&dev);
}

/* Of a clamped form the limits are met by some elements, and are below the largest. */
static void glu_one(bq_dev *dev, bq_act act, shape s, float deviation) {
    double limit = 1.5, most = act == BQ_SILU_CLAMPED ? limit : INFINITY, one = act == BQ_SILU_CLAMPED;
    bq_mat g = make_filled(s.t, s.h, 2, 1, deviation), u = make_filled(s.t, s.h, 1, 2, 1),
           z = make(s.t, s.h, 3, BQ_F32);
    bq_mat dz = make_filled(s.t, s.h, 0, 3, 1), dg = make(s.t, s.h, 4, BQ_F32),
           du = make(s.t, s.h, 5, BQ_F32);
    for (int64_t r = 0; r < s.t && one > 0; r++)
        for (int64_t c = r; c < s.h; c += 5) *ptr(c % 2 ? g : u, r, c) = (float)(c % 4 == 2 ? -limit : limit);
    int64_t n = s.t * s.h;
    double *pg = doubles(g), *pu = doubles(u), *pd = doubles(dz), *pz = zeros(n), *qg = zeros(n),
           *qu = zeros(n);
    for (int64_t i = 0; i < n; i++) {
        double x = fmin(pg[i], most), up = fmax(-most, fmin(pu[i], most)) + one, a = act_of(act, x);
        pz[i] = a * up, qg[i] = x == pg[i] ? pd[i] * up * act_slope(act, x) : 0;
        qu[i] = fabs(pu[i]) <= most ? pd[i] * a : 0;
    }
    dev->op->glu(dev, act, (float)limit, g, u, z);
    dev->op->glu_bwd(dev, act, (float)limit, g, u, dz, dg, du);
    assert_true(nmse(z, pz) < LIMIT && nmse(dg, qg) < LIMIT && nmse(du, qu) < LIMIT);
    assert_true(intact(z) && intact(dg) && intact(du) && intact(g) && intact(u));
    dev->op->glu_bwd(dev, act, (float)limit, g, u, dz, g, u); /* in place */
    assert_true(same(g, dg) && same(u, du));
    drop(g), drop(u), drop(z), drop(dz), drop(dg), drop(du);
    free(pg), free(pu), free(pd), free(pz), free(qg), free(qu);
}

static void glu(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 0);
    for (int i = 0; i < SHAPES; i++) {
        for (bq_act act = BQ_SILU; act <= BQ_SILU_CLAMPED; act++)
            glu_one(&dev, act, shapes[i], 2), glu_one(&dev, act, shapes[i], 60); /* saturated */
    }
    bq_dev_close(&dev);
}

/* Each row is divided by the mean square of its target; the first target is 0. */
static void relative_errors(bq_dev *dev, bq_mat y, bq_mat target, bq_mat dy, bq_mat there, double *want) {
    double factor = 0.125, sum = 0;
    for (int64_t c = 0; c < y.cols && y.rows; c++) *(float *)bq_mat_at(target, 0, c) = 0;
    for (int64_t r = 0; r < y.rows; r++) {
        double squares = 0, *d = want + r * y.cols;
        for (int64_t c = 0; c < y.cols; c++) squares += at(target, r, c) * at(target, r, c);
        for (int64_t c = 0; c < y.cols; c++) {
            double e = at(y, r, c) - at(target, r, c), over = r ? (double)y.cols / squares : 0;
            sum += e * e * over, d[c] = 2 * factor * e * over;
        }
    }
    dev->op->mse_there(dev, y, target, factor, true, dy, there);
    dev->op->wait(dev);
    assert_true(fabs(*(double *)there.data - factor * sum) <= 1e-6 * factor * sum && intact(there));
    assert_true(nmse(dy, want) < LIMIT && intact(dy));
}

static void mse(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 1 << 20);
    for (int i = 0; i < SHAPES; i++) {
        shape s = shapes[i];
        bq_mat y = make_filled(s.t, s.h, 1, 1, 1), target = make_filled(s.t, s.h, 2, 2, 1),
               dy = make(s.t, s.h, 3, BQ_F32);
        double factor = 0.125, sum = 0, loss[2] = {-1, -1}, *want = zeros(s.t * s.h);
        for (int64_t n = 0; n < s.t * s.h; n++) {
            double e = at(y, n / s.h, n % s.h) - at(target, n / s.h, n % s.h);
            sum += e * e, want[n] = 2 * factor * e;
        }
        dev.op->mse(&dev, y, target, factor, (bq_mat){0}, &loss[0]);
        dev.op->mse(&dev, y, target, factor, dy, &loss[1]);
        dev.op->wait(&dev);
        assert_true(fabs(loss[0] - factor * sum) <= 1e-6 * factor * sum && loss[0] == loss[1]);
        assert_true(nmse(dy, want) < LIMIT && intact(dy) && dev.mem.used == 0);
        dev.op->mse(&dev, y, target, factor, y, &loss[1]); /* in place */
        assert_true(same(y, dy) && loss[0] == loss[1] && intact(y));
        bq_mat there = make(1, 1, 2, BQ_F64);
        fill(y, 1, 1);
        dev.op->mse_there(&dev, y, target, factor, false, (bq_mat){0}, there);
        dev.op->wait(&dev);
        assert_true(*(double *)there.data == loss[0] && intact(there));
        relative_errors(&dev, y, target, dy, there, want);
        drop(there), drop(y), drop(target), drop(dy), free(want);
    }
    bq_dev_close(&dev);
}

/* ---- bits: every op once, on shapes with tails; run per number of threads and per instruction set ---- */

static uint64_t all_bits(void) {
    enum { T = 131, HEADS = 3, HD = 38, H = HEADS * HD };
    bq_dev dev = cpu_with(0, bq_op_scratch(T, (bq_attention)HEADS(1, 1, 1, 1, 0), 0));
    bq_mat x = make_filled(T, H, 1, 1, 1), y = make_filled(T, H, 2, 2, 2), z = make(T, H, 3, BQ_F32);
    bq_mat w = make_filled(1, H, 0, 3, 1), d = make_filled(T, H, 0, 4, 1), e = make(T, H, 0, BQ_F32);
    bq_mat cs = make_filled(T, HD / 2, 0, 5, 1), sn = make_filled(T, HD / 2, 0, 6, 1);
    bq_mat there = make(1, 1, 0, BQ_F64);
    double loss;
    uint64_t bits = 0;
    for (bq_act act = BQ_SILU; act <= BQ_SILU_CLAMPED; act++) {
        dev.op->glu(&dev, act, 0.7f, y, x, z), bits = bits_of(bits, z);
        dev.op->glu_bwd(&dev, act, 0.7f, y, x, d, z, e), bits = bits_of(bits_of(bits, z), e);
    }
    dev.op->rmsnorm(&dev, x, w, 1e-5f, z), bits = bits_of(bits, z);
    dev.op->rmsnorm_bwd(&dev, x, w, 1e-5f, d, z), bits = bits_of(bits, z);
    dev.op->mse(&dev, x, y, 0.37, z, &loss), bits = bits_of(bits, z) ^ bq_hash_bytes(&loss, sizeof loss);
    dev.op->mse_there(&dev, x, y, 0.37, true, z, there), bits = bits_of(bits_of(bits, z), there);
    dev.op->add(&dev, x, z), dev.op->bias(&dev, w, z), bits = bits_of(bits, z);
    dev.op->rope(&dev, z, HEADS, HD, cs, sn, 0), bits = bits_of(bits, z);
    dev.op->rope(&dev, z, HEADS, HD, cs, sn, BQ_TURN_INVERSE), bits = bits_of(bits, z);
    drop(x), drop(y), drop(z), drop(w), drop(d), drop(e), drop(cs), drop(sn), drop(there);
    bq_dev_close(&dev);
    return bits;
}

/* The vectors' exp and tanh are those of base/num.h to the last bit, seen through exp(s - lse) with lse 0 and
 * through a cap of 1. */
static void exp_and_tanh_are_those_of_num(void **state) {
    (void)state;
    enum { ROWS = 64, COLS = 1003 };
    bq_mat x = make_filled(ROWS, COLS, 0, 9, 40), p = clone(x), dp = make_filled(ROWS, COLS, 0, 8, 1);
    float none[ROWS] = {0};
    static const float edges[] = {0,      -0.0f, 87.33f, -87.33f, -87.34f, -87.32f,   -87.1f,   -88,
                                  87.99f, 88,    88.1f,  1e30f,   -1e30f,  -INFINITY, INFINITY, 1e-40f};
    memcpy(x.data, edges, sizeof edges), memcpy(p.data, edges, sizeof edges);
    bq_tile all = {.rows = ROWS, .cols = COLS, .ld = COLS, .shift = COLS};
    bq_vec()->softmax_bwd(all, none, none, p.data, dp.data);
    for (int64_t i = 0; i < ROWS * COLS; i++)
        assert_true(bq_bits(bq_f32(p)[i]) == bq_bits(bq_exp(bq_f32(x)[i] - 0)));
    memcpy(p.data, x.data, ROWS * COLS * sizeof(float));
    bq_vec()->cap(ROWS * COLS, 1, p.data);
    for (int64_t i = 0; i < ROWS * COLS; i++)
        assert_true(bq_bits(bq_f32(p)[i]) == bq_bits(bq_tanh(bq_f32(x)[i])));
    assert_true(intact(p) && intact(dp));
    drop(x), drop(p), drop(dp);
}

int main(void) {
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scale_add_bias),
        cmocka_unit_test(add_doubles),
        cmocka_unit_test(naive_norm_slope),
        cmocka_unit_test(rmsnorm),
        cmocka_unit_test(rope),
        cmocka_unit_test(glu),
        cmocka_unit_test(mse),
        cmocka_unit_test(exp_and_tanh_are_those_of_num),
        SAME_BITS,
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
