/* SPDX-License-Identifier: Apache-2.0 */
/* rounding.h - how values that are not weights are rounded: inputs of linears, keys and values.  All backends
 * use this source, so the results are equal bit for bit.
 *
 * The values of a row, or of a group of its columns, share a scale and a zero; or those of all rows do
 * (`whole`).  A rounded value is a number of the element times the scale; no codes are made. */
#ifndef BQ_KERNELS_ROUNDING_H
#define BQ_KERNELS_ROUNDING_H

#include "kernels/grid.h"

/* Integers of 16 bits are for these values only: their code has no room where codes of weights are kept. */
enum { BQ_INT16 = 48 };

/* How values are computed:
 *   DIVIDE      q = clamp(rne(x / scale + zero)): compressed-tensors, vLLM, AIMET
 *   RECIPROCAL  q = clamp(rne(x * (1 / scale)) + zero): torchao.  Floats whose scales are bytes are rounded
 *               as weights with BQ_GRID_TORCHAO
 *   NARROW      the same without the least code, so -127 ... 127: torchao 0.10 and its KV cache */
typedef enum { BQ_ROUND_DIVIDE, BQ_ROUND_RECIPROCAL, BQ_ROUND_NARROW } bq_round_rule;

typedef struct {
    int element; /* BQ_INT2 ... BQ_INT8, BQ_INT16, BQ_E2M1 ...; 0: values stay as they are */
    bool even;   /* both ends are as far from 0, and there are no zeros */
    bool whole;  /* all rows share the grids of the groups of columns */
    bq_round_rule rule;
    int64_t group; /* columns that share a scale; <= 0: all */
    /* F32; of floats also F8_E8M0, a power of 2, and F8_E4M3, an e4m3 number over a factor that all values
     * share (NVFP4), or, with RECIPROCAL, times that factor. */
    bq_type scale;
    float least;         /* no scale is smaller; 0: only a scale of 0 is replaced, by FLT_EPSILON */
    bq_power_rule power; /* of F8_E8M0 */
} bq_rounding;

/* Each token with a scale of its own, as compressed-tensors does it. */
static inline bq_rounding bq_rounding_of_tokens(int element) {
    const bq_rounding r = {element, true, false, BQ_ROUND_DIVIDE, -1, BQ_F32, 0, BQ_POWER_EVEN};
    return r;
}

static inline bool bq_rounding_equal(bq_rounding a, bq_rounding b) {
    return a.element == b.element && a.even == b.even && a.whole == b.whole && a.rule == b.rule &&
           a.group == b.group && a.scale == b.scale && a.power == b.power;
}

/* Does a scale depend on more than its own values, so that round_rows must be given grids? */
static inline bool bq_rounding_given(bq_rounding r) { return r.whole || r.scale == BQ_F8_E4M3; }

static inline bool bq_rounding_whole(bq_rounding r) {
    return r.element == BQ_INT16 || bq_element_whole(r.element);
}

/* Bits of a number; 0: there is no such element. */
static inline int bq_rounding_bits(bq_rounding r) {
    return r.element == BQ_INT16 ? 16 : bq_element_of(r.element).bits;
}

static inline const char *bq_rounding_name(bq_rounding r) {
    return r.element == BQ_INT16 ? "int16" : bq_element_name(r.element);
}

static inline bool bq_rounding_valid(bq_rounding r) {
    const bool small = r.scale == BQ_F8_E8M0 || r.scale == BQ_F8_E4M3, integer = bq_rounding_whole(r);
    return bq_rounding_bits(r) > 0 && (r.even || integer) && (r.scale == BQ_F32 || (small && !integer)) &&
           !(r.whole && small);
}

static inline int64_t bq_rounding_groups(bq_rounding r, int64_t cols) {
    return r.group > 0 ? (cols + r.group - 1) / r.group : 1;
}

/* Of integers: the least and the largest code. */
static inline float bq_rounding_low(bq_rounding r) {
    const float low = r.element == BQ_INT16 ? -32768.0f : bq_element_of(r.element).low;
    return r.rule == BQ_ROUND_NARROW ? low + 1 : low;
}
static inline float bq_rounding_high(bq_rounding r) {
    return r.element == BQ_INT16 ? 32767.0f : bq_element_of(r.element).high;
}

/* A grid for some values.  by: the scale, or with RECIPROCAL its reciprocal. */
typedef struct {
    float scale, zero, low, high, by;
    bool times;
    bq_number number;
} bq_value_grid;

