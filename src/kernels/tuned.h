/* SPDX-License-Identifier: Apache-2.0 */
/* tuned.h - grids and roundings that a training changes.  The same source for all backends, so that results
 * are equal bit for bit.
 *
 * In all forms w_hat = (clamp(rne(t), qmin, qmax) - zero) * scale.  What t is, and what is trained:
 *   ROUNDING   t = w / scale + value.  value: an offset for each weight; low and high in [0, 1]: factors of
 *              both ends lo, hi of the row's range, which the grid covers (AutoRound)
 *   CLIPPING   t = w / scale.  low, high: the same factors are their sigmoids (OmniQuant)
 *   WEIGHTS    t = value / scale.  value: the weights; the grid covers them (QAT)
 *   SCALES     the same, but the scale is `high` and the zero point rne(low) (QAT with learned ranges)
 *
 * Gradients go straight through every rounding.  M is 1 where rne(t), before it is clamped, is a code, ends
 * included; else 0.  With g = dL/dw_hat:
 *   value   g M scale of ROUNDING, else g M.  Of WEIGHTS with floats M is 1
 *   scale   sum of g (code - zero - M w / scale), without the offset of ROUNDING
 *   zero    sum of g scale (M - 1); OmniQuant's zero points are constants
 * and low and high get theirs by the chain rule from scale = step of the ends (grid.h). */
#ifndef BQ_KERNELS_TUNED_H
#define BQ_KERNELS_TUNED_H

#include "base/num.h"
#include "kernels/grid.h"

typedef enum { BQ_TUNE_ROUNDING, BQ_TUNE_CLIPPING, BQ_TUNE_WEIGHTS, BQ_TUNE_SCALES } bq_tune;

/* How a value p takes a step from its gradient g, with moments m and v that start at 0:
 *   ADAM      p -= rate * decay * p, then Adam's step as below (AdamW)
 *   SIGN      p -= rate * sign(g)
 *   MOMENTUM  m = beta1 * m + g + decay * p, then p -= rate * m */
typedef enum { BQ_ADAM, BQ_SIGN, BQ_MOMENTUM } bq_train_optimizer;

/* p -= step * m / (sqrt(v) / root + eps).  t below is the number of the step, from 1. */
typedef struct {
    float keep1, keep2; /* 1 - beta1 and 1 - beta2 */
    float beta2;
    float root, eps;   /* sqrt(1 - beta2^t) */
    float step;        /* lr / (1 - beta1^t) */
    float rate, decay; /* lr, and the weight decay */
} bq_adam_step;

/* A value's step from its gradient g. */
static inline void bq_take_step(bq_train_optimizer by, float g, bq_adam_step a, float *p, float *m,
                                float *v) {
    if (by == BQ_SIGN) {
        *p -= a.rate * (g > 0 ? 1.0f : g < 0 ? -1.0f : 0.0f);
    } else if (by == BQ_MOMENTUM) {
        const float mj = (1 - a.keep1) * *m + (g + a.decay * *p);
        *m = mj, *p -= a.rate * mj;
    } else {
        const float mj = *m + a.keep1 * (g - *m), vj = *v * a.beta2 + a.keep2 * g * g;
        *m = mj, *v = vj, *p -= a.rate * a.decay * *p;
        *p -= a.step * mj / (sqrtf(vj) / a.root + a.eps);
    }
}

#define BQ_TUNE_LEAST 1e-12f /* of a trained scale */

/* Are low and high factors of the ends? */
static inline bool bq_tune_ends(bq_tune form) { return form == BQ_TUNE_ROUNDING || form == BQ_TUNE_CLIPPING; }

static inline float bq_tune_factor(bq_tune form, float x) {
    return form == BQ_TUNE_CLIPPING ? 1 / (1 + bq_exp(-x)) : x;
}

/* The scale of a row, and its zero point; lo, hi: of WEIGHTS the ends of the weights as they are now. */
static inline float bq_tune_grid(bq_tune form, bq_scheme s, float lo, float hi, float low, float high,
                                 float *zero) {
    *zero = 0;
    if (form == BQ_TUNE_WEIGHTS) return bq_grid_step(lo, hi, s, zero);
    if (bq_tune_ends(form))
        return bq_grid_step(bq_tune_factor(form, low) * lo, bq_tune_factor(form, high) * hi, s, zero);
    if (!s.symmetric) *zero = fminf(fmaxf(rintf(low), bq_qmin(s)), bq_qmax(s)) + 0.0f; /* no -0 */
    return bq_scale_stored(high < BQ_TUNE_LEAST ? BQ_TUNE_LEAST : high, s);            /* NaN stays NaN */
}

