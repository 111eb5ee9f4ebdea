/* SPDX-License-Identifier: Apache-2.0 */
/* Ops of mixtures of experts: which experts a token takes, and rows of tokens to and from experts. */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "kernels/cpu/vec.h"

#include <string.h>

/* With fewer logits, or elements of rows, it does not pay to wake threads. */
enum { PARALLEL = 1 << 12, COPIES = 1 << 15 };

static bq_routing token(bq_router r, bq_mat logits, bq_mat bias, int64_t t) {
    return (bq_routing){r, bq_mat_at(logits, t, 0), bias.data, (int)logits.cols};
}

static void route(bq_routing t, int32_t *index, float *weight) {
    uint64_t groups = t.r.kept < t.r.groups ? 0 : UINT64_MAX, key = UINT64_MAX;
    for (int i = 0; i < t.r.kept && t.r.kept < t.r.groups; i++) {
        key = bq_route_next_group(t, 0, 1, key);
        groups |= UINT64_C(1) << bq_route_number(key);
    }
    key = UINT64_MAX;
    for (int i = 0; i < t.r.chosen; i++) key = bq_route_next(t, groups, 0, 1, key);
    bq_route_write(t, groups, key, index, weight);
}

void bq_cpu_route(bq_dev *dev, bq_router r, bq_mat logits, bq_mat bias, bq_mat index, bq_mat weight) {
    BQ_WANT_ROUTER(dev, r, logits, index, weight);
    if (bias.data) BQ_WANT(dev, 1, logits.cols, bias);
#pragma omp parallel for schedule(static) if (logits.rows * logits.cols > PARALLEL)
    for (int64_t t = 0; t < logits.rows; t++)
        route(token(r, logits, bias, t), bq_mat_at(index, t, 0), bq_mat_at(weight, t, 0));
}

void bq_cpu_route_bwd(bq_dev *dev, bq_router r, bq_mat logits, bq_mat index, bq_mat dweight, bq_mat dlogits) {
    BQ_WANT_ROUTER(dev, r, logits, index, dweight);
    BQ_WANT(dev, logits.rows, logits.cols, dlogits);
#pragma omp parallel for schedule(static) if (logits.rows * logits.cols > PARALLEL)
    for (int64_t t = 0; t < logits.rows; t++)
        bq_route_back(token(r, logits, (bq_mat){0}, t), bq_mat_at(index, t, 0), bq_mat_at(dweight, t, 0),
                      bq_mat_at(dlogits, t, 0));
}

void bq_cpu_expert_lists(bq_dev *dev, bq_mat index, bq_mat rows, bq_mat slots, bq_mat start) {
    int64_t n = index.rows * index.cols, experts = start.rows - 1;
    BQ_WANT_AS(dev, BQ_I32, index.rows, index.cols, index);
    BQ_WANT_AS(dev, BQ_I32, n, 1, rows, slots);
    BQ_WANT_AS(dev, BQ_I32, experts + 1, 1, start);
    int32_t *first = start.data, *row = rows.data, *slot = slots.data;
    memset(first, 0, (size_t)(experts + 1) * sizeof *first);
    for (int64_t i = 0; i < n; i++) {
        int32_t e = *(const int32_t *)bq_mat_at(index, i / index.cols, i % index.cols);
        BQ_CHECK(e >= 0 && e < experts, "expert %d of %ld", (int)e, (long)experts);
        first[e + 1]++;
    }
    for (int64_t e = 0; e < experts; e++) first[e + 1] += first[e];
    for (int64_t i = n - 1; i >= 0; i--) { /* from behind: the end of a list moves to its start */
        int32_t e = *(const int32_t *)bq_mat_at(index, i / index.cols, i % index.cols), at = --first[e + 1];
        row[at] = (int32_t)(i / index.cols), slot[at] = (int32_t)i;
    }
    for (int64_t e = 0; e < experts; e++) first[e] = first[e + 1];
    first[experts] = (int32_t)n;
}

static int64_t row_of(bq_mat index, int64_t i, bq_mat m) {
    int32_t row = *(const int32_t *)bq_mat_at(index, i, 0);
    BQ_CHECK(row >= 0 && row < m.rows, "row %d of %ld", (int)row, (long)m.rows);
    return row;
}

void bq_cpu_gather_rows(bq_dev *dev, bq_mat x, bq_mat index, bq_mat weight, bq_mat out) {
    BQ_WANT(dev, x.rows, out.cols, x);
    BQ_WANT(dev, index.rows, x.cols, out);
    BQ_WANT_AS(dev, BQ_I32, out.rows, 1, index);
    if (weight.data) BQ_WANT(dev, out.rows, 1, weight);
#pragma omp parallel for schedule(static) if (out.rows * out.cols > COPIES)
    for (int64_t i = 0; i < out.rows; i++) {
        const float *from = bq_mat_at(x, row_of(index, i, x), 0);
        if (weight.data)
            bq_vec()->times(out.cols, *(float *)bq_mat_at(weight, i, 0), from, bq_mat_at(out, i, 0));
        else
            memcpy(bq_mat_at(out, i, 0), from, (size_t)out.cols * sizeof *from);
    }
}

void bq_cpu_scatter_add_rows(bq_dev *dev, bq_mat x, bq_mat index, bq_mat weight, bq_mat y) {
    BQ_WANT(dev, index.rows, y.cols, x);
    BQ_WANT(dev, y.rows, x.cols, y);
    BQ_WANT_AS(dev, BQ_I32, x.rows, 1, index);
    BQ_WANT(dev, x.rows, 1, weight);
#pragma omp parallel for schedule(static) if (x.rows * x.cols > COPIES)
    for (int64_t i = 0; i < x.rows; i++)
        bq_vec()->add_times(x.cols, *(float *)bq_mat_at(weight, i, 0), bq_mat_at(x, i, 0),
                            bq_mat_at(y, row_of(index, i, y), 0));
}

void bq_cpu_dot_rows(bq_dev *dev, bq_mat a, bq_mat index, bq_mat b, bq_mat dot) {
    BQ_WANT(dev, a.rows, b.cols, a);
    BQ_WANT(dev, index.rows, a.cols, b);
    BQ_WANT_AS(dev, BQ_I32, b.rows, 1, index);
    BQ_WANT(dev, b.rows, 1, dot);
#pragma omp parallel for schedule(static) if (b.rows * b.cols > COPIES)
    for (int64_t i = 0; i < b.rows; i++)
        *(float *)bq_mat_at(dot, i, 0) =
            bq_vec()->dot(b.cols, bq_mat_at(a, row_of(index, i, a), 0), bq_mat_at(b, i, 0));
}
