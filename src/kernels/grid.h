/* grid.h - grids: what a scheme says, the step that covers a range, and the value of a number on a grid.  All
 * backends use this source, so codes are equal bit for bit.
 *
 * A grid is the numbers (code - zero) * scale for codes qmin ... qmax; of floats, value(code) * scale.  Its
 * step is its scale. */
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
 *            outside the grid (compressed-tensors, Quark, GPTQModel)
 * Floats are as far from 0 on both sides, so for them both say: the largest |value| is the largest number. */
typedef enum { BQ_GRID_AIMET, BQ_GRID_ABSMAX } bq_grid_kind;

/* How a linear is quantized. */
typedef struct {
    int element;    /* BQ_INT4, ... */
    int64_t group;  /* columns that share a scale; -1: all columns of a row */
    bool symmetric; /* zero is 0; else each scale has a zero, and `grid` is not used */
    bq_type scale;  /* the type that a scale is rounded to before codes are made; BQ_F8_E8M0: a power of 2 */
    bq_grid_kind grid;
    int64_t rows; /* that share a scale: tiles of rows x group; -1: all; 0 and 1: each has its own */
    float outer;  /* of BQ_F8_E4M3: scales are e4m3 numbers / outer; 0: not known yet, they are not rounded */
} bq_scheme;

/* Is a scale one byte? */
static inline bool bq_scheme_small(bq_scheme s) { return s.scale == BQ_F8_E8M0 || s.scale == BQ_F8_E4M3; }

static inline bool bq_scheme_tiled(bq_scheme s) { return s.rows > 1 || s.rows < 0; }

/* The same but for `outer`, which is data. */
static inline bool bq_scheme_equal(bq_scheme a, bq_scheme b) {
    return a.element == b.element && a.group == b.group && a.symmetric == b.symmetric && a.scale == b.scale &&
           a.grid == b.grid && (bq_scheme_tiled(a) ? a.rows : 1) == (bq_scheme_tiled(b) ? b.rows : 1);
}

/* Can ops compute with it?  zeros: are there zero points? */
static inline bool bq_scheme_valid(bq_scheme s, bool zeros) {
    const bq_element e = bq_element_of(s.element);
    const bool small = bq_scheme_small(s);
    return e.bits > 0 && s.symmetric == !zeros && (e.zero || !zeros) &&
           (s.scale == BQ_F32 || s.scale == BQ_BF16 || s.scale == BQ_F16 || (small && e.number.mantissa));
}

/* Of inputs, each token with a scale of its own. */
static inline bq_scheme bq_scheme_of_tokens(int element) {
    const bq_scheme s = {element, -1, true, BQ_F32, BQ_GRID_ABSMAX, 1, 0};
    return s;
}

/* Bits of a code; 0: there is no such element. */
static inline int bq_code_bits(bq_scheme s) { return bq_element_of(s.element).bits; }
/* Bits that a matrix takes: codes; for each group or tile a scale, and a zero point, which is as wide as a
 * code; an outer factor. */
