/* SPDX-License-Identifier: Apache-2.0 */
/* Attention, both directions, against naive loops in double; the naive backward against differences of the
 * naive forward.  Shapes: lengths around tiles, groups, windows, odd head sizes, columns inside wider
 * matrices. */
#include "same_bits.h"

#include <math.h>

#define LIMIT      1e-11 /* NMSE of out and lse: float32 leaves about 1e-13 */
#define LIMIT_BWD  1e-10
#define SLOPE_STEP 1e-5
#define SLOPE_NMSE 1e-12

typedef struct {
    int64_t t;
    bq_attention a;
    float deviation; /* of q and k: how peaked the softmax is */
    bool sinks;
} shape;

#define CAPPED(n, kv, size, by, w, limit)                                                                    \
    { .heads = n, .kv_heads = kv, .head_dim = size, .scale = by, .window = w, .cap = limit }

static const shape shapes[] = {
    {1, HEADS(1, 1, 6, 0.4f, 0), 1, 0},
    {2, HEADS(2, 1, 10, 0.3f, 0), 1, 0},
    {31, HEADS(4, 2, 14, 0.27f, 0), 1, 0},
    {33, HEADS(9, 3, 64, 0.125f, 0), 1, 0},
    {127, HEADS(2, 2, 96, 0.1f, 0), 1, 0},
    {128, HEADS(1, 1, 128, 0.09f, 0), 1, 0},
    {129, HEADS(6, 2, 10, 0.31f, 0), 1, 0},
    {257, HEADS(3, 1, 6, 0.4f, 0), 1, 0},
    {257, HEADS(2, 1, 64, 0.125f, 0), 6, 0},
    {521, HEADS(3, 1, 14, 0.27f, 0), 1, 0},
    {1031, HEADS(1, 1, 6, 0.4f, 0), 1, 0},
    {31, HEADS(2, 2, 6, 0.4f, 1), 1, 0},
    {129, HEADS(4, 2, 10, 0.3f, 3), 1, 0},
    {257, HEADS(2, 1, 14, 0.3f, 128), 1, 0},
    {257, HEADS(2, 1, 14, 0.3f, 129), 1, 0},
    {521, HEADS(2, 1, 10, 0.3f, 130), 1, 0},
    {389, HEADS(2, 2, 6, 0.4f, 31), 1, 0},
    {127, HEADS(2, 1, 6, 0.4f, 500), 1, 0},
    {127, CAPPED(4, 2, 10, 0.3f, 0, 0.8f), 1, 0},
    {129, CAPPED(2, 1, 96, 0.5f, 31, 50), 1, 0}, /* the slope near 1, and far from it */
    {389, CAPPED(3, 1, 14, 0.27f, 130, 2.5f), 6, 0},
    {1, HEADS(2, 1, 6, 0.4f, 0), 1, 1},
    {129, HEADS(4, 2, 10, 0.3f, 3), 1, 1},
    {257, HEADS(3, 1, 14, 0.3f, 130), 6, 1},
    {131, CAPPED(5, 5, 7, 0.3f, 0, 2), 1, 1},
    {1, VALUES(2, 2, 6, 1, 0.4f, 0), 1, 0},
    {129, VALUES(4, 2, 15, 10, 0.3f, 0), 1, 0},
    {257, VALUES(3, 1, 6, 33, 0.4f, 130), 1, 1},
    {65, VALUES(2, 1, 192, 128, 0.07f, 0), 1, 0},
    {67, VALUES(1, 1, 131, 254, 0.07f, 31), 1, 0},
    {260, VALUES(33, 33, 9, 5, 0.4f, 0), 1, 0},
    {260, HEADS(34, 34, 6, 0.4f, 0), 1, 0}, /* as many kv heads as backward tasks: the path without buffers */
};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

/* ---- the naive forms; everything contiguous ---- */

typedef struct {
    double *q, *k, *v, *out, *lse, *dout, *dq, *dk, *dv, *sinks; /* sinks: or NULL */
    bool floats;                                                 /* scores and lse are rounded to float */
} naive;

static bool sees(bq_attention a, int64_t i, int64_t j) {
    return j <= i && (a.window == 0 || i - a.window < j);
}

static int64_t value_dim(bq_attention a) { return a.value_dim > 0 ? a.value_dim : a.head_dim; }

static double *cell(double *m, int64_t heads, int64_t hd, int64_t t, int64_t h) {
    return m + (t * heads + h) * hd;
}

/* As a backend may compute it: a chain of sums in float. */
static double float_score(const double *q, const double *k, bq_attention a) {
    float s = 0;
    for (int64_t c = 0; c < a.head_dim; c++) s = fmaf((float)q[c], (float)k[c], s);
    s *= a.scale;
    return (double)(a.cap != 0 ? a.cap * tanhf(s / a.cap) : s);
}

