/* vec_grid.h - arithmetic shared by the vector files of quantizer ops, inlined into their loops. */
#ifndef BQ_VEC_GRID_H
#define BQ_VEC_GRID_H

#include "kernels/cpu/vec.h"

enum { LANES = 16, BLOCK = 256 }; /* terms of a sum at a time: they stay in the first-level cache */

static inline float clamp(float x, float lo, float hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

/* Round to nearest, ties to even: after adding 1.5 * 2^23 a float has no bits for a fraction.  Exact, since x
 * has been clamped before. */
static inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

/* The value of x on the grid (w_hat).  The ends of a bq_grid have the zero subtracted. */
static inline float on_grid(float x, bq_grid grid) {
    return nearest(clamp(x / grid.scale, grid.qmin, grid.qmax)) * grid.scale;
}

/* Sums in 16 fixed lanes: element j is added to lane j % 16.  n is a multiple of 16. */
static inline void add_lanes(const float *x, int64_t n, double *lane) {
    for (int64_t j = 0; j < n; j += LANES) {
#pragma omp simd
        for (int i = 0; i < LANES; i++) lane[i] += (double)x[j + i];
    }
}

static inline double sum_lanes(double *lane) {
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    }
    return lane[0];
}

#endif
