/* SPDX-License-Identifier: Apache-2.0 */
/* vec_smooth.h - the vector functions of smoothing ops (vec_smooth.c): X(return type, name, (arguments)). */
#ifndef BQ_VEC_SMOOTH_H
#define BQ_VEC_SMOOTH_H

/* What the functions do:
 *   column_max            m[j] = max(m[j], sign * x[j]), with sign 0 of |x[j]|; NaN is skipped
 *   column_sum            sum[j] += |x[j]| * factor; where factor < 0, sum[j] += x[j]^2
 *   col_times, col_over   y = x * s, y = x / s; y may be x
 *   fake                  y = x on the grid (w_hat), then / s unless s is NULL; y may be x.  The ends of the
 *                         grid have the zero subtracted
 *   clip                  y = w clamped to [-c, c]
 *   distance              returns the sum of d^2, |d| or sqrt|d| */
#define BQ_VEC_SMOOTH(X)                                                                                     \
    X(void, column_max, (const float *x, int64_t n, float sign, float *m))                                   \
    X(void, column_sum, (const float *x, int64_t n, float factor, double *sum))                              \
    X(void, col_times, (const float *x, const float *s, int64_t n, float *y))                                \
    X(void, col_over, (const float *x, const float *s, int64_t n, float *y))                                 \
    X(void, fake, (const float *x, int64_t n, const bq_row_grid *at, const float *s, float *y))              \
    X(void, clip, (const float *w, int64_t n, float c, float *y))                                            \
    X(double, distance, (const float *a, const float *b, int64_t n, bq_distance kind))
#endif