/* p: scores' probabilities of query i of head h, T of them; score: the visible scores, unless NULL */
static void weigh(const naive *n, shape s, int64_t h, int64_t i, double *score, double *p) {
    bq_attention a = s.a;
    int64_t kv = h / (a.heads / a.kv_heads);
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s.t; j++) {
        p[j] = -INFINITY;
        if (!sees(a, i, j)) continue;
        const double *q = cell(n->q, a.heads, a.head_dim, i, h),
                     *k = cell(n->k, a.kv_heads, a.head_dim, j, kv);
        p[j] = 0;
        for (int64_t c = 0; c < a.head_dim; c++) p[j] += (double)a.scale * q[c] * k[c];
        if (a.cap != 0) p[j] = (double)a.cap * tanh(p[j] / (double)a.cap);
        if (n->floats) p[j] = float_score(q, k, a);
        if (score) score[j] = p[j];
        max = fmax(max, p[j]);
    }
    if (n->sinks) max = fmax(max, n->sinks[h]), sum = exp(n->sinks[h] - max);
    for (int64_t j = 0; j < s.t; j++) sum += exp(p[j] - max);
    n->lse[h * s.t + i] = n->floats ? (double)(float)(max + log(sum)) : max + log(sum);
    for (int64_t j = 0; j < s.t; j++) p[j] = exp(p[j] - n->lse[h * s.t + i]);
}

static void naive_forward(const naive *n, shape s) {
    bq_attention a = s.a;
    int64_t vd = value_dim(a);
    double *p = zeros(s.t);
    for (int64_t h = 0; h < a.heads; h++)
        for (int64_t i = 0; i < s.t; i++) {
            weigh(n, s, h, i, NULL, p);
            double *out = cell(n->out, a.heads, vd, i, h);
            for (int64_t c = 0; c < vd; c++) out[c] = 0;
            for (int64_t j = 0; j < s.t; j++) {
                const double *v = cell(n->v, a.kv_heads, vd, j, h / (a.heads / a.kv_heads));
                for (int64_t c = 0; p[j] != 0 && c < vd; c++) out[c] += p[j] * v[c];
            }
        }
    free(p);
}

/* dq, dk, dv start as zeros. */
static void naive_backward(const naive *n, shape s) {
    bq_attention a = s.a;
    int64_t hd = a.head_dim, vd = value_dim(a);
    double *p = zeros(s.t), *score = zeros(s.t);
    for (int64_t h = 0; h < a.heads; h++)
        for (int64_t i = 0; i < s.t; i++) {
            int64_t kv = h / (a.heads / a.kv_heads);
            weigh(n, s, h, i, score, p);
            const double *dout = cell(n->dout, a.heads, vd, i, h), *out = cell(n->out, a.heads, vd, i, h);
            const double *q = cell(n->q, a.heads, hd, i, h);
            double *dq = cell(n->dq, a.heads, hd, i, h), d = 0;
            for (int64_t c = 0; c < vd; c++) d += dout[c] * out[c];
            for (int64_t j = 0; j < s.t; j++) {
                if (p[j] == 0) continue;
                const double *k = cell(n->k, a.kv_heads, hd, j, kv), *v = cell(n->v, a.kv_heads, vd, j, kv);
                double *dk = cell(n->dk, a.kv_heads, hd, j, kv), *dv = cell(n->dv, a.kv_heads, vd, j, kv),
                       dp = 0;
                for (int64_t c = 0; c < vd; c++) dp += dout[c] * v[c];
                double ds = p[j] * (dp - d) * (double)a.scale;
                if (a.cap != 0) ds *= 1 - pow(score[j] / (double)a.cap, 2);
                for (int64_t c = 0; c < vd; c++) dv[c] += p[j] * dout[c];
                for (int64_t c = 0; c < hd; c++) dk[c] += ds * q[c], dq[c] += ds * k[c];
            }
        }
    free(p), free(score);
}

/* ---- one case: matrices as columns of wider ones, as the blocks hold them ---- */

typedef struct {
    bq_mat qkv, dqkv, q, k, v, out, lse, dout, dq, dk, dv, sinks;
} fixture;

