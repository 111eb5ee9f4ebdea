/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/distill.h"

#include "base/die.h"
#include "block/passes/train.h"
#include "comm/treesum.h"
#include "driver/plan/grid.h"
#include "io/state/stream.h"

int bq_distill_check(const bq_recipe *r, const bq_layouts *layouts) {
    const char *why = NULL;
    if (!r->distill.steps) return BQ_OK;
    if (r->calibration.samples % r->distill.batch)
        return bq_refuse(BQ_USAGE, "distill.batch: is %ld, must divide calibration.samples, which is %ld",
                         (long)r->distill.batch, (long)r->calibration.samples);
    if (layouts->at[0].arch->experts) why = "the model has experts";
    if (bq_recipe_prescaled(r)) why = "smoothquant with fuse false leaves factors of inputs";
    for (int k = 0; k < layouts->count && !why; k++)
        for (int i = 0; i < layouts->at[k].arch->linears; i++)
            if (bq_scheme_small(layouts->at[k].scheme[i]) || bq_scheme_tiled(layouts->at[k].scheme[i]))
                why = "scales of one byte, and of tiles, cannot be trained";
    return why ? bq_refuse(BQ_USAGE, "distill: %s: leave it out", why) : BQ_OK;
}

/* The most trained numbers of a block, and scales of a linear. */
static int64_t most_numbers(const bq_recipe *r, const bq_layouts *layouts, int64_t *linear) {
    int64_t most = 0;
    for (int k = 0; k < layouts->count; k++) {
        const bq_layout *of = &layouts->at[k];
        int64_t sum = 0;
        for (int i = 0; i < of->arch->linears; i++) {
            int64_t n = of->arch->linear[i].rows * bq_linear_groups(of->arch, of->scheme, i);
            *linear = n > *linear ? n : *linear;
            sum += bq_scheme_offset(of->scheme[i]) ? 2 * n : n;
        }
        for (int m = 0; m < of->arch->sites && r->distill.norms; m++) sum += of->arch->site[m].bias_rows;
        if (r->distill.norms) sum += 2 * of->arch->model.hidden;
        most = sum > most ? sum : most;
    }
    return most;
}

bool bq_distill_by_rows(const bq_arch *arch, const bq_scheme *scheme, int site) {
    const bq_site *s = &arch->site[site];
    bool by = !s->bias_rows && !arch->model.kv_rank;
    for (int i = s->first; i < s->first + s->linears; i++)
        by = by && bq_linear_groups(arch, scheme, i) == 1 && !bq_scheme_offset(scheme[i]);
    return by;
}

/* Device bytes of q and k before RoPE, where the backward itself does not keep them; of what a linear puts
 * out. */
static size_t outputs(const bq_layouts *layouts, int64_t t) {
    size_t most = 0;
    for (int k = 0; k < layouts->count; k++)
        for (int m = 0; m < layouts->at[k].arch->sites; m++) {
            size_t one = bq_arena_need(t, layouts->at[k].arch->site[m].rows, BQ_F32);
            most = one > most ? one : most;
        }
    return 2 * most;
}

static bool last_stage(const bq_comm *comm) { return comm->istage + 1 == comm->nstage; }

/* The most blocks of the stage, whether or not stages may end inside a segment. */
static int64_t blocks_of(const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm) {
    int64_t most = 0;
    for (int cut = 0; cut < 2; cut++) {
        const bq_grid g = {r, layouts->at[0].arch->model.blocks, comm->nstage, cut};
        int64_t n = bq_grid_blocks(&g, comm->istage).count;
        most = n > most ? n : most;
    }
    return most;
}

