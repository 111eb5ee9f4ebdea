/* SPDX-License-Identifier: Apache-2.0 */
/* adam.h - the numbers of one Adam step, with the bias corrections in them.  The same
 * source for all backends. */
#ifndef BQ_ADAM_H
#define BQ_ADAM_H

#include "base/die.h"
#include "kernels/ops.h" /* bq_adam_step is in tuned.h */

#include <math.h>

/* What the steps read on the device: for values of rows (but s3), and for values of weights (and s3). */
typedef struct {
    bq_adam_step clip, weight;
} bq_adam_steps;
enum { BQ_ADAM_NUMBERS = sizeof(bq_adam_steps) / sizeof(float) };

/* The bias corrections are computed in double, once a step; the elements then use floats only. */
static inline bq_adam_step bq_adam_step_of(bq_adam a, float lr) {
    double t = (double)a.step;
    bq_adam_step s;
    s.keep1 = (float)(1 - a.beta1), s.keep2 = (float)(1 - a.beta2), s.beta2 = (float)a.beta2;
    s.root = (float)sqrt(1 - pow(a.beta2, t)), s.eps = a.eps;
    s.step = (float)((double)lr / (1 - pow(a.beta1, t)));
    s.rate = lr, s.decay = a.decay;
    return s;
}

/* Copy the numbers of a step to the device: `to` is (1, BQ_ADAM_NUMBERS). */
static inline void bq_adam_put(bq_dev *dev, bq_adam a, bq_mat to) {
    bq_adam_steps s = {bq_adam_step_of(a, a.lr_clip), bq_adam_step_of(a, a.lr_weight)};
    BQ_CHECK(a.step >= 1, "adam: step %ld", (long)a.step);
    dev->op->put(dev, bq_mat_host(&s, 1, BQ_ADAM_NUMBERS, BQ_F32), to);
}

#endif
