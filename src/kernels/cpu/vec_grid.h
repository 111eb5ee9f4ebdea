/* vec_grid.h - arithmetic that the vector files of quantizer ops share, inlined into their loops. */
#ifndef BQ_VEC_GRID_H
#define BQ_VEC_GRID_H

#include "kernels/cpu/vec.h"

enum { LANES = 16, BLOCK = 256 }; /* a block's terms stay in the first-level cache */

static inline float clamp(float x, float lo, float hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

/* Round half to even: adding 1.5 * 2^23 leaves no place for a fraction.  Exact because x was clamped before.
 */
static inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

/* What the grid makes of x; the grid's ends are without the zero point. */
static inline float on_grid(float x, bq_grid grid) {
    return nearest(clamp(x / grid.scale, grid.qmin, grid.qmax)) * grid.scale;
}

/* Sums in 16 fixed lanes: element j meets lane j % 16; n is a multiple of 16. */
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
