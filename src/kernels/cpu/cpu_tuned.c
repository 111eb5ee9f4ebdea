/* SPDX-License-Identifier: Apache-2.0 */
/* The ops of trainings other than AdaScale's (kernels/tuned.h). */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "kernels/cpu/vec.h"
#include "kernels/want.h"

enum { PARALLEL = 1 << 15 };

/* Element (r, 0), or NULL. */
static float *at(bq_mat m, int64_t r) { return m.data ? bq_mat_at(m, r, 0) : NULL; }
static float value_at(bq_mat m, int64_t r) { return m.data ? *at(m, r) : 0; }

void bq_cpu_range_ends(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero, bq_mat lo, bq_mat hi) {
    const bq_vec_table *vec = bq_vec();
    BQ_WANT(dev, w.rows, w.cols, w);
    BQ_WANT(dev, w.rows, 1, lo, hi);
    if (scale.data) BQ_WANT_GRID(dev, w, s, scale, zero);
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++)
        if (scale.data)
            bq_tune_covers(s, *at(scale, r), value_at(zero, r), at(lo, r), at(hi, r));
        else
            vec->minmax(at(w, r), w.cols, 0, at(lo, r), at(hi, r));
}

void bq_cpu_tuned_weights(bq_dev *dev, const bq_tuned *p, bq_scheme s, bq_mat w_hat, bq_mat scale,
                          bq_mat zero, bq_mat fold) {
    int64_t rows = p->w.rows, cols = p->w.cols;
    const bq_vec_table *vec = bq_vec();
    bool own = !bq_tune_ends(p->form);
    BQ_WANT_TUNED(dev, p, s, scale, zero);
    BQ_WANT(dev, rows, cols, w_hat);
    if (fold.data) BQ_WANT(dev, rows, cols, fold);
#pragma omp parallel for schedule(static) if (rows * cols > PARALLEL)
    for (int64_t r = 0; r < rows; r++) {
        float lo = value_at(p->lo, r), hi = value_at(p->hi, r), z;
        if (p->form == BQ_TUNE_WEIGHTS) vec->minmax(at(p->value, r), cols, 0, &lo, &hi);
        float step = bq_tune_grid(p->form, s, lo, hi, value_at(p->low, r), value_at(p->high, r), &z);
        vec->tuned_row(at(own ? p->value : p->w, r), own ? NULL : at(p->value, r), cols,
                       bq_row_grid_of(s, step, z), at(w_hat, r), at(fold, r));
        *at(scale, r) = step;
        if (zero.data) *at(zero, r) = z;
    }
}

/* The row's low and high take a step, or their gradients are written. */
static void step_ends(const bq_tuned *p, bq_scheme s, const bq_adam_steps *adam, float scale,
                      const double *sum, float *grad, int64_t r) {
    const bq_vec_table *vec = bq_vec();
    const bq_mat of[2] = {p->low, p->high};
    float d[2];
    bq_tune_slopes(p->form, s, value_at(p->lo, r), value_at(p->hi, r), value_at(p->low, r),
                   value_at(p->high, r), scale, sum, d);
    for (int k = 0; k < 2; k++) {
        if (grad) {
            grad[k] = d[k];
        } else if (of[k].data) {
            float *x = at(of[k], r), *m = at(p->m_row, r), *v = at(p->v_row, r);
            vec->take_step(p->optimizer, d + k, 1, adam->clip, x, m ? m + k : NULL, v ? v + k : NULL);
            *x = bq_tune_bound(p->form, *x);
        }
    }
}

/* All elements of a row use its old grid, so that changes last. */
static void step_row(const bq_tuned *p, bq_scheme s, float scale, float zero, const float *g,
                     const bq_adam_steps *adam, float *grad, int64_t r) {
    const bq_vec_table *vec = bq_vec();
    const bool own = !bq_tune_ends(p->form), all = p->form == BQ_TUNE_WEIGHTS && !bq_element_whole(s.element);
    const bq_row_grid grid = bq_row_grid_of(s, scale, zero);
    float *value = at(p->value, r), *m = at(p->m, r), *v = at(p->v, r), d[BQ_TUNED_BLOCK];
    const float *w = own ? value : at(p->w, r);
    double lane[2][16] = {{0}};
    for (int64_t j = 0; j < p->w.cols; j += BQ_TUNED_BLOCK) {
        int64_t n = p->w.cols - j < BQ_TUNED_BLOCK ? p->w.cols - j : BQ_TUNED_BLOCK;
        vec->tuned_slopes(w + j, own || !value ? NULL : value + j, g + j, n, all, grid, d, lane);
        for (int64_t i = 0; grad && i < n; i++) grad[j + i] = value ? d[i] : 0;
        if (!grad && value)
            vec->take_step(p->optimizer, d, n, adam->weight, value + j, m ? m + j : NULL, v ? v + j : NULL);
    }
    for (int k = 0; k < 2; k++)
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; i++) lane[k][i] += lane[k][i + half];
    step_ends(p, s, adam, scale, (double[]){lane[0][0], lane[1][0]}, grad ? grad + p->w.cols : NULL, r);
}

void bq_cpu_tuned_step(bq_dev *dev, const bq_tuned *p, bq_scheme s, bq_mat scale, bq_mat zero, bq_mat g,
                       bq_mat adam, bq_mat grad) {
    int64_t rows = p->w.rows, cols = p->w.cols;
    BQ_WANT_TUNED(dev, p, s, scale, zero);
    BQ_WANT(dev, rows, cols, g);
    if (grad.data)
        BQ_WANT(dev, rows, cols + 2, grad);
    else
        BQ_WANT(dev, 1, BQ_ADAM_NUMBERS, adam);
#pragma omp parallel for schedule(static) if (rows * cols > PARALLEL)
    for (int64_t r = 0; r < rows; r++)
        step_row(p, s, *at(scale, r), value_at(zero, r), at(g, r), adam.data, at(grad, r), r);
}
