/* SPDX-License-Identifier: Apache-2.0 */
/* Ops of mixtures of experts against naive loops in double; the naive backward of the router against
 * differences of its naive weights. */
#include "same_bits.h"

#include <math.h>

#define LIMIT      1e-12
#define SLOPE_STEP 1e-5
#define SLOPE_NMSE 1e-14

typedef struct {
    int64_t t, experts;
    bq_router r;
    bool bias;
} routing;

#define SOFTMAX(k, normalize)                                                                                \
    { BQ_ROUTE_SOFTMAX, k, 1, 1, normalize, 1 }
#define SIGMOID(k, groups, kept, normalize, by)                                                              \
    { BQ_ROUTE_SIGMOID, k, groups, kept, normalize, by }
static const routing routings[] = {
    {1, 1, SOFTMAX(1, false), false},
    {31, 33, SOFTMAX(4, false), false},
    {129, 127, SOFTMAX(8, true), false},
    {3, 257, SOFTMAX(31, true), false},
    {0, 7, SOFTMAX(2, true), false},
    {17, 5, SOFTMAX(5, false), false},
    {127, 48, SIGMOID(6, 8, 3, true, 2.5f), true},
    {33, 66, SIGMOID(5, 33, 17, true, 1), true}, /* more groups than lanes */
    {5, 64, SIGMOID(3, 64, 7, false, 1), true},  /* groups of one expert */
    {257, 31, SIGMOID(3, 1, 1, false, 1.7f), true},
    {31, 6, SIGMOID(2, 2, 1, true, 1), false},
};
#define ROUTINGS (sizeof routings / sizeof *routings)

/* ---- the naive forms ---- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double score_of(bq_router r, const double *l, const double *bias, int64_t e) {
    return r.kind == BQ_ROUTE_SOFTMAX ? l[e] : sigmoid(l[e]) + bias[e];
}

/* The first of the largest values that are not taken, which is then taken. */
static int64_t take(int64_t n, const double *value, bool *taken) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (!taken[i] && (best < 0 || value[i] > value[best])) best = i;
    taken[best] = true;
    return best;
}

/* chosen: a flag for each expert */
static void naive_choice(bq_router r, int64_t experts, const double *l, const double *bias, bool *chosen) {
    int64_t size = experts / r.groups;
    double *score = zeros(experts), *group = zeros(r.groups);
    bool kept[64] = {false};
    for (int64_t g = 0; g < r.groups; g++) {
        double first = -INFINITY, second = -INFINITY;
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            double s = score[e] = score_of(r, l, bias, e);
            second = fmax(second, fmin(s, first)), first = fmax(first, s);
        }
        group[g] = size > 1 ? first + second : first;
    }
    for (int i = 0; i < r.kept; i++) take(r.groups, group, kept);
    memset(chosen, 0, (size_t)experts);
    for (int64_t e = 0; e < experts; e++)
        if (!kept[e / size]) score[e] = -INFINITY;
    for (int i = 0; i < r.chosen; i++) take(experts, score, chosen);
    free(score), free(group);
}

/* w: for each expert its weight, 0 where it is not chosen */
static void naive_weights(bq_router r, int64_t experts, const double *l, const bool *chosen, double *w) {
    double sum = 0, all = 0;
    for (int64_t e = 0; e < experts; e++) {
        w[e] = r.kind == BQ_ROUTE_SOFTMAX ? exp(l[e]) : sigmoid(l[e]);
        all += w[e], sum += chosen[e] ? w[e] : 0;
    }
    if (!r.normalize) sum = r.kind == BQ_ROUTE_SOFTMAX ? all : 1;
    for (int64_t e = 0; e < experts; e++) w[e] = chosen[e] ? (double)r.factor * w[e] / sum : 0;
}

/* dl_e by differences of sum w dw. */
static void naive_back(bq_router r, int64_t experts, double *l, const bool *chosen, const double *dw,
                       double *dl) {
    double *w[2] = {zeros(experts), zeros(experts)};
    for (int64_t e = 0; e < experts; e++) {
        double old = l[e];
        l[e] = old + SLOPE_STEP, naive_weights(r, experts, l, chosen, w[0]);
        l[e] = old - SLOPE_STEP, naive_weights(r, experts, l, chosen, w[1]);
        l[e] = old, dl[e] = 0;
        for (int64_t o = 0; o < experts; o++) dl[e] += dw[o] * (w[0][o] - w[1][o]) / (2 * SLOPE_STEP);
    }
    free(w[0]), free(w[1]);
}

/* ---- routers ---- */

typedef struct {
    bq_mat logits, bias, index, weight, dweight, dlogits;
} router;

static router build(routing c) {
    return (router){
        make_filled(c.t, c.experts, 3, 1, 2),  c.bias ? make_filled(1, c.experts, 0, 2, 0.3f) : (bq_mat){0},
        make(c.t, c.r.chosen, 1, BQ_I32),      make(c.t, c.r.chosen, 2, BQ_F32),
        make_filled(c.t, c.r.chosen, 4, 3, 1), make(c.t, c.experts, 5, BQ_F32)};
}

