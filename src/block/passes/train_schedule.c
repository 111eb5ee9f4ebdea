/* SPDX-License-Identifier: Apache-2.0 */
/* When a training ends, and how its learning rates fall. */
#include "block/passes/train.h"

#include <math.h>

bool bq_train_plateau(const bq_train_options *o, const double *losses, int64_t count, double *previous) {
    if (!o->early_stop || count % o->check_interval) return false;
    int64_t n = count < o->window ? count : o->window;
    double mean = 0;
    for (int64_t i = count - n; i < count; i++) mean += losses[i];
    mean /= (double)n;
    bool flat = count > o->window && (*previous - mean) / (fabs(*previous) + 1e-8) < o->threshold;
    *previous = mean;
    return flat;
}

int64_t bq_train_end(const bq_train_options *o, int64_t flat) {
    int64_t end = flat + (int64_t)ceil(o->anneal * (double)flat);
    return flat && end < o->iterations ? end : o->iterations;
}

double bq_train_phase(const bq_train_options *o, int64_t flat, int64_t step) {
    double all = (double)o->iterations, at = (double)flat / all;
    if (!flat) return (double)step / all;
    return at + (1 - at) * (double)(step - flat) / (double)(bq_train_end(o, flat) - flat);
}

double bq_train_rate(const bq_train_options *o, int64_t flat, int64_t step) {
    const double pi = 3.14159265358979323846, phase = bq_train_phase(o, flat, step);
    if (o->rates == BQ_RATES_CONSTANT) return 1;
    return o->rates == BQ_RATES_LINEAR ? 1 - phase : (1 + cos(pi * phase)) / 2;
}
