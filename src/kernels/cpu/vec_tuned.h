/* SPDX-License-Identifier: Apache-2.0 */
/* vec_tuned.h - the vector functions of tuned_weights and tuned_step (vec_tuned.c), X(return type, name,
 * (arguments)), and what they share with the ops. */
#ifndef BQ_VEC_TUNED_H
#define BQ_VEC_TUNED_H

#include "kernels/adam.h"

/* What the functions do:
 *   tuned_row     what = fold on the grid; value NULL: there is no offset; fold may be NULL
 *   tuned_slopes  n at most BQ_TUNED_BLOCK: d = gradients of the values; the terms of both sums are added to
 *                 the lanes.  all: no weight counts as clamped
 *   take_step     a step of p from g, as adam.h has it; m, v may be NULL where the optimizer has none */
enum { BQ_TUNED_BLOCK = 256 };
#define BQ_VEC_TUNED(X)                                                                                      \
    X(void, tuned_row,                                                                                       \
      (const float *w, const float *value, int64_t n, bq_row_grid grid, float *what, float *fold))           \
    X(void, tuned_slopes,                                                                                    \
      (const float *w, const float *value, const float *g, int64_t n, bool all, bq_row_grid grid, float *d,  \
       double lane[2][16]))                                                                                  \
    X(void, take_step,                                                                                       \
      (bq_train_optimizer by, const float *g, int64_t n, bq_adam_step adam, float *p, float *m, float *v))
#endif
