/* SPDX-License-Identifier: Apache-2.0 */
/* AdaScale's forward; its backward with the Adam step.  Each reads the weights once. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

enum { BATCH = 4 };

extern "C" {
#include "kernels/adam.h"
}

struct params {
    bq_rows<float> w, hi, lo, beta, gamma, s3, s2, m_row, v_row, m_s2, v_s2;
};

static __device__ float high_of(const params &p, int64_t r) {
    return bq_exp(*bq_row(p.gamma, r)) * *bq_row(p.hi, r);
}
static __device__ float low_of(const params &p, int64_t r) {
    return bq_exp(*bq_row(p.beta, r)) * *bq_row(p.lo, r);
}

static __device__ bq_row_grid grid_of(const params &p, bq_scheme s, int64_t r) {
    bq_row_grid g = bq_row_grid_whole(bq_row_grid_of(s, 1, 0));
    g.scale = bq_scale_round((high_of(p, r) - low_of(p, r)) / (g.qmax - g.qmin), s.scale);
    return g;
}

/* The folded weight.  The divisions and their order are the specification's: they decide ties. */
static __device__ float folded(float w, float s2, float e3) { return w / bq_exp(s2) / e3; }

/* What the forward multiplies by: w_hat, or its code. */
static __device__ void put(float *to, float x, bq_row_grid g) { *to = bq_on_grid(x, g); }
struct bf16_code {
    uint16_t bits;
};
static __device__ void put(bf16_code *to, float x, bq_row_grid g) {
    to->bits = bq_to_bf16(bq_grid_code(x, g));
}
static __device__ void put(uint16_t *to, float x, bq_row_grid g) { *to = bq_to_f16(bq_grid_code(x, g)); }

/* `wide` threads have a row: 32, or a whole thread block. */
template <class T>
static __global__ void weights(params p, bq_scheme s, bq_rows<T> w_hat, bq_rows<float> scale,
                               bq_rows<float> fold, int wide, int64_t rows, int64_t cols) {
    const int64_t r = ((int64_t)blockIdx.x * BQ_THREADS + threadIdx.x) / wide;
    if (r >= rows) return; /* allowed: no barrier follows */
    const bq_row_grid grid = grid_of(p, s, r);
    const float e3 = bq_exp(*bq_row(p.s3, r)), *w = bq_row(p.w, r), *s2 = bq_row(p.s2, r);
    for (int64_t c = (int64_t)threadIdx.x % wide; c < cols; c += wide) {
        const float x = folded(w[c], s2[c], e3);
        if (fold.data) bq_row(fold, r)[c] = x;
        put(bq_row(w_hat, r) + c, x, grid);
    }
    if ((int)threadIdx.x % wide == 0) *bq_row(scale, r) = grid.scale;
}

static __device__ void adam(float g, bq_adam_step a, float *p, float *m, float *v) {
    const float mj = *m + a.keep1 * (g - *m), vj = *v * a.beta2 + a.keep2 * g * g;
    *m = mj, *v = vj;
    *p -= a.step * mj / (sqrtf(vj) / a.root + a.eps);
}

/* The mask looks at the rounded value, so the quotient is clamped to one step outside the grid and not to the
 * grid.  All elements of a row use the old values of its three parameters, so these are updated last.  It
 * waits for memory, so 4 thread blocks are to fit a multiprocessor. */
