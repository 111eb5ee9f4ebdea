/* SPDX-License-Identifier: Apache-2.0 */
/* vec_grid.h - sums of the vector files of quantizer ops, inlined into their loops. */
#ifndef BQ_VEC_GRID_H
#define BQ_VEC_GRID_H

#include "kernels/cpu/vec.h"

enum { LANES = 16, BLOCK = 256 }; /* terms of a sum at a time: they stay in the first-level cache */

/* Do something with the grid of a row of integers, or of any numbers, several times in the code: its loop
 * must not ask each time how codes are made.  grid is a variable. */
#define BQ_EACH_WAY(grid, DO)                                                                                \
    do {                                                                                                     \
        if ((grid).way == BQ_WAY_DIVIDE) {                                                                   \
            (grid) = bq_row_grid_whole(grid);                                                                \
            DO;                                                                                              \
        } else if ((grid).way == BQ_WAY_TIMES) {                                                             \
            (grid) = bq_row_grid_whole_by(grid, BQ_WAY_TIMES);                                               \
            DO;                                                                                              \
        } else {                                                                                             \
            (grid) = bq_row_grid_whole_by(grid, BQ_WAY_OFFSET);                                              \
            DO;                                                                                              \
        }                                                                                                    \
    } while (0)
#define BQ_EACH_NUMBER(grid, DO)                                                                             \
    do {                                                                                                     \
        if (!(grid).number.mantissa) {                                                                       \
            BQ_EACH_WAY(grid, DO);                                                                           \
        } else if ((grid).way == BQ_WAY_DIVIDE) {                                                            \
            (grid) = bq_row_grid_by(grid, BQ_WAY_DIVIDE);                                                    \
            DO;                                                                                              \
        } else {                                                                                             \
            (grid) = bq_row_grid_by(grid, BQ_WAY_TIMES);                                                     \
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