static inline bq_value_grid bq_value_grid_of(bq_rounding r, float scale, float zero) {
    const bool integer = bq_rounding_whole(r), times = integer && r.rule != BQ_ROUND_DIVIDE;
    const bq_element e = bq_element_of(r.element);
    const bq_number whole = {0, 0};
    const bq_value_grid g = {scale,
                             zero,
                             integer ? bq_rounding_low(r) : e.low,
                             integer ? bq_rounding_high(r) : e.high,
                             times ? 1.0f / scale : scale,
                             times,
                             integer ? whole : e.number};
    return g;
}

/* A scale that is not too small. */
static inline float bq_rounding_scale(float scale, bq_rounding r) {
    if (!(r.least > 0)) return bq_scale_round(scale == 0 ? FLT_EPSILON : scale, BQ_F32);
    return scale < r.least ? r.least : scale > FLT_MAX ? FLT_MAX : scale; /* NaN stays NaN */
}

/* The grid of floats whose scales are bytes, for values up to `most`: that of weights. */
static inline bq_value_grid bq_value_grid_small(float most, bq_rounding r, float outer) {
    bq_scheme s = bq_scheme_of_tokens(r.element);
    s.scale = r.scale, s.outer = outer, s.power = r.power;
    if (r.rule == BQ_ROUND_RECIPROCAL) s.grid = BQ_GRID_TORCHAO;
    const bq_row_grid of = bq_row_grid_of(s, bq_grid_even(most, s), 0);
    bq_value_grid g = bq_value_grid_of(r, of.scale, 0);
    g.times = of.way == BQ_WAY_TIMES;
    if (g.times) g.by = of.inverse;
    return g;
}

/* The grid that covers [lo, hi], with lo <= 0 <= hi.  outer: the factor of scales that are e4m3 numbers. */
static inline bq_value_grid bq_value_grid_fit(float lo, float hi, bq_rounding r, float outer) {
    const float most = fmaxf(-lo, hi), low = bq_rounding_low(r), high = bq_rounding_high(r);
    if (r.scale != BQ_F32) return bq_value_grid_small(most, r, outer);
    if (r.even) return bq_value_grid_of(r, bq_rounding_scale(most / ((high - low) / 2), r), 0);
    const float scale = bq_rounding_scale((hi - lo) / (high - low), r);
    const float zero = r.rule == BQ_ROUND_DIVIDE ? rintf(bq_clamp(low - lo / scale, low, high))
                                                 : bq_clamp(low - rintf(lo / scale), low, high);
    return bq_value_grid_of(r, scale, zero);
}

/* The factor of e4m3 scales for values up to `most`: with it the largest scale is the largest e4m3 number. */
static inline float bq_rounding_outer(float most, bq_rounding r) {
    const float all = BQ_SCALE_MAX * bq_element_of(r.element).high;
    if (!(most > 1e-30f)) return 1;
    return r.rule == BQ_ROUND_RECIPROCAL ? most / all : all / most;
}

/* What round_rows is given of a group whose values are from lo to hi: scale and zero, or the factor and 0. */
typedef struct {
    float scale, zero;
} bq_ends_grid;

static inline bq_ends_grid bq_grid_of_ends(float lo, float hi, bq_rounding r) {
    bq_ends_grid of = {0, 0};
    if (r.scale == BQ_F8_E4M3) {
        of.scale = bq_rounding_outer(fmaxf(-lo, hi), r);
    } else {
        const bq_value_grid g = bq_value_grid_fit(lo, hi, r, 0);
        of.scale = g.scale, of.zero = g.zero;
    }
    return of;
}

/* x on the grid: of floats and of integers, by a division or a product. */
static inline float bq_value_float(float x, bq_value_grid g) {
    return bq_nearest_float(g.number, bq_clamp(x / g.scale, g.low, g.high)) * g.scale;
}
static inline float bq_value_float_times(float x, bq_value_grid g) {
    return bq_nearest_float(g.number, bq_clamp(x * g.by, g.low, g.high)) * g.scale;
}
static inline float bq_rne(float x) { return (x + 12582912.0f) - 12582912.0f; }
static inline float bq_value_over(float x, bq_value_grid g) {
    return (bq_rne(bq_clamp(x / g.scale + g.zero, g.low, g.high)) - g.zero) * g.scale;
}
static inline float bq_value_times(float x, bq_value_grid g) {
    return bq_rne(bq_clamp(x * g.by, g.low - g.zero, g.high - g.zero)) * g.scale;
}
static inline float bq_value_on(float x, bq_value_grid g) {
    if (g.number.mantissa) return g.times ? bq_value_float_times(x, g) : bq_value_float(x, g);
    return g.times ? bq_value_times(x, g) : bq_value_over(x, g);
}

/* ---- histograms of values ---- */

/* A bin for each number of bf16: a value belongs to the one that has its first 16 bits. */
enum { BQ_BINS = 1 << 16 };
static inline int bq_bin_of(float x) { return (int)(bq_bits(x) >> 16); }

#endif