/* The ends that a grid covers. */
static inline void bq_tune_covers(bq_scheme s, float scale, float zero, float *lo, float *hi) {
    const bool even = s.symmetric && s.grid != BQ_GRID_AIMET;
    *hi = (even ? (bq_qmax(s) - bq_qmin(s)) / 2 : bq_qmax(s) - zero) * scale;
    *lo = even ? -*hi : (bq_qmin(s) - zero) * scale;
}

/* x and w_hat of a weight: w_hat is x on the grid.  So quantize makes the codes of x. */
static inline float bq_tune_before(bool offset, float w, float value, float scale) {
    return offset ? (w / scale + value) * scale : w;
}

/* Of a weight: the gradient of its value, and its terms in those of scale and zero.  w: the weights that the
 * form rounds.  The mask looks at the rounded number, so t is clamped to one step outside the grid first. */
typedef struct {
    float value, scale, zero;
} bq_tune_slope;

static inline bq_tune_slope bq_tune_slope_of(bool offset, bool all, float w, float value, float g,
                                             bq_row_grid grid) {
    const float t = bq_grid_steps(bq_tune_before(offset, w, value, grid.scale), grid),
                near = bq_clamp(t, grid.qmin - 1, grid.qmax + 1),
                code = grid.number.mantissa ? near : bq_nearest(grid.number, near),
                in = bq_clamp(code, grid.qmin, grid.qmax), q = bq_nearest(grid.number, in);
    const bool inside = all || code == in;
    const bq_tune_slope slope = {(inside ? g : 0.0f) * (offset ? grid.scale : 1.0f),
                                 g * (inside ? q - w / grid.scale : q), inside ? 0.0f : -(g * grid.scale)};
    return slope;
}

/* The gradients of low and high from those of scale and zero. */
static inline void bq_tune_ends_slopes(bq_tune form, bq_scheme s, float lo, float hi, float low, float high,
                                       float scale, const double *sum, float *d) {
    const double a = (double)bq_tune_factor(form, low), b = (double)bq_tune_factor(form, high),
                 left = -(double)lo, right = (double)hi, steps = (double)(bq_qmax(s) - bq_qmin(s));
    double da = sum[0] * left / steps, db = sum[0] * right / steps;
    if (s.symmetric) {
        const bool aimet = s.grid == BQ_GRID_AIMET;
        const double below = aimet ? -(double)bq_qmin(s) : steps / 2,
                     above = aimet ? (double)bq_qmax(s) : steps / 2, x = left * a / below,
                     y = right * b / above;
        da = sum[0] * left / below * (x > y ? 1 : x == y ? 0.5 : 0);
        db = sum[0] * right / above * (x < y ? 1 : x == y ? 0.5 : 0);
    } else if (form == BQ_TUNE_ROUNDING) {
        const double step = (double)scale, all = sum[0] - sum[1] * left * a / (step * step);
        da = all * left / steps + sum[1] * left / step, db = all * right / steps;
    }
    if (form == BQ_TUNE_CLIPPING) da *= a * (1 - a), db *= b * (1 - b);
    d[0] = (float)da, d[1] = (float)db;
}

static inline void bq_tune_slopes(bq_tune form, bq_scheme s, float lo, float hi, float low, float high,
                                  float scale, const double *sum, float *d) {
    d[0] = d[1] = 0;
    if (bq_tune_ends(form)) {
        bq_tune_ends_slopes(form, s, lo, hi, low, high, scale, sum, d);
    } else if (form == BQ_TUNE_SCALES) {
        const float zero = rintf(low);
        d[0] = s.symmetric || zero < bq_qmin(s) || zero > bq_qmax(s) ? 0 : (float)sum[1];
        d[1] = high < BQ_TUNE_LEAST ? 0 : (float)sum[0];
    }
}

/* low or high after a step. */
static inline float bq_tune_bound(bq_tune form, float x) {
    return form == BQ_TUNE_ROUNDING ? bq_clamp(x, 0, 1) : x;
}

#endif
