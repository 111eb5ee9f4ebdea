/* SPDX-License-Identifier: Apache-2.0 */
/* Grids refitted by a fixed point, row by row (kernels/quadratic.h). */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

/* A lane's part in the sums of an iteration, then the team's. */
static __device__ void sums(const float *w, int64_t n, bq_scheme s, bq_quadratic o, double beta, float least,
                            float scale, float zero, double (&sum)[3]) {
    for (int k = 0; k < 3; k++) sum[k] = 0;
    for (int64_t c = bq_lane(); c < n; c += BQ_LANES) {
        const bq_number whole = {0, 0};
        const float code = bq_nearest(whole, bq_clamp(w[c] / scale + zero, bq_qmin(s), bq_qmax(s))),
                    steps = code - zero, d = w[c] - steps * scale,
                    fitted = w[c] - bq_quadratic_left(o, beta, least, d);
        sum[0] += (double)(d < 0 ? -d : d);
        sum[1] += (double)(o.solve == BQ_SOLVE_ZERO ? code - fitted / scale : fitted * steps);
        sum[2] += (double)(o.solve == BQ_SOLVE_ZERO ? 1 : steps * steps);
    }
    for (int k = 0; k < 3; k++) sum[k] = bq_team_sum(sum[k]);
}

/* Teams of a warp take part in as many iterations: one that has ended changes nothing more. */
static __global__ void refit(bq_rows<float> w, bq_scheme s, bq_quadratic o, float least, bq_rows<float> scale,
                             bq_rows<float> zero, int64_t rows, int64_t cols) {
    const bq_scheme codes = bq_quadratic_scheme(s);
    BQ_EACH_ROW(r, rows) {
        const bool mine = r < rows;
        bool live = mine;
        float step = mine ? *bq_row(scale, r) : 1,
              z = mine ? bq_quadratic_start(o, s, step, bq_zero_of(zero, r)) : 0;
        float kept = step, kept_zero = z;
        double sum[3], best = INFINITY, beta = o.beta;
        for (int i = 0; i < o.iterations; i++, beta *= o.kappa) {
            sums(bq_row(w, r), live ? cols : 0, codes, o, beta, least, step, z, sum);
            live = live && (!o.early_stop || sum[0] < best);
            if (!live) continue;
            best = sum[0], kept = step, kept_zero = z;
            bq_quadratic_next(o, s.scale, sum, &step, &z);
        }
        if (!o.early_stop) kept = step, kept_zero = z;
        if (!mine || bq_lane() != 0) continue;
        *bq_row(scale, r) = kept;
        if (zero.data) *bq_row(zero, r) = bq_quadratic_end(o, s, kept, kept_zero);
    }
}

void bq_cuda_half_quadratic(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_CHECK(zero.data || o.solve == BQ_SOLVE_SCALE, "half_quadratic: no zero points to solve for");
    bq_launch(dev, bq_grid_teams(w.rows), BQ_THREADS, refit, w, s, o, bq_quadratic_least(o), scale, zero,
              w.rows, w.cols);
}
