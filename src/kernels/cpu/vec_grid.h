/* vec_grid.h - sums of the vector files of quantizer ops, inlined into their loops. */
#ifndef BQ_VEC_GRID_H
#define BQ_VEC_GRID_H

#include "kernels/cpu/vec.h"

enum { LANES = 16, BLOCK = 256 }; /* terms of a sum at a time: they stay in the first-level cache */

/* Do something with a row's grid, twice in the code: rounding to integers is shorter, and its loop must not
 * ask each time.  grid is a variable. */
#define BQ_EACH_NUMBER(grid, DO)                                                                             \
    do {                                                                                                     \
        if ((grid).number.mantissa) {                                                                        \
            DO;                                                                                              \
        } else {                                                                                             \
            (grid) = bq_row_grid_whole(grid);                                                                \
            DO;                                                                                              \
        }                                                                                                    \
    } while (0)

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
