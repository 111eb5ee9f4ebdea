/* grid.h - grids: what a scheme says, the step that covers a range, and the value of a number on a grid.  All
 * backends use this source, so codes are equal bit for bit.
 *
 * A grid is the numbers (code - zero) * scale for codes qmin ... qmax.  Its step is its scale. */
#ifndef BQ_KERNELS_GRID_H
#define BQ_KERNELS_GRID_H

#include <float.h>
#include <math.h>

#include "base/mat.h"
#include "base/num.h"
#include "kernels/element.h"

/* The step of a symmetric grid for values from lo <= 0 to hi >= 0:
 *   AIMET    max(hi / qmax, lo / qmin): the smallest step that clips no value (AIMET)
 *   ABSMAX   max(-lo, hi) / ((qmax - qmin) / 2): the largest |value|, where it is positive, is half a step
 *            outside the grid (compressed-tensors, Quark, GPTQModel) */
typedef enum { BQ_GRID_AIMET, BQ_GRID_ABSMAX } bq_grid_kind;

/* How a linear is quantized. */
typedef struct {
    int element;    /* BQ_INT4, ... */
    int64_t group;  /* columns that share a scale; -1: all columns of a row */
    bool symmetric; /* zero is 0; else each scale has a zero, and `grid` is not used */
    bq_type scale;  /* the type that a scale is rounded to before codes are made */
    bq_grid_kind grid;
} bq_scheme;

static inline bool bq_scheme_equal(bq_scheme a, bq_scheme b) {
    return a.element == b.element && a.group == b.group && a.symmetric == b.symmetric && a.scale == b.scale &&
           a.grid == b.grid;
}

/* Can ops compute with it?  zeros: are there zero points? */
static inline bool bq_scheme_valid(bq_scheme s, bool zeros) {
    const bq_element e = bq_element_of(s.element);
    return e.bits > 0 && s.symmetric == !zeros && (e.zero || !zeros) &&
           (s.scale == BQ_F32 || s.scale == BQ_BF16 || s.scale == BQ_F16);
}

/* Of inputs, each token with a scale of its own. */
static inline bq_scheme bq_scheme_of_tokens(int element) {
    const bq_scheme s = {element, -1, true, BQ_F32, BQ_GRID_ABSMAX};
    return s;
}

/* Bits of a code; 0: there is no such element. */
static inline int bq_code_bits(bq_scheme s) { return bq_element_of(s.element).bits; }
/* Bits that a row of `cols` weights takes: codes, and for each group a scale and a zero point, which is as
 * wide as a code. */
static inline int64_t bq_scheme_row_bits(bq_scheme s, int64_t cols) {
    const int64_t groups = s.group > 0 ? (cols + s.group - 1) / s.group : 1, code = bq_code_bits(s);
    return cols * code + groups * ((s.scale == BQ_F32 ? 32 : 16) + (s.symmetric ? 0 : code));
}

static inline float bq_qmin(bq_scheme s) { return bq_element_of(s.element).low; }
static inline float bq_qmax(bq_scheme s) { return bq_element_of(s.element).high; }

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

/* The unit whose multiples 1 ... levels become the scales of a row with that largest scale.  It is cut off,
 * not rounded: so no multiple is above the largest scale, and every multiple is exact in the type. */
static inline float bq_grid_unit(float largest, int levels, bq_type type) {
    int digits = type == BQ_BF16 ? 8 : type == BQ_F16 ? 11 : 24, exponent;
    for (int l = levels; l > 1; l /= 2) digits--;
    const double tiny = (double)bq_scale_round(0, type), unit = (double)largest / levels;
    frexp(unit, &exponent);
    const double step = fmax(ldexp(1.0, exponent - digits), tiny);
    return (float)fmax(floor(unit / step) * step, tiny);
}

/* The grid of one row.  Where there is a zero, it has been subtracted from qmin and qmax. */
typedef struct {
    float scale, qmin, qmax;
    int element;
} bq_row_grid;

static inline bq_row_grid bq_row_grid_of(bq_scheme s, float scale, float zero) {
    const bq_row_grid g = {scale, bq_qmin(s) - zero, bq_qmax(s) - zero, s.element};
    return g;
}

/* The grid that covers [lo, hi], and its zero, which stays as it is where the scheme is symmetric. */
static inline bq_row_grid bq_row_grid_fit(float lo, float hi, bq_scheme s, float *zero) {
    const float step = bq_grid_step(lo, hi, s, zero);
    return bq_row_grid_of(s, step, *zero);
}

static inline float bq_clamp(float x, float lo, float hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

/* The same, but NaN becomes lo: where codes are made, so that their conversion is defined. */
static inline float bq_clamp_code(float x, float lo, float hi) {
    x = x > lo ? x : lo;
    return x < hi ? x : hi;
}

/* The value of x on the grid (w_hat). */
static inline float bq_on_grid(float x, bq_row_grid g) {
    return bq_nearest(g.element, bq_clamp(x / g.scale, g.qmin, g.qmax)) * g.scale;
}
static inline float bq_on_code_grid(float x, bq_row_grid g) {
    return bq_nearest(g.element, bq_clamp_code(x / g.scale, g.qmin, g.qmax)) * g.scale;
}

#endif
