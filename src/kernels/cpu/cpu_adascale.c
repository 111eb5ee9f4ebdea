/* SPDX-License-Identifier: Apache-2.0 */
/* AdaScale's two ops.
 *
 * The caller computes hi and lo: qmax * delta and qmin * delta, in f32, with delta from `range`.  Then at the
 * start the step is (hi - lo) / (qmax - qmin), and the forward equals quantize and dequantize with that
 * scale, bit for bit.  It may differ from delta in the last bit, as AIMET's does. */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "base/num.h"
#include "kernels/cpu/vec.h"

#include <math.h>

enum { PARALLEL = 1 << 15 };

static void check_all(const bq_dev *dev, const bq_adascale *p, bq_scheme s) {
    int64_t rows = p->w.rows, cols = p->w.cols;
    BQ_CHECK(bq_scheme_valid(s, false), "adascale: no symmetric grid of %s", bq_element_name(s.element));
    BQ_WANT(dev, rows, cols, p->w, p->s2);
    BQ_WANT(dev, rows, 1, p->hi, p->lo, p->beta, p->gamma, p->s3);
}

static float *at(bq_mat m, int64_t r) { return bq_mat_at(m, r, 0); }

static bq_row_grid row_grid(const bq_adascale *p, bq_scheme s, int64_t r) {
    float high = bq_exp(*at(p->gamma, r)) * *at(p->hi, r), low = bq_exp(*at(p->beta, r)) * *at(p->lo, r);
    return bq_row_grid_of(s, bq_scale_round((high - low) / (bq_qmax(s) - bq_qmin(s)), s.scale), 0);
}

void bq_cpu_adascale_weights(bq_dev *dev, const bq_adascale *p, bq_scheme s, bq_mat w_hat, bq_mat scale,
                             bq_mat fold) {
    int64_t rows = p->w.rows, cols = p->w.cols;
    bool codes = w_hat.type == BQ_F16 || w_hat.type == BQ_BF16;
    check_all(dev, p, s);
    BQ_WANT_AS(dev, codes ? w_hat.type : BQ_F32, rows, cols, w_hat);
    BQ_WANT(dev, rows, 1, scale);
    if (fold.data) BQ_WANT(dev, rows, cols, fold);
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (rows * cols > PARALLEL)
    for (int64_t r = 0; r < rows; r++) {
        bq_row_grid grid = row_grid(p, s, r);
        *at(scale, r) = grid.scale;
        float e3 = bq_exp(*at(p->s3, r)), *folded = fold.data ? at(fold, r) : NULL;
        if (codes)
            vec->adascale_codes(at(p->w, r), at(p->s2, r), cols, e3, grid, w_hat.type == BQ_F16,
                                bq_mat_at(w_hat, r, 0), folded);
        else
            vec->adascale_row(at(p->w, r), at(p->s2, r), cols, e3, grid, at(w_hat, r), folded);
    }
}

/* One row.  All elements use the old values of its scale and s3, so its three row
 * parameters are updated last. */
static void step_row(const bq_adascale *p, bq_scheme s, bq_mat g, const bq_adam_steps *adam, bq_mat grad,
                     int64_t r) {
    const bq_vec_table *vec = bq_vec();
    int64_t cols = p->w.cols;
    bq_row_grid grid = row_grid(p, s, r);
    bool look = grad.data != NULL;
    double sum[2], steps = (double)(grid.qmax - grid.qmin);
    vec->adascale_step(at(p->w, r), at(g, r), cols, bq_exp(*at(p->s3, r)), grid,
                       look ? (bq_adam_step){0} : adam->weight, at(p->s2, r), look ? NULL : at(p->m_s2, r),
                       look ? NULL : at(p->v_s2, r), look ? at(grad, r) : NULL, sum);
    double low = (double)(bq_exp(*at(p->beta, r)) * *at(p->lo, r));
    double high = (double)(bq_exp(*at(p->gamma, r)) * *at(p->hi, r));
    float d[3] = {(float)(-sum[0] * low / steps), (float)(sum[0] * high / steps), (float)sum[1]};
    if (look) {
        for (int i = 0; i < 3; i++) at(grad, r)[cols + i] = d[i];
        return;
    }
    float *m = at(p->m_row, r), *v = at(p->v_row, r);
    vec->adam(d, 1, adam->clip, at(p->beta, r), m, v);
    vec->adam(d + 1, 1, adam->clip, at(p->gamma, r), m + 1, v + 1);
    vec->adam(d + 2, 1, adam->weight, at(p->s3, r), m + 2, v + 2);
}

void bq_cpu_adascale_step(bq_dev *dev, const bq_adascale *p, bq_scheme s, bq_mat g, bq_mat adam,
                          bq_mat grad) {
    int64_t rows = p->w.rows, cols = p->w.cols;
    check_all(dev, p, s);
    BQ_WANT(dev, rows, cols, g);
    if (grad.data) {
        BQ_WANT(dev, rows, cols + 3, grad);
    } else {
        BQ_WANT(dev, 1, BQ_ADAM_NUMBERS, adam);
        BQ_WANT(dev, rows, 3, p->m_row, p->v_row);
        BQ_WANT(dev, rows, cols, p->m_s2, p->v_s2);
    }
#pragma omp parallel for schedule(static) if (rows * cols > PARALLEL)
    for (int64_t r = 0; r < rows; r++) step_row(p, s, g, adam.data, grad, r);
}
