/* SPDX-License-Identifier: Apache-2.0 */
/* gptq_problem.h - layers for the tests of GPTQ's ops, and oracles in double that never look at the ops. */
#ifndef GPTQ_PROBLEM_H
#define GPTQ_PROBLEM_H

#include "ops_common.h"

#include <math.h>

static bq_dev dev;
static const bq_shrink few_ends = {100, 20, BQ_NORM_24}; /* of BQ_CLIP_MSE */

static inline int64_t order_at(bq_mat order, int64_t i) {
    return order.data ? *(int32_t *)bq_mat_at(order, i, 0) : i;
}

typedef struct {
    bq_scheme s;
    bq_order kind;
    int64_t rows, k, group, groups;
    bq_mat w, x, h, diag, order, u /* transposed */, scale, zero, fold, code, what;
    float widen; /* 0, or a factor of the range's scales */
    bq_sparse sparse;
    double *a; /* (k, k): the damped matrix in processing order */
} layer;

/* Inputs whose columns depend on each other, some of them loud. */
static inline bq_mat inputs(int64_t tokens, int64_t k, uint32_t stream) {
    bq_mat x = make_filled(tokens, k, 1, stream, 1);
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t c = 1; c < k; c++) *ptr(x, t, c) += 0.6f * *ptr(x, t, c - 1);
        for (int64_t c = 0; c < k; c++) *ptr(x, t, c) *= 1 + (float)(c * 7 % 13) * 0.2f;
    }
    return x;
}

/* The matrix that is factored, in double. */
static inline double *damped(bq_mat h, bq_mat order, double factor, double damp) {
    int64_t k = h.rows;
    double *a = zeros(k * k), mean = 0;
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++) a[i * k + j] = factor * at(h, order_at(order, i), order_at(order, j));
        if (a[i * k + i] == 0) a[i * k + i] = 1;
        mean += a[i * k + i] / (double)k;
    }
    for (int64_t i = 0; i < k; i++) a[i * k + i] += damp * mean;
    return a;
}

static inline layer open_layer(int64_t rows, int64_t k, int64_t tokens, bq_scheme s, bq_order kind) {
    layer l = {.s = s, .kind = kind, .rows = rows, .k = k, .group = s.group > 0 ? s.group : k};
    l.groups = k / l.group;
    l.w = make_filled(rows, k, 0, 11, 0.05f);
    l.x = inputs(tokens, k, 12);
    l.h = make(k, k, 2, BQ_F32), l.u = make(k, k, 3, BQ_F32);
    l.diag = make(k, 1, 0, BQ_F32), l.order = make(k, 1, 0, BQ_I32);
    l.scale = make(rows * l.groups, 1, 0, BQ_F32);
    if (!s.symmetric) l.zero = make(rows * l.groups, 1, 0, BQ_F32);
    l.fold = make(rows, k, 0, BQ_F32), l.what = make(rows, k, 0, BQ_F32), l.code = make(rows, k, 0, BQ_I8);
    dev.op->gram(&dev, l.x, l.h);
    return l;
}

static inline void close_layer(layer *l) {
    assert_true(intact(l->fold) && intact(l->u) && intact(l->h) && intact(l->scale) && intact(l->order));
    bq_mat *const all[] = {&l->w,     &l->x,    &l->h,    &l->diag, &l->order, &l->u,
                           &l->scale, &l->zero, &l->fold, &l->code, &l->what};
    for (int i = 0; i < 11; i++) drop(*all[i]);
    free(l->a);
}

static inline bq_mat grouped(const layer *l, bq_mat m) { return bq_mat_reshape(m, l->group); }

static inline void encode(layer *l, bq_mat fold) {
    dev.op->quantize(&dev, grouped(l, fold), l->scale, l->zero, l->s, grouped(l, l->code));
    dev.op->dequantize(&dev, grouped(l, l->code), l->scale, l->zero, l->s, grouped(l, l->what));
}