static inline int64_t bq_scheme_bits(bq_scheme s, int64_t rows, int64_t cols) {
    const int64_t high = bq_scheme_tiled(s) ? (s.rows < 0 ? rows : s.rows) : 1, code = bq_code_bits(s),
                  across = s.group > 0 ? (cols + s.group - 1) / s.group : 1, down = (rows + high - 1) / high;
    const bool two = s.scale == BQ_F8_E4M3;
    const int64_t scale = bq_scheme_small(s) ? 8 : s.scale == BQ_F32 ? 32 : 16;
    return rows * cols * code + down * across * (scale + (s.symmetric ? 0 : code)) + (two ? 32 : 0);
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

#define BQ_SCALE_MAX  448.0f /* of e4m3, */
#define BQ_SCALE_ZERO 0.125f /* and what stands there for a scale of 0 (compressed-tensors) */

/* The number with these bits, its mantissa cut off, over 2^less, as far as E8M0 has it: 2^-127 ... 2^127. */
static inline float bq_power_below(uint32_t bits, int less) {
    const int e = (int)(bits >> 23 & 255u) - 127 - less, in = e < -127 ? -127 : e > 127 ? 127 : e;
    return in == -127 ? bq_float(0x400000u) : bq_float((uint32_t)(in + 127) << 23);
}

/* OCP's MX: the largest |value| a over the power of two that the largest number has, as a power of two.  a
 * is rounded first to as many bits as the mantissa has, of 8-bit floats to 1, so that it may reach the next
 * power (compressed-tensors). */
static inline float bq_grid_power(float a, const bq_element e) {
    const int kept = e.bits == 8 ? 1 : e.number.mantissa, top = (int)(bq_bits(e.high) >> 23) - 127;
    return a == a ? bq_power_below(bq_bits(a) + (1u << (22 - kept)), top) : a;
}

/* A scale as the scheme stores it.  E4M3: times outer it is an e4m3 number.  E8M0: the nearest power of 2. */
static inline float bq_scale_stored(float scale, bq_scheme s) {
    if (s.scale == BQ_F8_E8M0) return scale == scale ? bq_power_below(bq_bits(scale) + 0x400000u, 0) : scale;
    if (s.scale != BQ_F8_E4M3) return bq_scale_round(scale, s.scale);
    if (!(s.outer > 0)) return bq_scale_round(scale, BQ_F32);
    const float most = scale * s.outer > BQ_SCALE_MAX ? BQ_SCALE_MAX : scale * s.outer,
                inner = bq_nearest_float(bq_element_of(BQ_E4M3).number, most);
    return (inner > 0 ? inner : inner == 0 ? BQ_SCALE_ZERO : inner) / s.outer; /* NaN stays NaN */
}

/* The step where both ends of the grid are as far from 0: a is the largest |value|.  A row of zeros has a
 * step, too; in tiles the least one there is, so that it does not count. */
static inline float bq_grid_even(float a, bq_scheme s) {
    const float half = (bq_qmax(s) - bq_qmin(s)) / 2, step = a / half;
    if (s.scale == BQ_F8_E8M0) return bq_grid_power(a, bq_element_of(s.element));
    return bq_scale_stored(step == 0 && s.scale != BQ_F8_E4M3 && !bq_scheme_tiled(s) ? FLT_EPSILON : step, s);
}

/* The scale of a tile from the largest of its rows' scales. */
static inline float bq_tile_scale(float most, bq_scheme s) {
    return most <= bq_scale_round(0, s.scale) ? bq_scale_stored(FLT_EPSILON, s) : most;
}

/* The step of the grid that covers [lo, hi], with lo <= 0 <= hi; and in *zero, where the scheme is
 * not symmetric, the code of 0.  A range that is too small is widened first, so that a row of
 * zeros has a step, too. */
static inline float bq_grid_step(float lo, float hi, bq_scheme s, float *zero) {
    float qmin = bq_qmin(s), qmax = bq_qmax(s), steps = qmax - qmin,
          least = fminf(FLT_EPSILON, 0.01f / steps);
    if (s.symmetric && (s.grid == BQ_GRID_ABSMAX || bq_scheme_tiled(s) || !bq_element_whole(s.element)))
        return bq_grid_even(fmaxf(-lo, hi), s);
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
    bq_number number;
} bq_row_grid;

static inline bq_row_grid bq_row_grid_of(bq_scheme s, float scale, float zero) {
    const bq_element e = bq_element_of(s.element);
    const bq_row_grid g = {scale, e.low - zero, e.high - zero, e.number};
    return g;
}

/* The same for integers: the compiler need not look. */
static inline bq_row_grid bq_row_grid_whole(bq_row_grid g) {
    g.number.mantissa = g.number.least = 0;
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

/* The code of x; the value of x on the grid (w_hat). */
static inline float bq_grid_code(float x, bq_row_grid g) {
    return bq_nearest(g.number, bq_clamp(x / g.scale, g.qmin, g.qmax));
}
static inline float bq_on_grid(float x, bq_row_grid g) { return bq_grid_code(x, g) * g.scale; }
static inline float bq_on_code_grid(float x, bq_row_grid g) {
    return bq_nearest(g.number, bq_clamp_code(x / g.scale, g.qmin, g.qmax)) * g.scale;
}

#endif