static fixture build(shape s) {
    int64_t nq = s.a.heads * s.a.head_dim, nk = s.a.kv_heads * s.a.head_dim, no = s.a.heads * value_dim(s.a),
            nv = s.a.kv_heads * value_dim(s.a);
    fixture f = {.qkv = make_filled(s.t, nq + nk + nv, 3, 1, s.deviation),
                 .dqkv = make(s.t, nq + nk + nv, 1, BQ_F32)};
    f.q = bq_mat_cols(f.qkv, 0, nq), f.k = bq_mat_cols(f.qkv, nq, nk), f.v = bq_mat_cols(f.qkv, nq + nk, nv);
    f.dq = bq_mat_cols(f.dqkv, 0, nq), f.dk = bq_mat_cols(f.dqkv, nq, nk),
    f.dv = bq_mat_cols(f.dqkv, nq + nk, nv);
    f.out = make(s.t, no, 5, BQ_F32), f.lse = make(s.a.heads, s.t, 2, BQ_F32),
    f.dout = make_filled(s.t, no, 1, 2, 1);
    if (s.sinks) f.sinks = make_filled(1, s.a.heads, 1, 3, 2);
    for (int64_t r = 0; r < s.t; r++) { /* what is overwritten must not matter */
        for (int64_t c = 0; c < no; c++) *(float *)bq_mat_at(f.out, r, c) = NAN;
        for (int64_t c = 0; c < nq + nk + nv; c++) *(float *)bq_mat_at(f.dqkv, r, c) = NAN;
    }
    return f;
}

/* Where a query sees one key, its probability is 1 and nothing moves it: dq and dk are 0 but for rounding. */
static bool nothing_moves(shape s) { return (s.t == 1 || s.a.window == 1) && !s.sinks; }

/* room: the NMSE that the backends may be apart */
static void run(bq_dev *dev, shape s, fixture f, double room) {
    s.a.sinks = f.sinks;
    if (ops_allow) ops_allow(room);
    dev->op->attention(dev, s.a, f.q, f.k, f.v, f.out, f.lse);
    if (ops_allow && nothing_moves(s)) ops_allow(INFINITY);
    dev->op->attention_bwd(dev, s.a, f.q, f.k, f.v, f.out, f.lse, f.dout, f.dq, f.dk, f.dv);
    dev->op->wait(dev);
    if (ops_allow) ops_allow(0);
}

static void tear(fixture f) {
    drop(f.qkv), drop(f.dqkv), drop(f.out), drop(f.lse), drop(f.dout), drop(f.sinks);
}

static naive naive_of(fixture f, shape s) {
    int64_t nq = s.t * f.q.cols, nk = s.t * f.k.cols, nv = s.t * f.v.cols;
    return (naive){.q = doubles(f.q),
                   .k = doubles(f.k),
                   .v = doubles(f.v),
                   .out = zeros(s.t * f.out.cols),
                   .lse = zeros(s.t * s.a.heads),
                   .dout = doubles(f.dout),
                   .dq = zeros(nq),
                   .dk = zeros(nk),
                   .dv = zeros(nv),
                   .sinks = s.sinks ? doubles(f.sinks) : NULL};
}

static void free_naive(naive n) {
    free(n.q), free(n.k), free(n.v), free(n.out), free(n.lse), free(n.dout), free(n.dq), free(n.dk),
        free(n.dv), free(n.sinks);
}

/* ---- how near ---- */

/* sum (got - want)^2 / sum want^2 */
static double apart(const double *got, const double *want, int64_t n) {
    double error = 0, power = 0;
    for (int64_t i = 0; i < n; i++)
        error += (got[i] - want[i]) * (got[i] - want[i]), power += want[i] * want[i];
    return error == 0 ? 0 : error / power;
}

/* What the condition of a case allows.  An error e in a score changes its probability by the factor 1 + e,
 * and a score of size s that is computed in floats has an error of some 2^-24 s: so where the softmax is
 * peaked, with scores of 100, probabilities are known to 1e-5, whatever comes after.  How much of the result
 * that is, the case itself says: `rough` has each score as a chain of sums in float, and lse as a float, and
 * all else in double.  A backend computes scores in another order, whose error is independent and of the
 * same size, and rounds a score again where it subtracts lse: its error may be twice as large, 4 times in
 * squares. Two backends may then be twice as far apart as one is from the exact result. */
typedef struct {
    double out, dq, dk, dv;
} room;

static room room_of(const naive *rough, const naive *n, fixture f, shape s) {
    return (room){4 * apart(rough->out, n->out, s.t * f.out.cols),
                  4 * apart(rough->dq, n->dq, s.t * f.q.cols), 4 * apart(rough->dk, n->dk, s.t * f.k.cols),
                  4 * apart(rough->dv, n->dv, s.t * f.v.cols)};
}

static bool agree(bq_mat got, const double *want, shape s, double more) {
    if (!nothing_moves(s)) return nmse(got, want) < LIMIT_BWD + more;
    for (int64_t r = 0; r < got.rows; r++)
        for (int64_t c = 0; c < got.cols; c++)
            if (!(fabs(at(got, r, c)) < 1e-5)) return false;
    return true;
}

