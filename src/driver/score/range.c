/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/score/range.h"

#include <math.h>

enum { CANDIDATES = 80, STEPS = 100 };

/* The value of a bin that is nearest to 0, in its middle (1 << 15), or farthest from 0 (0xffff). */
static float value_of(int bin, uint32_t within) { return bq_float((uint32_t)bin << 16 | within); }

/* Where `part` of the values are beyond, on the side of that sign; at most `end`, which has the sign, too. */
static float end_at(const int64_t *count, int64_t part, float end) {
    const int side = end < 0 ? BQ_BINS / 2 : 0, finite = (0x7f80 - 1);
    int64_t beyond = 0;
    for (int b = finite; b >= 0; b--) {
        beyond += count[side + b];
        if (beyond <= part) continue;
        const float edge = value_of(side + b, 0xffff);
        return fabsf(edge) < fabsf(end) ? edge : end;
    }
    return 0; /* all values on that side are beyond */
}

/* The sum of squared errors.  Where a bin has many steps, their errors are evenly spread. */
static double error_of(const int64_t *count, bq_rounding r, float lo, float hi) {
    const bq_value_grid g = bq_value_grid_fit(lo, hi, r, 0);
    const float least = (g.low - g.zero) * g.scale, most = (g.high - g.zero) * g.scale;
    double sum = 0;
    for (int b = 0; b < BQ_BINS; b++) {
        if (!count[b] || (b & 0x7f80) == 0x7f80) continue;
        const float x = value_of(b, 1 << 15), width = fabsf(value_of(b, 0xffff) - value_of(b, 0));
        const double d = (double)bq_value_on(x, g) - (double)x, step = (double)g.scale;
        const bool many = bq_rounding_whole(r) && x >= least && x <= most && width > g.scale;
        sum += (double)count[b] * (many ? step * step / 12 : d * d);
    }
    return sum;
}

static void least_error(const int64_t *count, bq_rounding r, float *lo, float *hi) {
    const float low = *lo, high = *hi;
    double best = INFINITY;
    for (int i = 0; i < CANDIDATES; i++) {
        const float part = (float)(STEPS - i) / STEPS;
        const double error = error_of(count, r, low * part, high * part);
        if (error < best) best = error, *lo = low * part, *hi = high * part;
    }
}

void bq_range_narrow(const int64_t *count, const bq_activations *a, bq_rounding r, float *lo, float *hi) {
    int64_t all = 0;
    for (int b = 0; b < BQ_BINS; b++) all += count[b];
    const int64_t part = (int64_t)((double)all * (100 - a->percentile) / 200);
    if (a->range == BQ_RANGE_MSE) least_error(count, r, lo, hi);
    if (a->range != BQ_RANGE_PERCENTILE) return;
    *lo = *lo < 0 ? end_at(count, part, *lo) : 0;
    *hi = *hi > 0 ? end_at(count, part, *hi) : 0;
}
