/* rows.cuh - what kernels on rows of weights share: the ends of a row and its zero point.  Teams are those of
 * reduce.cuh. */
#ifndef BQ_ROWS_CUH
#define BQ_ROWS_CUH

#include "kernels/cuda/reduce.cuh"

/* The smallest and the largest of a team's row of n numbers and 0; NaN is skipped. */
static inline __device__ void bq_team_ends(const float *w, int64_t n, float *lo, float *hi) {
    float low = 0, high = 0;
    for (int64_t c = bq_lane(); c < n; c += BQ_LANES) {
        low = w[c] < low ? w[c] : low;
        high = w[c] > high ? w[c] : high;
    }
    *lo = -bq_team_max(-low), *hi = bq_team_max(high);
}

static inline __device__ float bq_zero_of(bq_rows<float> zero, int64_t row) {
    return zero.data ? *bq_row(zero, row) : 0;
}

#endif
