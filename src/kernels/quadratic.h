/* SPDX-License-Identifier: Apache-2.0 */
/* quadratic.h - the half-quadratic fixed point of a group of weights.  The same source for all backends, so
 * that grids are equal bit for bit. */
#ifndef BQ_KERNELS_QUADRATIC_H
#define BQ_KERNELS_QUADRATIC_H

#include <stdbool.h>

#include "base/power.h"
#include "kernels/grid.h"

/* What an iteration changes; the other number of the grid stays. */
typedef enum { BQ_SOLVE_SCALE, BQ_SOLVE_ZERO } bq_solve;

/* Minimizes sum |w - (code - zero) scale|^p, 0 < p <= 1, by splitting off errors e that may be large
 * (HQQ, Badri and Shaji 2023).  One iteration, with beta times kappa >= 1 after each:
 *   q = clamp(rne(w / scale + zero), qmin, qmax)     the codes
 *   d = w - (q - zero) scale                         the error
 *   e = sign(d) max(|d| - |d|^(p - 1) / beta, 0)     its part that is left out of the fit
 *   ZERO:  zero = mean of q - (w - e) / scale
 *   SCALE: scale = sum (w - e) (q - zero) / sum (q - zero)^2, rounded to the scheme's type */
typedef struct {
    bq_solve solve;
    int iterations;
    double p, beta, kappa;
    bool early_stop; /* a row ends when its sum |d| does not fall, and keeps the grid of the least */
    bool whole;      /* the zero point is rounded to a code at the end, if the scheme has codes there */
    bool start;      /* the zero point is rounded before the first iteration */
} bq_quadratic;

/* Errors up to here leave nothing in e, in no iteration: most need no power. */
static inline float bq_quadratic_least(bq_quadratic o) {
    double beta = o.beta;
    for (int i = 1; i < o.iterations; i++) beta *= o.kappa;
    return (float)(bq_power(1 / beta, 1 / (2 - o.p)) * (1 - 1e-6));
}

/* e of d; least: as above. */
static inline float bq_quadratic_left(bq_quadratic o, double beta, float least, float d) {
    const float size = fabsf(d);
    if (!(size > least)) return 0;
    const float left = size - (float)(1 / beta) * (float)bq_exp2((o.p - 1) * bq_log2((double)size));
    return left > 0 ? (d < 0 ? -left : left) : 0;
}

/* A row's grid after an iteration.  sum: of |d|; of what is solved for numerator and denominator.  For values
 * that are NaN or infinite the grid stays. */
static inline void bq_quadratic_next(bq_quadratic o, bq_type type, const double *sum, float *scale,
                                     float *zero) {
    if (!(sum[0] < INFINITY && sum[2] > 0)) return;
    const double x = sum[1] / sum[2];
    if (o.solve == BQ_SOLVE_ZERO) *zero = (float)x;
    if (o.solve == BQ_SOLVE_SCALE && x > 0) *scale = bq_scale_round((float)x, type);
}

/* Iterations count zero points in codes, with fractions.  The scheme for that; a zero point of the scheme s
 * as it is before the first one. */
static inline bq_scheme bq_quadratic_scheme(bq_scheme s) {
    s.zero = BQ_ZERO_CODE;
    return s;
}
static inline float bq_quadratic_start(bq_quadratic o, bq_scheme s, float scale, float zero) {
    const float z = bq_scheme_offset(s) ? -zero / scale : zero;
    return o.start ? rintf(z) : z;
}

/* The code nearest to a zero point. */
static inline float bq_quadratic_whole(bq_scheme s, float zero) {
    return fminf(fmaxf(rintf(zero), bq_qmin(s)), bq_qmax(s));
}

/* A zero point of the scheme s after the last iteration. */
static inline float bq_quadratic_end(bq_quadratic o, bq_scheme s, float scale, float zero) {
    if (bq_scheme_offset(s)) return bq_zero_round(-zero * scale, s.scale);
    return o.whole ? bq_quadratic_whole(s, zero) : zero;
}

#endif
