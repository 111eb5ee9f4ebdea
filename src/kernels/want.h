/* SPDX-License-Identifier: Apache-2.0 */
/* want.h - checks of the matrices that an op gets.  A wrong one is a bug of the caller: the job ends. */
#ifndef BQ_WANT_H
#define BQ_WANT_H

#include "kernels/ops.h"

/* End the job unless each of the matrices has that shape and type, and is where dev can use it.  op and names
 * are for the message: who asks, and the matrices as the source calls them. */
void bq_want(const bq_dev *dev, const char *op, const char *names, bq_type type, int64_t rows, int64_t cols,
             size_t count, const bq_mat *m);

/* The same for a scheme and the grids of the rows of w: scale and, where the scheme has one, zero. */
#define BQ_WANT_GRID(dev, w, s, scale, zero) bq_want_grid(dev, __func__, w, s, scale, zero)
void bq_want_grid(const bq_dev *dev, const char *op, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero);

/* The same for what a training changes, with its grids. */
#define BQ_WANT_TUNED(dev, p, s, scale, zero) bq_want_tuned(dev, __func__, p, s, scale, zero)
void bq_want_tuned(const bq_dev *dev, const char *op, const bq_tuned *p, bq_scheme s, bq_mat scale,
                   bq_mat zero);

/* The same for values to be rounded, and the grids that round_rows is given. */
#define BQ_WANT_ROUNDING(dev, x, r, grid) bq_want_rounding(dev, __func__, x, r, grid)
void bq_want_rounding(const bq_dev *dev, const char *op, bq_mat x, bq_rounding r, bq_mat grid);

/* The same for a router, the logits (T, experts) and, of those taken, index and weight (T, r.chosen). */
#define BQ_WANT_ROUTER(dev, r, logits, index, weight) bq_want_router(dev, __func__, r, logits, index, weight)
void bq_want_router(const bq_dev *dev, const char *op, bq_router r, bq_mat logits, bq_mat index,
                    bq_mat weight);

#endif
