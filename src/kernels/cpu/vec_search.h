/* SPDX-License-Identifier: Apache-2.0 */
/* vec_search.h - the vector functions of grid searches (vec_search.c): X(return type, name, (arguments)). */
#ifndef BQ_VEC_SEARCH_H
#define BQ_VEC_SEARCH_H

#define BQ_SEARCH_GRIDS 128 /* grids in one call, at most */

/* The ends of a grid have the zero subtracted.
 *   grid_error    e = w_hat - w on that grid
 *   grid_losses   loss[k] = sum |w_hat - w|^norm for each of `count` grids, reading w once
 *   inner         returns sum a b in double
 *   quadratic     sums of one iteration (kernels/quadratic.h); the grid's ends are codes */
#define BQ_VEC_SEARCH(X)                                                                                     \
    X(void, grid_error, (const float *w, int64_t n, bq_row_grid grid, float *e))                             \
    X(void, grid_losses,                                                                                     \
      (const float *w, int64_t n, const bq_row_grid *grid, int count, bq_norm norm, double *loss))           \
    X(double, inner, (int64_t n, const float *a, const float *b))                                            \
    X(void, quadratic,                                                                                       \
      (const float *w, int64_t n, bq_row_grid grid, float zero, bq_quadratic o, double beta, float least,    \
       double sum[3]))

#endif
