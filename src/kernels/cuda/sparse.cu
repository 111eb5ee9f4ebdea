/* SPDX-License-Identifier: Apache-2.0 */
/* 2:4 sparsity.  A thread has four neighbours. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

static __global__ void drop(bq_rows<float> w, const float *statistic, bool root, int64_t rows,
                            int64_t fours) {
    const int64_t four = bq_column(), c = 4 * four;
    for (int64_t r = blockIdx.y; r < rows && four < fours; r += gridDim.y) {
        float *row = bq_row(w, r) + c, m[4];
        for (int i = 0; i < 4; i++) {
            const float x = statistic ? statistic[c + i] : 1;
            m[i] = bq_importance(row[i] * (root ? sqrtf(x) : x));
        }
        const bool stays[4] = {bq_stays(m[0], m[1], m[2], m[3], 0), bq_stays(m[1], m[0], m[2], m[3], 1),
                               bq_stays(m[2], m[0], m[1], m[3], 2), bq_stays(m[3], m[0], m[1], m[2], 3)};
        for (int i = 0; i < 4; i++)
            if (!stays[i]) row[i] = 0;
    }
}

void bq_cuda_sparse24(bq_dev *dev, bq_mat w, bq_mat statistic, bool root) {
    BQ_WANT(dev, w.rows, w.cols, w);
    if (statistic.data) BQ_WANT(dev, 1, w.cols, statistic);
    BQ_CHECK(w.cols % 4 == 0, "sparse24: %ld columns", (long)w.cols);
    bq_launch(dev, bq_grid_elements(w.rows, w.cols / 4), BQ_THREADS, drop, w,
              statistic.data ? bq_f32(statistic) : NULL, root && statistic.data, w.rows, w.cols / 4);
}
