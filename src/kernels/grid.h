/* grid.h - integer grids: what a scheme says, and the step that covers a range.  The same source for all
 * backends, so that codes are equal bit for bit. */
#ifndef BQ_KERNELS_GRID_H
#define BQ_KERNELS_GRID_H

#include <float.h>
#include <math.h>

#include "base/mat.h"
#include "base/num.h"

/* The step of a symmetric grid over values from lo <= 0 to hi >= 0: max(hi / qmax, lo / qmin), the least that
 * clips none (AIMET); or max(-lo, hi) / ((qmax - qmin) / 2), by which the largest value lies half a step
 * outside (compressed-tensors, Quark, GPTQModel). */
typedef enum { BQ_GRID_AIMET, BQ_GRID_ABSMAX } bq_grid_kind;

/* An integer grid of 2^bits steps, codes -2^(bits-1) .. 2^(bits-1)-1.  symmetric: zero point 0; else each
 * scale has a zero point, a code: the value 0 has that code, and `grid` does not count.  group: columns that
 * share a scale; -1: a whole row.  scale: type the scale is rounded to before codes are made. */
typedef struct {
    int bits;
    int64_t group;
    bool symmetric;
    bq_type scale;
    bq_grid_kind grid;
} bq_scheme;

static inline float bq_qmin(bq_scheme s) { return (float)-(1 << (s.bits - 1)); }
static inline float bq_qmax(bq_scheme s) { return (float)((1 << (s.bits - 1)) - 1); }

/* A computed scale as the type that will store it (F32, BF16 or F16) holds it.  What would become 0 (or less)
 * is the smallest positive number of that type and what would become infinite is its largest: codes stay
 * defined and the file finite.  NaN stays: a run that diverged has to show. */
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

/* The step that covers [lo, hi] with codes qmin .. qmax, lo <= 0 <= hi, and for a grid that is not symmetric
 * the code of 0.  A range too small for any grid is widened first, so that a row of zeros has a step too. */
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
