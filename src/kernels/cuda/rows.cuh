/* SPDX-License-Identifier: Apache-2.0 */
/* rows.cuh - what kernels on rows of weights share: the ends of a row and its zero point.  Teams are those of
 * reduce.cuh. */
#ifndef BQ_ROWS_CUH
#define BQ_ROWS_CUH

#include "kernels/cuda/reduce.cuh"

/* The smallest and the largest of a team's row of n numbers and `start`; NaN is skipped. */
static inline __device__ void bq_team_ends(const float *w, int64_t n, float start, float *lo, float *hi) {
    float low = start, high = start, some[8];
    BQ_EACH_BATCH(c, n, 8) {
        bq_batch(w, c, n, some, start);
        for (int k = 0; k < 8; k++)
            low = some[k] < low ? some[k] : low, high = some[k] > high ? some[k] : high;
    }
    *lo = -bq_team_max(-low), *hi = bq_team_max(high);
}

static inline __device__ float bq_zero_of(bq_rows<float> zero, int64_t row) {
    return zero.data ? *bq_row(zero, row) : 0;
}

#endif
