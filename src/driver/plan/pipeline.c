/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/pipeline.h"

#include "base/shard.h"
#include "comm/flow.h"
#include "driver/load/through.h"

size_t bq_pipeline_host(const bq_recipe *r, const bq_arch *arch, int64_t micro) {
    return (BQ_FLOW_BUFFERS * (size_t)micro + BQ_PIPELINE_RING) *
           (size_t)(r->calibration.length * arch->model.hidden) * sizeof(float);
}

size_t bq_pipeline_device(const bq_recipe *r, const bq_arch *arch, int64_t micro) {
    int64_t t = r->calibration.length, h = arch->model.hidden;
    return bq_through_need(arch, t) + bq_op_scratch(t, arch->attention, 1) +
           bq_arena_need(BQ_FLOW_BUFFERS, bq_flow_floats(micro * t * h), BQ_F32);
}

int64_t bq_pipeline_micro(const bq_recipe *r, const bq_arch *arch, int nstage, int nreplica, int64_t wish) {
    enum { MOST = 16 };
    int64_t share = bq_shard_of(r->calibration.samples, 0, nreplica).count, even = share / (4 * nstage);
    int64_t micro = wish ? wish : arch->experts || even > MOST ? MOST : even;
    return micro < 1 ? 1 : micro > share ? share : micro;
}