static __global__ void __launch_bounds__(BQ_THREADS, 4)
    step_rows(params p, bq_scheme s, bq_rows<float> g, const bq_adam_steps *now, bq_rows<float> grad,
              int64_t rows, int64_t cols) {
    const bq_adam_step clip = grad.data ? bq_adam_step() : now->clip,
                       weight = grad.data ? bq_adam_step() : now->weight;
    BQ_EACH_ROW(row, rows) {
        const int64_t n = row < rows ? cols : 0, r = row < rows ? row : 0;
        const bq_row_grid grid = grid_of(p, s, r);
        const float e3 = bq_exp(*bq_row(p.s3, r)), low = low_of(p, r), high = high_of(p, r);
        double scale = 0, all = 0;
        BQ_EACH_BATCH(c, n, BATCH) {
            float w[BATCH], s2[BATCH], d[BATCH], m[BATCH] = {}, v[BATCH] = {};
            bq_batch(bq_row(p.w, r), c, n, w), bq_batch(bq_row(p.s2, r), c, n, s2);
            bq_batch(bq_row(g, r), c, n, d);
            if (!grad.data) bq_batch(bq_row(p.m_s2, r), c, n, m), bq_batch(bq_row(p.v_s2, r), c, n, v);
            for (int k = 0; k < BATCH; k++) {
                const int64_t at = c + k * BQ_LANES;
                if (at >= n) continue;
                const float x = folded(w[k], s2[k], e3), t = x / grid.scale;
                const float code = bq_nearest(grid.number, bq_clamp(t, grid.qmin - 1, grid.qmax + 1)),
                            q = bq_clamp(code, grid.qmin, grid.qmax);
                const float slope = code == q ? code - t : q, ds2 = -((code == q ? d[k] : 0.0f) * x);
                scale += (double)(d[k] * slope), all += (double)ds2;
                if (grad.data) {
                    bq_row(grad, r)[at] = ds2;
                } else {
                    adam(ds2, weight, &s2[k], &m[k], &v[k]);
                    bq_row(p.s2, r)[at] = s2[k], bq_row(p.m_s2, r)[at] = m[k], bq_row(p.v_s2, r)[at] = v[k];
                }
            }
        }
        scale = bq_team_sum(scale), all = bq_team_sum(all);
        if (row >= rows || bq_lane() > 0) continue; /* only lane 0 goes on, until the next row */
        const double steps = (double)(grid.qmax - grid.qmin);
        const float d[3] = {(float)(-scale * (double)low / steps), (float)(scale * (double)high / steps),
                            (float)all};
        if (grad.data) {
            for (int i = 0; i < 3; i++) bq_row(grad, r)[cols + i] = d[i];
        } else {
            float *const at[3] = {bq_row(p.beta, r), bq_row(p.gamma, r), bq_row(p.s3, r)};
            for (int i = 0; i < 3; i++)
                adam(d[i], i < 2 ? clip : weight, at[i], bq_row(p.m_row, r) + i, bq_row(p.v_row, r) + i);
        }
    }
}

static params params_of(const bq_dev *dev, const bq_adascale *p, bq_scheme s) {
    const int64_t rows = p->w.rows, cols = p->w.cols;
    BQ_CHECK(bq_scheme_valid(s, false), "adascale: no symmetric grid of %s", bq_element_name(s.element));
    BQ_WANT(dev, rows, cols, p->w, p->s2);
    BQ_WANT(dev, rows, 1, p->hi, p->lo, p->beta, p->gamma, p->s3);
    return {p->w, p->hi, p->lo, p->beta, p->gamma, p->s3, p->s2, p->m_row, p->v_row, p->m_s2, p->v_s2};
}

void bq_cuda_adascale_weights(bq_dev *dev, const bq_adascale *p, bq_scheme s, bq_mat w_hat, bq_mat scale,
                              bq_mat fold) {
    const int64_t rows = p->w.rows, cols = p->w.cols;
    const params all = params_of(dev, p, s);
    const bool codes = w_hat.type == BQ_F16 || w_hat.type == BQ_BF16;
    BQ_WANT_AS(dev, codes ? w_hat.type : BQ_F32, rows, cols, w_hat);
    BQ_WANT(dev, rows, 1, scale);
    if (fold.data) BQ_WANT(dev, rows, cols, fold);
    const int wide = cols > 4 * BQ_THREADS ? (int)BQ_THREADS : 32;
    const dim3 grid(bq_pieces(rows * wide, BQ_THREADS));
    auto launch = [&](auto kernel) {
        bq_launch(dev, grid, BQ_THREADS, kernel, all, s, w_hat, scale, fold, wide, rows, cols);
    };
    if (!codes)
        launch(weights<float>);
    else if (w_hat.type == BQ_F16)
        launch(weights<uint16_t>);
    else
        launch(weights<bf16_code>);
}

void bq_cuda_adascale_step(bq_dev *dev, const bq_adascale *p, bq_scheme s, bq_mat g, bq_mat adam,
                           bq_mat grad) {
    const int64_t rows = p->w.rows, cols = p->w.cols;
    const params all = params_of(dev, p, s);
    BQ_WANT(dev, rows, cols, g);
    if (grad.data) {
        BQ_WANT(dev, rows, cols + 3, grad);
    } else {
        BQ_WANT(dev, 1, BQ_ADAM_NUMBERS, adam);
        BQ_WANT(dev, rows, 3, p->m_row, p->v_row);
        BQ_WANT(dev, rows, cols, p->m_s2, p->v_s2);
    }
    bq_launch(dev, bq_grid_teams(rows), BQ_THREADS, step_rows, all, s, g, (const bq_adam_steps *)adam.data,
              grad, rows, cols);
}