static void tear(router m) {
    assert_true(intact(m.logits) && intact(m.index) && intact(m.weight) && intact(m.dlogits));
    drop(m.logits), drop(m.bias), drop(m.index), drop(m.weight), drop(m.dweight), drop(m.dlogits);
}

static int64_t expert(bq_mat index, int64_t t, int64_t i) { return *(int32_t *)bq_mat_at(index, t, i); }

/* The experts that the op took are the naive ones, in ascending order. */
static void same_choice(routing c, router m, int64_t t, const bool *chosen) {
    int64_t i = 0;
    for (int64_t e = 0; e < c.experts; e++)
        if (chosen[e]) assert_int_equal(expert(m.index, t, i++), e);
    assert_int_equal(i, c.r.chosen);
}

static void check(bq_dev *dev, routing c, router m) {
    dev->op->route(dev, c.r, m.logits, m.bias, m.index, m.weight);
    dev->op->route_bwd(dev, c.r, m.logits, m.index, m.dweight, m.dlogits);
    dev->op->wait(dev);
    double *bias = c.bias ? doubles(m.bias) : zeros(c.experts), *logits = doubles(m.logits),
           *w = zeros(c.experts), *dw = zeros(c.experts), *want = zeros(c.t * c.r.chosen),
           *back = zeros(c.t * c.experts);
    bool *chosen = calloc((size_t)c.experts, 1);
    for (int64_t t = 0; t < c.t; t++) {
        double *l = logits + t * c.experts;
        naive_choice(c.r, c.experts, l, bias, chosen), same_choice(c, m, t, chosen);
        naive_weights(c.r, c.experts, l, chosen, w);
        for (int64_t i = 0; i < c.r.chosen; i++) {
            int64_t e = expert(m.index, t, i);
            want[t * c.r.chosen + i] = w[e], dw[e] = at(m.dweight, t, i);
        }
        naive_back(c.r, c.experts, l, chosen, dw, back + t * c.experts);
    }
    assert_true(nmse(m.weight, want) < LIMIT);
    if (c.experts > 1) assert_true(nmse(m.dlogits, back) < LIMIT);
    free(bias), free(logits), free(w), free(dw), free(want), free(back), free(chosen);
}

static void routers(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 0);
    for (size_t i = 0; i < ROUTINGS; i++) {
        router m = build(routings[i]);
        check(&dev, routings[i], m), tear(m);
    }
    bq_dev_close(&dev);
}

/* Few different values, so that the choice is made by the numbers of experts and groups; -0 is 0. */
static void ties(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 0);
    for (size_t i = 0; i < ROUTINGS; i++) {
        routing c = routings[i];
        router m = build(c);
        for (int64_t t = 0; t < c.t; t++)
            for (int64_t e = 0; e < c.experts; e++) {
                float *l = ptr(m.logits, t, e);
                *l = t % 3 == 0 ? 1 : rintf(*l / 2);
            }
        if (c.bias) dev.op->zero(&dev, m.bias);
        check(&dev, c, m), tear(m);
    }
    bq_dev_close(&dev);
}

/* Logits of NaN are taken last, and they show in the weights. */
static void nan_comes_last(void **state) {
    (void)state;
    bq_dev dev = cpu_with(1, 0);
    routing c = {2, 9, SIGMOID(4, 3, 2, true, 1), false};
    router m = build(c);
    for (int64_t e = 0; e < 9; e++) *ptr(m.logits, 0, e) = e == 2 || e == 7 ? -INFINITY : NAN;
    dev.op->route(&dev, c.r, m.logits, m.bias, m.index, m.weight);
    dev.op->wait(&dev);
    for (int i = 0; i < 4; i++) assert_int_equal(expert(m.index, 0, i), ((const int[]){0, 1, 2, 3})[i]);
    assert_true(isnan(f32(m.weight, 0, 0)) && !isnan(f32(m.weight, 1, 0)));
    tear(m), bq_dev_close(&dev);
}

/* ---- rows to and from experts ---- */

typedef struct {
    int64_t rows, n, cols; /* rows of the large matrix; of the small one */
} listing;

static const listing listings[] = {{1, 1, 1}, {31, 17, 33},  {129, 129, 127}, {257, 3, 257},  {33, 0, 5},
                                   {7, 7, 1}, {127, 31, 64}, {3, 2, 1031},    {521, 389, 129}};
#define LISTINGS (sizeof listings / sizeof *listings)

/* n of the rows, each once, not in order. */
static bq_mat distinct(listing c) {
    bq_mat index = make(c.n, 1, 2, BQ_I32);
    int64_t step = c.rows > 2 ? 2 : 1; /* no factor of the rows, which are odd */
    for (int64_t i = 0; i < c.n; i++) *(int32_t *)bq_mat_at(index, i, 0) = (int32_t)((i + 1) * step % c.rows);
    return index;
}

typedef struct {
    bq_mat large, small, index, weight, out, sum, dot;
} rows;