/* Order, factor and a grid of the range, then the loop.  factor: of h; false: not positive definite. */
static inline bool run_layer(layer *l, double factor, double damp, bool dynamic, bq_clip clip) {
    for (int64_t c = 0; c < l->k; c++) *ptr(l->diag, c, 0) = *ptr(l->h, c, c);
    dev.op->order(&dev, l->diag, l->kind, l->group, l->order);
    free(l->a);
    l->a = damped(l->h, l->order, factor, damp);
    if (!dev.op->factor(&dev, l->h, l->order, factor, damp, l->u)) return false;
    if (!dynamic) dev.op->range(&dev, grouped(l, l->w), l->s, l->scale, l->zero);
    for (int64_t i = 0; i < l->scale.rows && l->widen > 0; i++) *ptr(l->scale, i, 0) *= l->widen;
    bq_gptq p = {.w = l->w,
                 .ut = l->u,
                 .order = l->order,
                 .diag = l->diag,
                 .scale = l->scale,
                 .zero = l->zero,
                 .dynamic = dynamic,
                 .clip = clip,
                 .ends = few_ends,
                 .sparse = l->sparse};
    dev.op->gptq(&dev, &p, l->s, l->fold);
    encode(l, l->fold);
    return true;
}

/* A = R R^T with R upper, in double; straight from the definition. */
static inline double *upper_root(const double *a, int64_t k) {
    double *r = zeros(k * k);
    for (int64_t j = k - 1; j >= 0; j--)
        for (int64_t i = j; i >= 0; i--) {
            double sum = a[i * k + j];
            for (int64_t n = j + 1; n < k; n++) sum -= r[i * k + n] * r[j * k + n];
            r[i * k + j] = i == j ? sqrt(sum) : sum / r[j * k + j];
        }
    return r;
}

static inline double on_grid(const layer *l, int64_t row, int64_t column, double w) {
    int64_t g = row * l->groups + column / l->group;
    double s = at(l->scale, g, 0), z = l->zero.data ? at(l->zero, g, 0) : 0;
    double q = rint(w / s) + z, lo = (double)bq_qmin(l->s), hi = (double)bq_qmax(l->s);
    return ((q < lo ? lo : q > hi ? hi : q) - z) * s;
}

/* Rows whose dequantized weights differ from LDLQ's: q_k = Q(w_k + (w - q)_{<k} A_{<k,k}) with A + I = R over
 * its diagonal: no inverse, no running update. */
static inline int64_t rows_unlike_ldlq(const layer *l) {
    int64_t k = l->k, unlike = 0;
    double *r = upper_root(l->a, k), *lost = zeros(k);
    for (int64_t n = 0; n < l->rows; n++) {
        bool equal = true;
        for (int64_t j = 0; j < k; j++) {
            int64_t c = order_at(l->order, j);
            double w = *ptr(l->diag, c, 0) == 0 ? 0 : at(l->w, n, c), target = w;
            for (int64_t i = 0; i < j; i++) target += lost[i] * r[i * k + j] / r[j * k + j];
            double q = on_grid(l, n, c, target);
            equal &= fabs(q - at(l->what, n, c)) < 1e-6;
            lost[j] = w - q;
        }
        unlike += !equal;
    }
    free(r), free(lost);
    return unlike;
}

/* tr((w - q) A (w - q)^T) of one row. */
static inline double row_loss(const layer *l, int64_t n, bq_mat what) {
    int64_t k = l->k;
    double sum = 0;
    for (int64_t i = 0; i < k; i++) {
        int64_t c = order_at(l->order, i);
        double d = at(l->w, n, c) - at(what, n, c), half = 0;
        for (int64_t j = 0; j < k; j++) {
            int64_t o = order_at(l->order, j);
            half += l->a[i * k + j] * (at(l->w, n, o) - at(what, n, o));
        }
        sum += d * half;
    }
    return sum;
}

static inline double loss(const layer *l, bq_mat what) {
    double sum = 0;
    for (int64_t n = 0; n < l->rows; n++) sum += row_loss(l, n, what);
    return sum;
}

#endif