/* The most samples of a step that a replica has; and the largest exchange of a sum of so many numbers. */
static int64_t leaves_of(const bq_recipe *r, const bq_comm *comm, int64_t scales, size_t *exchange) {
    int64_t most = 1, samples = r->calibration.samples, batch = r->distill.batch;
    for (int64_t step = 0; step < samples / batch; step++) {
        bq_shard leaves[BQ_REPLICAS];
        size_t one = 0;
        bq_train_all_leaves(samples, batch, step, comm->nreplica, leaves);
        if (comm->nreplica > 1)
            one = bq_treesum_exchange(comm->replica, comm->nreplica, leaves, scales, 1, BQ_F32);
        *exchange = one > *exchange ? one : *exchange;
        most = leaves[comm->replica].count > most ? leaves[comm->replica].count : most;
    }
    return most;
}

/* Scratch of the head's products, forward and back. */
static size_t head_products(bq_compute compute, int64_t n, const bq_model *m) {
    size_t there = bq_gemm_scratch(compute, n, m->vocab, m->hidden),
           back = bq_gemm_scratch(compute, n, m->hidden, m->vocab);
    return there > back ? there : back;
}

size_t bq_distill_need(const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm) {
    const bq_model *m = &layouts->at[0].arch->model;
    int64_t linear = 0, numbers = most_numbers(r, layouts, &linear), t = r->calibration.length,
            cols = (int64_t)bq_linear_most_of(layouts).cols, positions = bq_distill_positions(r);
    size_t exchange = 0, head = 0;
    if (!r->distill.steps) return 0;
    leaves_of(r, comm, numbers, &exchange);
    int64_t buffers =
        bq_train_buffers(r->calibration.samples, r->distill.batch, comm->replica, comm->nreplica);
    if (last_stage(comm))
        head = bq_arena_need(m->vocab, m->hidden, BQ_F32) + bq_distill_scratch(positions, m->vocab) +
               head_products(r->distill.compute, positions, m) +
               3 * bq_arena_need(positions, m->hidden, BQ_F32) + bq_arena_need(1, m->hidden, BQ_F32) +
               bq_arena_need(positions, 1, BQ_I32);
    size_t sums = (size_t)((blocks_of(r, layouts, comm) + last_stage(comm)) * buffers + 1) *
                  bq_arena_need(numbers, 1, BQ_F32);
    return 2 * bq_arena_need(t, m->hidden, BQ_F32) + outputs(layouts, t) +
           2 * bq_arena_need(linear, 1, BQ_I32) + bq_arena_need(cols > t ? cols : t, 1, BQ_F32) + sums +
           exchange + head;
}

size_t bq_distill_host(const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm) {
    int64_t linear = 0, numbers = most_numbers(r, layouts, &linear), t = r->calibration.length;
    size_t exchange = 0;
    if (!r->distill.steps) return 0;
    int64_t sample = t * layouts->at[0].arch->model.hidden, n = leaves_of(r, comm, numbers, &exchange),
            counts = r->distill.steps + r->distill.batch + r->distill.held + 3 * t;
    return (size_t)((5 * (blocks_of(r, layouts, comm) + last_stage(comm)) + 2) * numbers + 2 * n * sample) *
               sizeof(float) +
           (size_t)counts * sizeof(double);
}

/* Inputs and outputs of blocks for the samples of a step, gradients, and outputs of the original. */
size_t bq_distill_stream(const bq_recipe *r, const bq_layouts *layouts, const bq_comm *comm) {
    int64_t t = r->calibration.length, h = layouts->at[0].arch->model.hidden,
            share = bq_shard_of(r->calibration.samples, comm->replica, comm->nreplica).count +
                    bq_shard_of(r->distill.held, comm->replica, comm->nreplica).count;
    size_t exchange = 0;
    if (!r->distill.steps) return 0;
    int64_t n = leaves_of(r, comm, 1, &exchange);
    return bq_stream_need((blocks_of(r, layouts, comm) + 1) * n, t, h) + bq_stream_need(n, t, h) +
           bq_stream_need(last_stage(comm) ? share : bq_distill_piece(share, comm->nstage), t, h);
}