static rows rows_of(listing c) {
    rows m = {make_filled(c.rows, c.cols, 3, 1, 1),
              make_filled(c.n, c.cols, 1, 2, 1),
              distinct(c),
              make_filled(c.n, 1, 2, 3, 1),
              make(c.n, c.cols, 5, BQ_F32),
              {0},
              make(c.n, 1, 3, BQ_F32)};
    m.sum = clone(m.large);
    return m;
}

static void tear_rows(rows m) {
    assert_true(intact(m.large) && intact(m.small) && intact(m.out) && intact(m.sum) && intact(m.dot));
    drop(m.large), drop(m.small), drop(m.index), drop(m.weight), drop(m.out), drop(m.sum), drop(m.dot);
}

static void run_rows(bq_dev *dev, rows m) {
    dev->op->gather_rows(dev, m.large, m.index, m.weight, m.out);
    dev->op->scatter_add_rows(dev, m.small, m.index, m.weight, m.sum);
    dev->op->dot_rows(dev, m.large, m.index, m.small, m.dot);
    dev->op->wait(dev);
}

static void rows_go_and_come(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 0);
    for (size_t i = 0; i < LISTINGS; i++) {
        listing c = listings[i];
        rows m = rows_of(c);
        run_rows(&dev, m);
        double *sum = doubles(m.large), *dot = zeros(c.n), power = 0, error = 0;
        for (int64_t r = 0; r < c.n; r++) {
            int64_t row = expert(m.index, r, 0);
            for (int64_t k = 0; k < c.cols; k++) {
                assert_true(f32(m.out, r, k) == f32(m.large, row, k) * f32(m.weight, r, 0));
                sum[row * c.cols + k] += at(m.weight, r, 0) * at(m.small, r, k);
                dot[r] += at(m.large, row, k) * at(m.small, r, k);
                power += pow(at(m.large, row, k) * at(m.small, r, k), 2);
            }
            error += pow(at(m.dot, r, 0) - dot[r], 2);
        }
        assert_true(nmse(m.sum, sum) < LIMIT && error <= LIMIT * power);
        dev.op->gather_rows(&dev, m.large, m.index, (bq_mat){0}, m.out);
        dev.op->wait(&dev);
        for (int64_t r = 0; r < c.n; r++)
            for (int64_t k = 0; k < c.cols; k++)
                assert_true(f32(m.out, r, k) == f32(m.large, expert(m.index, r, 0), k));
        free(sum), free(dot), tear_rows(m);
    }
    bq_dev_close(&dev);
}

/* Lists of some tokens' choices: the same as by looking for each expert in turn. */
static void lists(void **state) {
    (void)state;
    bq_dev dev = cpu_with(2, 0);
    for (size_t i = 0; i < ROUTINGS; i++) {
        routing c = routings[i];
        router m = build(c);
        int64_t k = c.r.chosen, n = c.t * k, at = 0;
        bq_mat row = make(n, 1, 0, BQ_I32), slots = make(n, 1, 0, BQ_I32),
               start = make(c.experts + 1, 1, 0, BQ_I32);
        dev.op->route(&dev, c.r, m.logits, m.bias, m.index, m.weight);
        dev.op->expert_lists(&dev, m.index, row, slots, start);
        dev.op->wait(&dev);
        for (int64_t e = 0; e < c.experts; e++) {
            assert_true(expert(start, e, 0) == at);
            for (int64_t s = 0; s < n; s++)
                if (expert(m.index, s / k, s % k) == e) {
                    assert_true(expert(row, at, 0) == s / k && expert(slots, at, 0) == s);
                    at++;
                }
        }
        assert_true(at == n && expert(start, c.experts, 0) == n);
        assert_true(intact(row) && intact(slots) && intact(start));
        drop(row), drop(slots), drop(start), tear(m);
    }
    bq_dev_close(&dev);
}

/* ---- bits ---- */

static uint64_t all_bits(void) {
    bq_dev dev = cpu_with(0, 0);
    uint64_t bits = 0;
    for (size_t i = 0; i < ROUTINGS; i++) {
        routing c = routings[i];
        router m = build(c);
        dev.op->route(&dev, c.r, m.logits, m.bias, m.index, m.weight);
        dev.op->route_bwd(&dev, c.r, m.logits, m.index, m.dweight, m.dlogits);
        bits = bits_of(bits_of(bits_of(bits, m.index), m.weight), m.dlogits);
        tear(m);
    }
    for (size_t i = 0; i < LISTINGS; i++) {
        rows m = rows_of(listings[i]);
        run_rows(&dev, m);
        bits = bits_of(bits_of(bits_of(bits, m.out), m.sum), m.dot);
        tear_rows(m);
    }
    bq_dev_close(&dev);
    return bits;
}

int main(void) {
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routers),          cmocka_unit_test(ties),  cmocka_unit_test(nan_comes_last),
        cmocka_unit_test(rows_go_and_come), cmocka_unit_test(lists), SAME_BITS,
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
