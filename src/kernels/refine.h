/* SPDX-License-Identifier: Apache-2.0 */
/* refine.h - the arithmetic of the op refine: coordinate descent on the codes of a row.  The same source for
 * all backends, so that codes and scales are equal bit for bit. */
#ifndef BQ_KERNELS_REFINE_H
#define BQ_KERNELS_REFINE_H

#include <stdbool.h>

#include "kernels/grid.h"

/* Can the scales of a scheme be refitted one by one?  Not those of one byte, which are too coarse; not those
 * of tiles, which rows share; and not where zero points are floats. */
static inline bool bq_refine_refits(bq_scheme s) {
    return !bq_scheme_small(s) && !bq_scheme_tiled(s) && !bq_scheme_offset(s);
}

/* Moves one number of the grid to where the loss of its row is least while all others stay.  r: half the
 * gradient of the loss by its value; d: the diagonal of the Gram matrix.  Returns by how much the value
 * fell. */
static inline float bq_refine_step(float *number, float r, float d, bq_row_grid g) {
    const float before = bq_grid_value(*number, g);
    *number = bq_grid_code_of(before - r / d, g);
    return before - bq_grid_value(*number, g);
}

/* The scale of a group with numbers c where the loss of its row is least, as it is stored.  slope = c R and
 * curve = c H c^T.  The scale stays where the stored one would not make the loss less. */
static inline float bq_refine_scale(float scale, double slope, double curve, bq_scheme s) {
    const double best = (double)scale - slope / curve;
    if (!(curve > 0 && best > 0)) return scale;
    const float to = bq_scale_stored((float)best, s);
    const double by = (double)to - (double)scale;
    return by * (2 * slope + by * curve) < 0 ? to : scale;
}

#endif
