/* rows.cuh - what kernels on rows of weights share: the ends of a row, its grid, and the value of a number on
 * the grid.  Teams are those of reduce.cuh. */
#ifndef BQ_ROWS_CUH
#define BQ_ROWS_CUH

#include "kernels/cuda/reduce.cuh"

/* The grid of one row: codes qmin ... qmax, with the zero subtracted, times scale > 0. */
struct bq_row_grid {
    float scale, qmin, qmax;
};

static inline __device__ bq_row_grid bq_row_grid_of(bq_scheme s, float scale, float zero) {
    return {scale, bq_qmin(s) - zero, bq_qmax(s) - zero};
}

/* Round to nearest, ties to even: after adding 1.5 * 2^23 a float has no bits for a fraction.
 * Exact for |x| < 2^22. */
static inline __device__ float bq_nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

static inline __device__ float bq_clamp(float x, float lo, float hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

/* The same, but NaN becomes lo: where codes are made. */
static inline __device__ float bq_clamp_code(float x, float lo, float hi) {
    x = x > lo ? x : lo;
    return x < hi ? x : hi;
}

static inline __device__ float bq_on_grid(float x, bq_row_grid g) {
    return bq_nearest(bq_clamp(x / g.scale, g.qmin, g.qmax)) * g.scale;
}
static inline __device__ float bq_on_code_grid(float x, bq_row_grid g) {
    return bq_nearest(bq_clamp_code(x / g.scale, g.qmin, g.qmax)) * g.scale;
}

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
