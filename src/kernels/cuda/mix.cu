/* SPDX-License-Identifier: Apache-2.0 */
/* Two streams mixed by Philox numbers.  A thread has the four elements of a quad. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"

static __global__ void choose(bq_rows<float> fp, bq_rows<float> qt, uint32_t last, bq_rng_key at,
                              bq_rows<float> out, int64_t rows, int64_t cols) {
    const int64_t quad = (int64_t)blockIdx.x * BQ_THREADS + threadIdx.x;
    if (4 * quad >= rows * cols) return; /* allowed: no barrier follows */
    uint32_t word[4];
    bq_philox(at, (uint32_t)quad, word);
    int64_t r = 4 * quad / cols, c = 4 * quad % cols;
    for (int i = 0; i < 4 && r < rows; i++) {
        bq_row(out, r)[c] = word[i] <= last ? bq_row(qt, r)[c] : bq_row(fp, r)[c];
        if (++c == cols) c = 0, r++;
    }
}

void bq_cuda_mix(bq_dev *dev, bq_mat fp, bq_mat qt, double p, bq_rng_key at, bq_mat out) {
    const int64_t rows = out.rows, cols = out.cols;
    BQ_CHECK(p >= 0 && p <= 1 && rows * cols <= INT64_C(4) << 32, "mix: probability %g, %ld x %ld", p,
             (long)rows, (long)cols);
    BQ_WANT(dev, rows, cols, fp, qt, out);
    const double words = ceil(p * 0x1p32); /* so many of the 2^32 values of a word take qt:
                                              those with word < p * 2^32 */
    if (words <= 0 || words >= 0x1p32)
        bq_cuda_copy(dev, words <= 0 ? fp : qt, out);
    else
        bq_launch(dev, dim3(bq_pieces(rows * cols, 4 * BQ_THREADS)), BQ_THREADS, choose, fp, qt,
                  (uint32_t)(words - 1), at, out, rows, cols);
}
