/* SPDX-License-Identifier: Apache-2.0 */
/* range.h - the ends of a static grid from a histogram of values.  Counts have no order, so they, and the
 * ends, are the same on any number of ranks. */
#ifndef BQ_RANGE_H
#define BQ_RANGE_H

#include "driver/recipe/recipe.h"

/* count: BQ_BINS (kernels/rounding.h).  *lo <= 0 <= *hi are the smallest and the largest value and 0; they
 * are narrowed as the recipe says of r, the rounding of inputs. */
void bq_range_narrow(const int64_t *count, const bq_activations *a, bq_rounding r, float *lo, float *hi);

#endif
