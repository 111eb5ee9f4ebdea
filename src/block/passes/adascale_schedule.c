/* When AdaScale ends, and how its learning rates fall. */
#include "block/passes/adascale.h"

#include <math.h>

bool bq_adascale_plateau(const bq_adascale_options *o, const double *losses, int64_t count,
                         double *previous) {
    if (!o->early_stop || count % o->check_interval) return false;
    int64_t n = count < o->window ? count : o->window;
    double mean = 0;
    for (int64_t i = count - n; i < count; i++) mean += losses[i];
    mean /= (double)n;
    bool flat = count > o->window && (*previous - mean) / (fabs(*previous) + 1e-8) < o->threshold;
    *previous = mean;
    return flat;
}

int64_t bq_adascale_end(const bq_adascale_options *o, int64_t flat) {
    int64_t end = flat + (int64_t)ceil(o->anneal * (double)flat);
    return flat && end < o->iterations ? end : o->iterations;
}

double bq_adascale_phase(const bq_adascale_options *o, int64_t flat, int64_t step) {
    double all = (double)o->iterations, at = (double)flat / all;
    if (!flat) return (double)step / all;
    return at + (1 - at) * (double)(step - flat) / (double)(bq_adascale_end(o, flat) - flat);
}
