/* SPDX-License-Identifier: Apache-2.0 */
/* Which replica computes what in a step of a training, and the memory of it. */
#include "block/passes/train.h"
#include "comm/treesum.h"

bq_shard bq_train_rows(const bq_linear *l, bq_shard range) {
    int64_t first = l->row > range.first ? l->row : range.first;
    int64_t end = l->row + l->rows < range.first + range.count ? l->row + l->rows : range.first + range.count;
    return (bq_shard){first, end > first ? end - first : 0, l->rows};
}

bq_shard bq_train_leaves(int64_t samples, int64_t batch, int64_t step, int replica, int nreplica) {
    bq_shard share = bq_shard_of(samples, replica, nreplica);
    int64_t stride = samples / batch, at = step % stride;
    int64_t first = (share.first - at + stride - 1) / stride,
            end = (share.first + share.count - at + stride - 1) / stride;
    if (share.first < at) first = 0;
    if (share.first + share.count < at) end = 0;
    return (bq_shard){first, end > first ? end - first : 0, batch};
}

void bq_train_all_leaves(int64_t samples, int64_t batch, int64_t step, int nreplica, bq_shard *out) {
    for (int r = 0; r < nreplica; r++) out[r] = bq_train_leaves(samples, batch, step, r, nreplica);
}

int bq_train_buffers(int64_t samples, int64_t batch, int replica, int nreplica) {
    int most = 1;
    for (int64_t step = 0; step < samples / batch; step++) {
        bq_shard l = bq_train_leaves(samples, batch, step, replica, nreplica);
        int n = bq_treesum_buffers(l.first, l.count);
        most = n > most ? n : most;
    }
    return most;
}

/* The most room for the exchange that a step needs. */
static size_t exchange_need(const bq_arch *arch, int64_t samples, int64_t batch, int replica, int nreplica) {
    bq_shard leaves[BQ_REPLICAS];
    size_t most = 0;
    for (int64_t step = 0; step < samples / batch && nreplica > 1; step++) {
        size_t sum = 0;
        bq_train_all_leaves(samples, batch, step, nreplica, leaves);
        for (int m = 0; m < arch->sites; m++)
            sum += bq_treesum_exchange(replica, nreplica, leaves, arch->site[m].rows, arch->site[m].cols,
                                       BQ_F32);
        most = sum > most ? sum : most;
    }
    return most;
}

size_t bq_train_need(const bq_train_kind *kind, const bq_train_options *o, const bq_pass_size *of) {
    const bq_arch *arch = of->arch;
    int64_t batch = o->batch < of->samples ? o->batch : of->samples;
    int elements = bq_train_count(kind->element), values = bq_train_count(kind->row);
    int more = bq_train_buffers(of->samples, batch, of->replica, of->nreplica) - 1;
    size_t sum = 2 * bq_arena_need(of->tokens, arch->model.hidden, BQ_F32) +
                 bq_arena_need(1, BQ_ADAM_NUMBERS, BQ_F32) + bq_arena_need(1, 1, BQ_F64) +
                 bq_arena_need(BQ_TRAIN_AHEAD, batch, BQ_F64);
    for (int m = 0; m < arch->sites; m++) {
        bq_shard own = bq_shard_of(arch->site[m].rows, of->replica, of->nreplica);
        sum += (size_t)elements * bq_arena_need(own.count, arch->site[m].cols, BQ_F32);
        sum += (size_t)more * bq_arena_need(arch->site[m].rows, arch->site[m].cols, BQ_F32);
        sum += bq_arena_need(1, arch->site[m].rows, BQ_F32);
    }
    for (int i = 0; i < arch->linears; i++) {
        bq_shard own = bq_shard_of(arch->site[arch->linear[i].site].rows, of->replica, of->nreplica);
        int64_t rows = bq_train_rows(&arch->linear[i], own).count * bq_linear_groups(arch, of->scheme, i);
        int64_t grids = arch->linear[i].rows * bq_linear_groups(arch, of->scheme, i);
        sum += bq_arena_need(rows, values, BQ_F32);
        sum += (of->scheme[i].symmetric ? 1 : 2) * bq_arena_need(grids, 1, BQ_F32);
    }
    return sum + exchange_need(arch, of->samples, batch, of->replica, of->nreplica);
}
