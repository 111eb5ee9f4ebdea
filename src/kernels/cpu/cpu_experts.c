/* Ops of mixtures of experts: which experts a token takes, and rows of tokens to and from experts. */
#include "kernels/cpu/cpu.h"

enum { PARALLEL = 1 << 12 }; /* with fewer logits it does not pay to wake threads */

static bq_routing token(bq_router r, bq_mat logits, bq_mat bias, int64_t t) {
    return (bq_routing){r, bq_mat_at(logits, t, 0), bias.data, (int)logits.cols};
}

static void route(bq_routing t, int32_t *index, float *weight) {
    uint64_t groups = t.r.kept < t.r.groups ? 0 : UINT64_MAX, key = UINT64_MAX;
    for (int i = 0; i < t.r.kept && t.r.kept < t.r.groups; i++) {
        key = bq_route_next_group(t, 0, 1, key);
        groups |= UINT64_C(1) << bq_route_number(key);
    }
    key = UINT64_MAX;
    for (int i = 0; i < t.r.chosen; i++) key = bq_route_next(t, groups, 0, 1, key);
    bq_route_write(t, groups, key, index, weight);
}

void bq_cpu_route(bq_dev *dev, bq_router r, bq_mat logits, bq_mat bias, bq_mat index, bq_mat weight) {
    BQ_WANT_ROUTER(dev, r, logits, index, weight);
    if (bias.data) BQ_WANT(dev, 1, logits.cols, bias);
#pragma omp parallel for schedule(static) if (logits.rows * logits.cols > PARALLEL)
    for (int64_t t = 0; t < logits.rows; t++)
        route(token(r, logits, bias, t), bq_mat_at(index, t, 0), bq_mat_at(weight, t, 0));
}

void bq_cpu_route_bwd(bq_dev *dev, bq_router r, bq_mat logits, bq_mat index, bq_mat dweight, bq_mat dlogits) {
    BQ_WANT_ROUTER(dev, r, logits, index, dweight);
    BQ_WANT(dev, logits.rows, logits.cols, dlogits);
#pragma omp parallel for schedule(static) if (logits.rows * logits.cols > PARALLEL)
    for (int64_t t = 0; t < logits.rows; t++)
        bq_route_back(token(r, logits, (bq_mat){0}, t), bq_mat_at(index, t, 0), bq_mat_at(dweight, t, 0),
                      bq_mat_at(dlogits, t, 0));
}
