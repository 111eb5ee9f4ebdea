/* adam.h - the numbers of one Adam step, with the bias corrections in them.  The same
 * source for all backends. */
#ifndef BQ_ADAM_H
#define BQ_ADAM_H

#include "base/die.h"
#include "kernels/ops.h"

#include <math.h>

/* How a value p takes a step from its gradient g, with moments m and v that start at 0:
 *   ADAM      p -= rate * decay * p, then Adam's step as below (AdamW)
 *   SIGN      p -= rate * sign(g)
 *   MOMENTUM  m = beta1 * m + g + decay * p, then p -= rate * m */
typedef enum { BQ_ADAM, BQ_SIGN, BQ_MOMENTUM } bq_train_optimizer;

/* p -= step * m / (sqrt(v) / root + eps).  t below is the number of the step, from 1. */
typedef struct {
    float keep1, keep2; /* 1 - beta1 and 1 - beta2 */
    float beta2;
    float root, eps; /* sqrt(1 - beta2^t) */
    float step;      /* lr / (1 - beta1^t) */
} bq_adam_step;

/* What adascale_step reads on the device: for beta and gamma, and for s2 and s3. */
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
    return s;
}

/* Copy the numbers of a step to the device: `to` is (1, BQ_ADAM_NUMBERS). */
static inline void bq_adam_put(bq_dev *dev, bq_adam a, bq_mat to) {
    bq_adam_steps s = {bq_adam_step_of(a, a.lr_clip), bq_adam_step_of(a, a.lr_weight)};
    BQ_CHECK(a.step >= 1, "adam: step %ld", (long)a.step);
    dev->op->put(dev, bq_mat_host(&s, 1, BQ_ADAM_NUMBERS, BQ_F32), to);
}

#endif
