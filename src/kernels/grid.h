/* grid.h - integer grids: what a scheme says, and the step that covers a range.  All backends use this
 * source, so codes are equal bit for bit.
 *
 * A grid is the numbers (code - zero) * scale for codes qmin ... qmax.  Its step is its scale. */
#ifndef BQ_KERNELS_GRID_H
#define BQ_KERNELS_GRID_H

#include <float.h>
#include <math.h>

#include "base/mat.h"
#include "base/num.h"

/* The step of a symmetric grid for values from lo <= 0 to hi >= 0:
 *   AIMET    max(hi / qmax, lo / qmin): the smallest step that clips no value (AIMET)
 *   ABSMAX   max(-lo, hi) / ((qmax - qmin) / 2): the largest |value|, where it is positive, is half a step
 *            outside the grid (compressed-tensors, Quark, GPTQModel) */
typedef enum { BQ_GRID_AIMET, BQ_GRID_ABSMAX } bq_grid_kind;

/* How a linear is quantized, with codes -2^(bits-1) ... 2^(bits-1) - 1. */
typedef struct {
    int bits;       /* 2 to 8 */
    int64_t group;  /* columns that share a scale; -1: all columns of a row */
    bool symmetric; /* zero is 0; else each scale has a zero, and `grid` is not used */
    bq_type scale;  /* the type that a scale is rounded to before codes are made */
    bq_grid_kind grid;
} bq_scheme;

static inline float bq_qmin(bq_scheme s) { return (float)-(1 << (s.bits - 1)); }
static inline float bq_qmax(bq_scheme s) { return (float)((1 << (s.bits - 1)) - 1); }

/* Round a computed scale to the type that will store it: F32, BF16 or F16.  What would become 0 or less is
 * the type's smallest positive number, and what would become infinite its largest, so that codes are defined
 * and files have finite numbers.  NaN stays NaN: a run that diverged must show it. */
static inline float bq_scale_round(float scale, bq_type type) {
    float tiny = FLT_TRUE_MIN, huge = FLT_MAX;
    if (type == BQ_BF16) {
        scale = bq_from_bf16(bq_to_bf16(scale)), tiny = bq_from_bf16(1), huge = bq_from_bf16(0x7f7f);
    } else if (type == BQ_F16) {
        scale = bq_from_f16(bq_to_f16(scale)), tiny = bq_from_f16(1), huge = bq_from_f16(0x7bff);
    }
    if (scale <= 0) return tiny;
    return scale > huge ? huge : scale;
}

/* The step of the grid that covers [lo, hi], with lo <= 0 <= hi; and in *zero, where the scheme is
 * not symmetric, the code of 0.  A range that is too small is widened first, so that a row of
 * zeros has a step, too. */
static inline float bq_grid_step(float lo, float hi, bq_scheme s, float *zero) {
    float qmin = bq_qmin(s), qmax = bq_qmax(s), steps = qmax - qmin,
          least = fminf(FLT_EPSILON, 0.01f / steps);
    if (s.symmetric && s.grid == BQ_GRID_ABSMAX) {
        const float step = fmaxf(-lo, hi) / (steps / 2);
        return bq_scale_round(step == 0 ? FLT_EPSILON : step, s.scale);
    }
    if ((hi - lo) / steps < least) hi += floorf(steps / 2) * least, lo -= ceilf(steps / 2) * least;
    if (s.symmetric) return bq_scale_round(fmaxf(hi / qmax, lo / qmin), s.scale);
    float scale = bq_scale_round((hi - lo) / steps, s.scale);
    *zero = fminf(fmaxf(qmin - rintf(lo / scale), qmin), qmax);
    return scale;
}

#endif
