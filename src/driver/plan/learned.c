/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/plan/learned.h"

#include "block/common/cayley.h"
#include "comm/treesum.h"
#include "io/state/stream.h"

bq_learned_size bq_learned_size_of(const bq_recipe *r, const bq_model *m) {
    const bq_transform *t = &r->transform[0];
    if (!bq_recipe_learns(r)) return (bq_learned_size){0};
    return (bq_learned_size){t->r1 ? m->hidden : 0, t->r2 ? m->head_dim : 0, m->blocks, t->learn.steps};
}

void bq_learned_leaves(int64_t batch, int ranks, bq_shard out[BQ_REPLICAS]) {
    for (int r = 0; r < ranks; r++) out[r] = bq_shard_of(batch, r, ranks);
}

size_t bq_learned_bytes(bq_learned_size s) {
    return (size_t)s.steps * sizeof(double) + 2 * (size_t)(s.h * s.h + s.blocks * s.d * s.d) * sizeof(float);
}

/* Products with R1 and R2, and those of a forward and a backward. */
static size_t products(const bq_layouts *layouts, bq_learned_size size, int64_t t) {
    size_t most = 0;
    for (int k = 0; k < layouts->count; k++)
        for (int m = 0; m < layouts->at[k].arch->sites; m++) {
            int64_t n = layouts->at[k].arch->site[m].rows, c = layouts->at[k].arch->site[m].cols, h = size.h,
                    d = size.d;
            const int64_t shape[][3] = {{n, c, h}, {n, c, c}, {h, h, n},     {h, h, c},
                                        {d, c, d}, {d, d, c}, {n * c, d, d}, {d, d, n * c},
                                        {t, n, c}, {t, c, n}, {n, c, t}};
            for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
                size_t one = bq_gemm_scratch(BQ_COMPUTE_F32, shape[i][0], shape[i][1], shape[i][2]);
                most = one > most ? one : most;
            }
        }
    return most;
}

size_t bq_learned_need(const bq_recipe *r, const bq_layouts *layouts, int rank, int ranks) {
    const bq_model *m = &layouts->at[0].arch->model;
    const bq_learned_size s = bq_learned_size_of(r, m);
    const int64_t t = r->calibration.length, rows = bq_learned_rows(s), cols = bq_learned_cols(s);
    bq_shard leaves[BQ_REPLICAS];
    if (!bq_recipe_learns(r)) return 0;
    bq_learned_leaves(bq_recipe_learn_batch(r), ranks, leaves);
    int buffers = bq_treesum_buffers(leaves[rank].first, leaves[rank].count);
    size_t sums = (size_t)(buffers + 1) * bq_arena_need(rows, cols, BQ_F32) + products(layouts, s, t) +
                  bq_treesum_exchange(rank, ranks, leaves, rows, cols, BQ_F32);
    size_t step = bq_cayley_need(s.h), step2 = bq_cayley_need(s.d);
    size_t most = step > sums ? step : sums;
    return (most > step2 ? most : step2) + bq_arena_need(s.h, s.h, BQ_F32) + bq_arena_need(s.d, s.d, BQ_F32) +
           bq_arena_need(t, m->hidden, BQ_F32) + bq_arena_need(t, 1, BQ_F32);
}

/* What is kept; gradients; norms of a sample's tokens. */
size_t bq_learned_host(const bq_recipe *r, const bq_model *m) {
    const bq_learned_size s = bq_learned_size_of(r, m);
    size_t values = (size_t)(s.h * s.h + bq_learned_rows(s) * bq_learned_cols(s) + r->calibration.length);
    return bq_recipe_learns(r) ? bq_learned_bytes(s) + values * sizeof(float) : 0;
}

/* Inputs and outputs of a block. */
size_t bq_learned_stream(const bq_recipe *r, const bq_model *m, int ranks) {
    int64_t share = bq_shard_of(bq_recipe_learn_batch(r), 0, ranks).count;
    return bq_recipe_learns(r) ? 2 * bq_stream_need(share, r->calibration.length, m->hidden) : 0;
}
