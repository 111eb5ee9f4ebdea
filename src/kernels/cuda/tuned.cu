/* SPDX-License-Identifier: Apache-2.0 */
/* The ops of trainings other than AdaScale's (kernels/tuned.h).  Each reads the weights once. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

extern "C" {
#include "kernels/adam.h"
}

static __global__ void row_ends(bq_rows<float> w, bq_scheme s, bq_rows<float> scale, bq_rows<float> zero,
                                bq_rows<float> lo, bq_rows<float> hi, int64_t rows, int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        float low, high;
        bq_team_ends(bq_row(w, r < rows ? r : 0), r < rows ? cols : 0, 0, &low, &high);
        if (r >= rows || bq_lane() > 0) continue;
        if (scale.data) bq_tune_covers(s, *bq_row(scale, r), bq_zero_of(zero, r), &low, &high);
        *bq_row(lo, r) = low, *bq_row(hi, r) = high;
    }
}

void bq_cuda_range_ends(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero, bq_mat lo, bq_mat hi) {
    BQ_WANT(dev, w.rows, w.cols, w);
    BQ_WANT(dev, w.rows, 1, lo, hi);
    if (scale.data) BQ_WANT_GRID(dev, w, s, scale, zero);
    bq_launch(dev, bq_grid_teams(w.rows), BQ_THREADS, row_ends, w, s, scale, zero, lo, hi, w.rows, w.cols);
}

struct params {
    bq_tune form;
    bq_train_optimizer by;
    bool offset;                                                    /* `value` is one */
    bq_rows<float> w, lo, hi, low, high, m_row, v_row, value, m, v; /* w: what is rounded */
};

static params params_of(const bq_tuned *p) {
    const bool own = !bq_tune_ends(p->form);
    return {p->form,
            p->optimizer,
            !own && p->value.data,
            own ? p->value : p->w,
            p->lo,
            p->hi,
            p->low,
            p->high,
            p->m_row,
            p->v_row,
            p->value,
            p->m,
            p->v};
}

static __device__ float value_at(bq_rows<float> m, int64_t r) { return m.data ? *bq_row(m, r) : 0; }

static __global__ void weights(params p, bq_scheme s, bq_rows<float> w_hat, bq_rows<float> scale,
                               bq_rows<float> zero, bq_rows<float> fold, int64_t rows, int64_t cols) {
    BQ_EACH_ROW(row, rows) {
        const int64_t n = row < rows ? cols : 0, r = row < rows ? row : 0;
        float lo = value_at(p.lo, r), hi = value_at(p.hi, r), z;
        if (p.form == BQ_TUNE_WEIGHTS) bq_team_ends(bq_row(p.w, r), n, 0, &lo, &hi);
        const float step = bq_tune_grid(p.form, s, lo, hi, value_at(p.low, r), value_at(p.high, r), &z);
        const bq_row_grid grid = bq_row_grid_of(s, step, z);
        for (int64_t c = bq_lane(); c < n; c += BQ_LANES) {
            const float x =
                bq_tune_before(p.offset, bq_row(p.w, r)[c], p.offset ? bq_row(p.value, r)[c] : 0, step);
            if (fold.data) bq_row(fold, r)[c] = x;
            bq_row(w_hat, r)[c] = bq_on_grid(x, grid);
        }
        if (row >= rows || bq_lane() > 0) continue; /* only lane 0 goes on, until the next row */
        *bq_row(scale, r) = step;
        if (zero.data) *bq_row(zero, r) = z;
    }
}

void bq_cuda_tuned_weights(bq_dev *dev, const bq_tuned *p, bq_scheme s, bq_mat w_hat, bq_mat scale,
                           bq_mat zero, bq_mat fold) {
    const int64_t rows = p->w.rows, cols = p->w.cols;
    BQ_WANT_TUNED(dev, p, s, scale, zero);
    BQ_WANT(dev, rows, cols, w_hat);
    if (fold.data) BQ_WANT(dev, rows, cols, fold);
    bq_launch(dev, bq_grid_teams(rows), BQ_THREADS, weights, params_of(p), s, w_hat, scale, zero, fold, rows,
              cols);
}

static __device__ float *moment(bq_rows<float> m, int64_t r, int64_t c, float *none) {
    return m.data ? bq_row(m, r) + c : none;
}

/* All elements of a row use its old grid, so that changes last. */
static __global__ void step_rows(params p, bq_scheme s, bq_rows<float> scale, bq_rows<float> zero,
                                 bq_rows<float> g, const bq_adam_steps *now, bq_rows<float> grad,
                                 int64_t rows, int64_t cols) {
    const bool all = p.form == BQ_TUNE_WEIGHTS && !bq_element_whole(s.element);
    BQ_EACH_ROW(row, rows) {
        const int64_t n = row < rows ? cols : 0, r = row < rows ? row : 0;
        const float step = row < rows ? *bq_row(scale, r) : 1;
        const bq_row_grid grid = bq_row_grid_of(s, step, row < rows ? bq_zero_of(zero, r) : 0);
        double sum[2] = {0, 0};
        float none = 0;
        for (int64_t c = bq_lane(); c < n; c += BQ_LANES) {
            const bq_tune_slope d =
                bq_tune_slope_of(p.offset, all, bq_row(p.w, r)[c], p.offset ? bq_row(p.value, r)[c] : 0,
                                 bq_row(g, r)[c], grid);
            sum[0] += (double)d.scale, sum[1] += (double)d.zero;
            if (grad.data)
                bq_row(grad, r)[c] = p.value.data ? d.value : 0;
            else if (p.value.data)
                bq_take_step(p.by, d.value, now->weight, bq_row(p.value, r) + c, moment(p.m, r, c, &none),
                             moment(p.v, r, c, &none));
        }
        sum[0] = bq_team_sum(sum[0]), sum[1] = bq_team_sum(sum[1]);
        if (row >= rows || bq_lane() > 0) continue; /* only lane 0 goes on, until the next row */
        const bq_rows<float> of[2] = {p.low, p.high};
        float d[2];
        bq_tune_slopes(p.form, s, value_at(p.lo, r), value_at(p.hi, r), value_at(p.low, r),
                       value_at(p.high, r), step, sum, d);
        for (int k = 0; k < 2; k++) {
            if (grad.data) {
                bq_row(grad, r)[cols + k] = d[k];
            } else if (of[k].data) {
                float *x = bq_row(of[k], r);
                bq_take_step(p.by, d[k], now->clip, x, moment(p.m_row, r, k, &none),
                             moment(p.v_row, r, k, &none));
                *x = bq_tune_bound(p.form, *x);
            }
        }
    }
}

void bq_cuda_tuned_step(bq_dev *dev, const bq_tuned *p, bq_scheme s, bq_mat scale, bq_mat zero, bq_mat g,
                        bq_mat adam, bq_mat grad) {
    const int64_t rows = p->w.rows, cols = p->w.cols;
    BQ_WANT_TUNED(dev, p, s, scale, zero);
    BQ_WANT(dev, rows, cols, g);
    if (grad.data)
        BQ_WANT(dev, rows, cols + 2, grad);
    else
        BQ_WANT(dev, 1, BQ_ADAM_NUMBERS, adam);
    bq_launch(dev, bq_grid_teams(rows), BQ_THREADS, step_rows, params_of(p), s, scale, zero, g,
              (const bq_adam_steps *)adam.data, grad, rows, cols);
}