static void check(shape s) {
    fixture f = build(s);
    naive n = naive_of(f, s), rough = naive_of(f, s);
    rough.floats = true;
    naive_forward(&n, s), naive_backward(&n, s);
    naive_forward(&rough, s), naive_backward(&rough, s);
    room more = room_of(&rough, &n, f, s);
    bq_dev dev = cpu_with(2, 0);
    bq_arena_open(&dev.mem, bq_op_scratch(s.t, s.a, 1)); /* enough, with 2 threads or 3 */
    run(&dev, s, f, 4 * fmax(fmax(more.out, more.dv), fmax(more.dq, more.dk)));
    assert_true(nmse(f.out, n.out) < LIMIT + more.out && nmse(f.lse, n.lse) < LIMIT);
    assert_true(agree(f.dq, n.dq, s, more.dq) && agree(f.dk, n.dk, s, more.dk));
    assert_true(nmse(f.dv, n.dv) < LIMIT_BWD + more.dv);
    assert_true(intact(f.qkv) && intact(f.dqkv) && intact(f.out) && intact(f.lse) && intact(f.dout));
    assert_true(dev.mem.used == 0 && dev.mem.peak == bq_op_scratch(s.t, s.a, 1));
    bq_dev_close(&dev), free_naive(n), free_naive(rough), tear(f);
}

static void equals_naive(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++)
        if (!few_cases() || shapes[i].t * shapes[i].t * shapes[i].a.heads <= 2 * 257 * 257)
            check(shapes[i]); /* larger ones take no other path through a kernel */
}

/* A loss sum(out * dout), moved by each input in turn. */
static double slope_error(naive *n, shape s, double *input, const double *gradient, int64_t count) {
    double error = 0, power = 0;
    int64_t outs = s.t * s.a.heads * value_dim(s.a);
    for (int64_t i = 0; i < count; i++) {
        double old = input[i], loss[2] = {0, 0};
        for (int side = 0; side < 2; side++) {
            input[i] = old + (side ? -SLOPE_STEP : SLOPE_STEP);
            naive_forward(n, s);
            for (int64_t c = 0; c < outs; c++) loss[side] += n->out[c] * n->dout[c];
        }
        input[i] = old;
        double slope = (loss[0] - loss[1]) / (2 * SLOPE_STEP);
        error += (slope - gradient[i]) * (slope - gradient[i]), power += slope * slope;
    }
    return error / power;
}

static void naive_backward_is_a_slope(void **state) {
    (void)state;
    static const shape some[] = {{9, HEADS(4, 2, 6, 0.4f, 0), 1, 0},
                                 {11, HEADS(2, 1, 6, 0.4f, 4), 1, 0},
                                 {10, CAPPED(2, 2, 6, 0.4f, 0, 0.7f), 1, 0},
                                 {9, HEADS(2, 1, 6, 0.4f, 3), 1, 1},
                                 {7, VALUES(4, 2, 6, 4, 0.4f, 0), 1, 0}};
    for (int i = 0; i < 5; i++) {
        shape s = some[i];
        fixture f = build(s);
        naive n = naive_of(f, s);
        naive_forward(&n, s), naive_backward(&n, s);
        int64_t nq = s.t * f.q.cols, nk = s.t * f.k.cols, nv = s.t * f.v.cols;
        assert_true(slope_error(&n, s, n.q, n.dq, nq) < SLOPE_NMSE);
        assert_true(slope_error(&n, s, n.k, n.dk, nk) < SLOPE_NMSE);
        assert_true(slope_error(&n, s, n.v, n.dv, nv) < SLOPE_NMSE);
        free_naive(n), tear(f);
    }
}

/* ---- bits ---- */

static uint64_t all_bits(void) {
    static const shape some[] = {{521, HEADS(3, 1, 14, 0.27f, 0), 1, 0},
                                 {389, HEADS(4, 2, 10, 0.3f, 100), 1, 0},
                                 {260, HEADS(34, 34, 6, 0.4f, 0), 1, 0},
                                 {131, CAPPED(2, 1, 18, 0.4f, 0, 2), 1, 1},
                                 {389, VALUES(3, 1, 14, 9, 0.3f, 0), 1, 0}};
    uint64_t bits = 0;
    for (int i = 0; i < 5 && !few_cases(); i++) {
        bq_dev dev = cpu_with(0, 0);
        bq_arena_open(&dev.mem, bq_op_scratch(some[i].t, some[i].a, 1));
        fixture f = build(some[i]);
        run(&dev, some[i], f, 0);
        bits = bits_of(bits_of(bits_of(bits, f.out), f.lse), f.dqkv);
        tear(f), bq_dev_close(&dev);
    }
    return bits;
}

int main(void) {
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(naive_backward_is_a_slope),
        cmocka_unit_test(equals_naive),
        SAME_BITS,
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
