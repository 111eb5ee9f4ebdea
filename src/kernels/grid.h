/* SPDX-License-Identifier: Apache-2.0 */
/* grid.h - grids: what a scheme says, the step that covers a range, and the value of a number on a grid.  All
 * backends use this source, so codes are equal bit for bit.
 *
 * A grid is the numbers (code - zero) * scale for codes qmin ... qmax; of floats, value(code) * scale.  Its
 * step is its scale.  With zero points that are floats it is code * scale + zero. */
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
 *   TORCHAO  as ABSMAX, but at least eps; and codes are made as torchao makes them: a value is multiplied by
 *            the reciprocal of the scale, which is rounded first.  With zero points, too.
 * Floats are as far from 0 on both sides, so for them all say: the largest |value| is the largest number. */
typedef enum { BQ_GRID_AIMET, BQ_GRID_ABSMAX, BQ_GRID_TORCHAO } bq_grid_kind;

/* What a zero point is: the code of 0; or a float, the value of code 0, which tinygemm and HQQ have.  Then a
 * grid covers just the values there are, whether 0 is among them or not. */
typedef enum { BQ_ZERO_CODE, BQ_ZERO_FLOAT } bq_zero_kind;

/* The power of two that is the scale of a block of floats (BQ_F8_E8M0), from its largest |value| a and the
 * power of two top that the largest number has (OCP's MX; the names are torchao's):
 *   FLOOR   that below a, over top: values beyond the largest number are clipped
 *   CEIL    the same, but the one above a unless a is a power
 *   EVEN    that below a rounded to as many bits as the mantissa has.  Of 8-bit floats compressed-tensors
 *           rounds to 1 bit, torchao (BQ_GRID_TORCHAO) to theirs
 *   RCEIL   the one above a / the largest number, so that no value is clipped */
typedef enum { BQ_POWER_EVEN, BQ_POWER_FLOOR, BQ_POWER_CEIL, BQ_POWER_RCEIL } bq_power_rule;

/* Where scales are e4m3 numbers: are they multiplied by a number that matrices share? */
typedef enum { BQ_OUTER_SHARED, BQ_OUTER_NONE } bq_outer_kind;

/* How a linear is quantized. */
typedef struct {
    int element;    /* BQ_INT4, ... */
    int64_t group;  /* columns that share a scale; -1: all columns of a row */
    bool symmetric; /* zero is 0; else each scale has a zero, and of `grid` only TORCHAO is different */
    bq_type scale;  /* the type that a scale is rounded to before codes are made; BQ_F8_E8M0: a power of 2 */
    bq_grid_kind grid;
    int64_t rows; /* that share a scale: tiles of rows x group; -1: all; 0 and 1: each has its own */
    float outer;  /* of BQ_F8_E4M3: scales are e4m3 numbers / outer, with BQ_GRID_TORCHAO times outer; 0: not
                     known yet, they are not rounded */
    bq_zero_kind zero; /* where it is not symmetric */
    double eps;        /* of BQ_GRID_TORCHAO and of BQ_ZERO_FLOAT: the least scale */
    bq_power_rule power;
    bq_outer_kind levels; /* BQ_OUTER_NONE: outer is 1 */
} bq_scheme;

/* Is a scale one byte? */
static inline bool bq_scheme_small(bq_scheme s) { return s.scale == BQ_F8_E8M0 || s.scale == BQ_F8_E4M3; }

static inline bool bq_scheme_tiled(bq_scheme s) { return s.rows > 1 || s.rows < 0; }

/* The same but for `outer`, which is data. */
static inline bool bq_scheme_equal(bq_scheme a, bq_scheme b) {
    return a.element == b.element && a.group == b.group && a.symmetric == b.symmetric && a.scale == b.scale &&
           a.grid == b.grid && a.zero == b.zero && a.eps == b.eps && a.power == b.power &&
           a.levels == b.levels && (bq_scheme_tiled(a) ? a.rows : 1) == (bq_scheme_tiled(b) ? b.rows : 1);
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
    const bq_scheme s = {element, -1,           true, BQ_F32,        BQ_GRID_ABSMAX, 1,
                         0,       BQ_ZERO_CODE, 0,    BQ_POWER_EVEN, BQ_OUTER_SHARED};
    return s;
}

/* Are its zero points floats? */
static inline bool bq_scheme_offset(bq_scheme s) { return !s.symmetric && s.zero == BQ_ZERO_FLOAT; }

