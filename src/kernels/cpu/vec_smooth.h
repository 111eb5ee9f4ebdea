/* vec_smooth.h - rows of the vector table for the smoothing ops (vec_smooth.c). */
#ifndef BQ_VEC_SMOOTH_H
#define BQ_VEC_SMOOTH_H

/* column_max: m[j] = max(m[j], sign * x[j]), or of |x[j]| with sign 0; NaN is passed over.
 * column_sum: sum[j] += |x[j]| * factor, or x[j]^2 where factor < 0.
 * col_times, col_over: y = x * s and x / s, y may alias x.
 * fake: x on the grid and back, then / s unless s is NULL; y may alias x; the grid's ends are without the
 * zero point.  clip: w clamped to -c .. c. distance: sum of d^2, |d| or sqrt|d|. */
#define BQ_VEC_SMOOTH(X)                                                                                     \
    X(void, column_max, (const float *x, int64_t n, float sign, float *m))                                   \
    X(void, column_sum, (const float *x, int64_t n, float factor, double *sum))                              \
    X(void, col_times, (const float *x, const float *s, int64_t n, float *y))                                \
    X(void, col_over, (const float *x, const float *s, int64_t n, float *y))                                 \
    X(void, fake, (const float *x, int64_t n, bq_grid grid, const float *s, float *y))                       \
    X(void, clip, (const float *w, int64_t n, float c, float *y))                                            \
    X(double, distance, (const float *a, const float *b, int64_t n, bq_distance kind))
#endif
