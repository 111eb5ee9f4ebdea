/* SPDX-License-Identifier: Apache-2.0 */
/* smooth.h - the scale of an input channel, computed from its statistics.  All backends use this source, so
 * scales are equal bit for bit. */
#ifndef BQ_KERNELS_SMOOTH_H
#define BQ_KERNELS_SMOOTH_H

#include <math.h>

#include "base/power.h"

/* The scale s of an input channel from its activation statistic a and its weight
 * statistic w:
 *   ALPHA   a^ratio / W^(1 - ratio) with W = max(weight_factor * w, weight_floor); a where W is 0
 *   LOG     a / log2(2 + a)
 *   POWER   a^ratio
 *   DUO     a^ratio / (w^(1 - ratio) + 1e-4)
 * s is then at least `floor`.  The op smooth_scale does the rest: s that is not positive or not finite
 * becomes 1; with POWER and DUO every s is divided by sqrt(max s * min s). */
typedef enum { BQ_SMOOTH_ALPHA, BQ_SMOOTH_LOG, BQ_SMOOTH_POWER, BQ_SMOOTH_DUO } bq_smooth_kind;
typedef struct {
    bq_smooth_kind kind;
    double ratio, floor;
    double weight_factor, weight_floor; /* ALPHA */
} bq_smooth_form;

/* s of one channel, before that rest. */
static inline double bq_smooth_scale_of(bq_smooth_form f, double a, double w) {
    double s = 0;
    switch (f.kind) {
    case BQ_SMOOTH_ALPHA:
        w = fmax(f.weight_factor * w, f.weight_floor);
        s = w > 0 ? bq_power(a, f.ratio) / bq_power(w, 1 - f.ratio) : a;
        break;
    case BQ_SMOOTH_LOG: s = a / bq_log2(2 + a); break;
    case BQ_SMOOTH_POWER: s = bq_power(a, f.ratio); break;
    case BQ_SMOOTH_DUO: s = bq_power(a, f.ratio) / (bq_power(w, 1 - f.ratio) + 1e-4); break;
    }
    return s > f.floor ? s : f.floor;
}

#endif