/* Bits of a code; 0: there is no such element. */
static inline int bq_code_bits(bq_scheme s) { return bq_element_of(s.element).bits; }
/* Bits that a matrix takes: codes; for each group or tile a scale, and a zero point, which is as wide as a
 * code, or as a scale where it is a float; an outer factor. */
static inline int64_t bq_scheme_bits(bq_scheme s, int64_t rows, int64_t cols) {
    const int64_t high = bq_scheme_tiled(s) ? (s.rows < 0 ? rows : s.rows) : 1, code = bq_code_bits(s),
                  across = s.group > 0 ? (cols + s.group - 1) / s.group : 1, down = (rows + high - 1) / high;
    const bool two = s.scale == BQ_F8_E4M3;
    const int64_t scale = bq_scheme_small(s) ? 8 : s.scale == BQ_F32 ? 32 : 16;
    const int64_t zero = s.symmetric ? 0 : bq_scheme_offset(s) ? scale : code;
    return rows * cols * code + down * across * (scale + zero) + (two ? 32 : 0);
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

/* The same of a zero point that is a float. */
static inline float bq_zero_round(float zero, bq_type type) {
    if (type == BQ_BF16) return bq_from_bf16(bq_to_bf16(zero));
    if (type != BQ_F16) return zero;
    const float x = bq_from_f16(bq_to_f16(zero)), huge = bq_from_f16(0x7bff);
    return x > huge ? huge : x < -huge ? -huge : x;
}

/* A step, at least eps; NaN stays NaN. */
static inline float bq_at_least(float step, double eps) { return step < (float)eps ? (float)eps : step; }

#define BQ_SCALE_MAX  448.0f /* of e4m3, */
#define BQ_SCALE_ZERO 0.125f /* and what stands there for a scale of 0 (compressed-tensors) */

/* The number with these bits, its mantissa cut off, over 2^less, as far as E8M0 has it: 2^-127 ... 2^127. */
static inline float bq_power_below(uint32_t bits, int less) {
    const int e = (int)(bits >> 23 & 255u) - 127 - less, in = e < -127 ? -127 : e > 127 ? 127 : e;
    return in == -127 ? bq_float(0x400000u) : bq_float((uint32_t)(in + 127) << 23);
}

/* The scale of a block by bq_power_rule.  What is added to the bits may reach the next power. */
static inline float bq_grid_power(float a, bq_scheme s) {
    const bq_element e = bq_element_of(s.element);
    const bool one = e.bits == 8 && s.grid != BQ_GRID_TORCHAO;
    const int kept = one ? 1 : e.number.mantissa, top = (int)(bq_bits(e.high) >> 23) - 127;
    if (a != a) return a;
    switch (s.power) {
    case BQ_POWER_FLOOR: return bq_power_below(bq_bits(a), top);
    case BQ_POWER_CEIL: return bq_power_below(bq_bits(a) + 0x7fffffu, top);
    case BQ_POWER_RCEIL: return bq_power_below(bq_bits(a / e.high) + 0x7fffffu, 0);
    case BQ_POWER_EVEN: break;
    }
    return bq_power_below(bq_bits(a) + (1u << (22 - kept)), top);
}

/* The e4m3 number nearest to a scale. */
static inline float bq_inner_scale(float scale) {
    return bq_nearest_float(bq_element_of(BQ_E4M3).number, scale > BQ_SCALE_MAX ? BQ_SCALE_MAX : scale);
}

/* A scale as the scheme stores it.  E4M3: times outer it is an e4m3 number; of BQ_GRID_TORCHAO it is such a
 * number, at least the smallest normal one, times outer.  E8M0: the nearest power of 2. */
static inline float bq_scale_stored(float scale, bq_scheme s) {
    if (s.scale == BQ_F8_E8M0) return scale == scale ? bq_power_below(bq_bits(scale) + 0x400000u, 0) : scale;
    if (s.scale != BQ_F8_E4M3) return bq_scale_round(scale, s.scale);
    if (!(s.outer > 0)) return bq_scale_round(scale, BQ_F32);
    if (s.grid == BQ_GRID_TORCHAO) return bq_inner_scale(bq_at_least(scale / s.outer, 0x1p-6)) * s.outer;
    const float inner = bq_inner_scale(scale * s.outer);
    return (inner > 0 ? inner : inner == 0 ? BQ_SCALE_ZERO : inner) / s.outer; /* NaN stays NaN */
}

/* What scales of e4m3 are numbers divided by, and multiplied by. */
static inline float bq_outer_over(bq_scheme s) { return s.grid == BQ_GRID_TORCHAO ? 1 / s.outer : s.outer; }
static inline float bq_outer_times(bq_scheme s) { return s.grid == BQ_GRID_TORCHAO ? s.outer : 1 / s.outer; }

/* The step where both ends of the grid are as far from 0: a is the largest |value|.  A row of zeros has a
 * step, too; in tiles the least one there is, so that it does not count. */
static inline float bq_grid_even(float a, bq_scheme s) {
    const float half = (bq_qmax(s) - bq_qmin(s)) / 2, step = a / half;
    if (s.scale == BQ_F8_E8M0) return bq_grid_power(a, s);
    if (s.grid == BQ_GRID_TORCHAO && s.scale != BQ_F8_E4M3)
        return bq_scale_round(bq_at_least(step, s.eps), s.scale);
    return bq_scale_stored(step == 0 && s.scale != BQ_F8_E4M3 && !bq_scheme_tiled(s) ? FLT_EPSILON : step, s);
}

/* The scale of a tile from the largest of its rows' scales. */
static inline float bq_tile_scale(float most, bq_scheme s) {
    return most <= bq_scale_round(0, s.scale) ? bq_scale_stored(FLT_EPSILON, s) : most;
}

/* Grids of torchao, with its zero points, which are computed from the scale before that is rounded. */
static inline float bq_grid_torchao(float lo, float hi, bq_scheme s, float *zero) {
    const float qmin = bq_qmin(s), qmax = bq_qmax(s), step = bq_at_least((hi - lo) / (qmax - qmin), s.eps);
    *zero = bq_scheme_offset(s) ? bq_zero_round(lo + step * -qmin, s.scale)
                                : fminf(fmaxf(qmin - rintf(lo / step), qmin), qmax);
    return bq_scale_round(step, s.scale);
}

/* The step of the grid that covers [lo, hi], with lo <= 0 <= hi unless zero points are floats; and in *zero,
 * where the scheme is not symmetric, the code of 0, or the value of code 0.  A range that is too small is
 * widened first, so that a row of zeros has a step, too. */
static inline float bq_grid_step(float lo, float hi, bq_scheme s, float *zero) {
    float qmin = bq_qmin(s), qmax = bq_qmax(s), steps = qmax - qmin,
          least = fminf(FLT_EPSILON, 0.01f / steps);
    if (s.symmetric && (s.grid != BQ_GRID_AIMET || bq_scheme_tiled(s) || !bq_element_whole(s.element)))
        return bq_grid_even(fmaxf(-lo, hi), s);
    if (!s.symmetric && (s.grid == BQ_GRID_TORCHAO || bq_scheme_offset(s)))
        return bq_grid_torchao(lo, hi, s, zero);
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

/* How a value x becomes a code, before rounding:
 *   DIVIDE   x / scale
 *   TIMES    x * inverse, with the reciprocal of the scale rounded first: of BQ_GRID_TORCHAO for integers,
 *            and for floats with scales in e4m3, where it is (1 / outer) / the e4m3 number
 *   OFFSET   (x - low) / scale, where low is the value of the lowest code (BQ_ZERO_FLOAT) */
typedef enum { BQ_WAY_DIVIDE, BQ_WAY_TIMES, BQ_WAY_OFFSET } bq_way;

/* The grid of one row.  qmin, qmax: of what is rounded.  A zero that is a code has been subtracted from them.
 * OFFSET: they count from the lowest code, which is mid below the code 0. */
typedef struct {
    float scale, qmin, qmax;
    bq_number number;
    bq_way way;
    float inverse, outer; /* TIMES; outer 0: none */
    float low, zero, mid; /* OFFSET */
} bq_row_grid;

/* The grid of scale 1 and zero 0. */
static inline bq_row_grid bq_row_grid_unit(bq_scheme s) {
    const bq_element e = bq_element_of(s.element);
    const bool offset = bq_scheme_offset(s), inner = s.scale == BQ_F8_E4M3,
               times = s.grid == BQ_GRID_TORCHAO && (inner || e.number.mantissa == 0);
    const bq_row_grid g = {1,
                           offset ? 0 : e.low,
                           offset ? e.high - e.low : e.high,
                           e.number,
                           offset  ? BQ_WAY_OFFSET
                           : times ? BQ_WAY_TIMES
                                   : BQ_WAY_DIVIDE,
                           1,
                           inner ? s.outer : 0,
                           offset ? e.low : 0,
                           0,
                           offset ? -e.low : 0};
    return g;
}

/* Give a grid another scale; the unit grid with another scale and zero. */
static inline void bq_row_grid_scale(bq_row_grid *g, float scale) {
    g->scale = scale;
    if (g->way == BQ_WAY_DIVIDE) return;
    g->low = g->zero - scale * g->mid;
    g->inverse = g->outer > 0 ? 1 / g->outer / bq_inner_scale(scale / g->outer) : 1 / scale;
}
static inline bq_row_grid bq_row_grid_at(bq_row_grid g, float scale, float zero) {
    if (g.way == BQ_WAY_OFFSET)
        g.zero = zero;
    else
        g.qmin -= zero, g.qmax -= zero;
    bq_row_grid_scale(&g, scale);
    return g;
}

static inline bq_row_grid bq_row_grid_of(bq_scheme s, float scale, float zero) {
    return bq_row_grid_at(bq_row_grid_unit(s), scale, zero);
}

/* The same of one way, and of integers: the compiler need not look. */
static inline bq_row_grid bq_row_grid_by(bq_row_grid g, bq_way way) {
    g.way = way;
    return g;
}
static inline bq_row_grid bq_row_grid_whole(bq_row_grid g) {
    g.number.mantissa = g.number.least = 0;
    return bq_row_grid_by(g, BQ_WAY_DIVIDE);
}
static inline bq_row_grid bq_row_grid_whole_by(bq_row_grid g, bq_way way) {
    return bq_row_grid_by(bq_row_grid_whole(g), way);
}

/* What is added to a rounded number to make it the code that is stored. */
static inline int bq_code_origin(bq_scheme s, float zero) {
    return bq_scheme_offset(s) ? (int)bq_qmin(s) : (int)zero;
}

/* What the ends of n values start from: ranges hold 0 unless zero points are floats. */
static inline float bq_ends_start(bq_scheme s, const float *w, int64_t n) {
    return bq_scheme_offset(s) && n > 0 ? w[0] : 0;
}

/* What the ends are multiplied by in candidate i of a search: 1 - i / steps for `count` of them, then 1 + 1 /
 * steps, 1 + 2 / steps, ... */
static inline float bq_ends_factor(int i, int count, int steps) {
    return (float)(1 + (double)(i < count ? -i : i - count + 1) / steps);
}

/* The ends of a range times shrink: of one that need not hold 0, the distance from its middle. */
static inline void bq_ends_times(float shrink, bq_scheme s, float *lo, float *hi) {
    if (!bq_scheme_offset(s)) {
        *lo *= shrink, *hi *= shrink;
    } else if (shrink != 1) {
        const float middle = (*lo + *hi) / 2, half = (*hi - *lo) / 2 * shrink;
        *lo = middle - half, *hi = middle + half;
    }
}

/* The grid that covers [lo, hi] times shrink, and its zero, which stays as it is where the scheme is
 * symmetric. */
static inline bq_row_grid bq_row_grid_fit(float lo, float hi, float shrink, bq_scheme s, float *zero) {
    bq_ends_times(shrink, s, &lo, &hi);
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

/* x in steps of the grid, before rounding; the value of a rounded number. */
static inline float bq_grid_steps(float x, bq_row_grid g) {
    return g.way == BQ_WAY_DIVIDE  ? x / g.scale
           : g.way == BQ_WAY_TIMES ? x * g.inverse
                                   : (x - g.low) / g.scale;
}
static inline float bq_grid_value(float number, bq_row_grid g) {
    return g.way == BQ_WAY_OFFSET ? (number - g.mid) * g.scale + g.zero : number * g.scale;
}

/* The number that x is rounded to; the value of x on the grid (w_hat). */
static inline float bq_grid_code(float x, bq_row_grid g) {
    return bq_nearest(g.number, bq_clamp(bq_grid_steps(x, g), g.qmin, g.qmax));
}
static inline float bq_on_grid(float x, bq_row_grid g) { return bq_grid_value(bq_grid_code(x, g), g); }

/* The same, where NaN is the lowest code. */
static inline float bq_grid_code_of(float x, bq_row_grid g) {
    return bq_nearest(g.number, bq_clamp_code(bq_grid_steps(x, g), g.qmin, g.qmax));
}
static inline float bq_on_code_grid(float x, bq_row_grid g) {
    return bq_grid_value(bq_grid_code_of(x, g), g);
}

/* x, at most half a step outside the grid: the same code is made of it. */
static inline float bq_near_grid(float x, bq_row_grid g) {
    const float from = g.way == BQ_WAY_OFFSET ? g.low : 0;
    float least = (g.qmin - 0.5f) * g.scale, most = (g.qmax + 0.5f) * g.scale;
    if (g.way == BQ_WAY_OFFSET) least += from, most += from;
    x = x > least ? x : least;
    return x < most ? x : most;
}

#endif
