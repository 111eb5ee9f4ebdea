/* SPDX-License-Identifier: Apache-2.0 */
/* learned.h - sizes of what training rotations takes (run/learning.h).  All calls are local. */
#ifndef BQ_LEARNED_H
#define BQ_LEARNED_H

#include "base/shard.h"
#include "block/model/quantized.h"
#include "comm/comm.h"
#include "driver/recipe/recipe.h"

/* The rotations: R1 (h, h) and R2 (d, d) of each block; 0: there is none.  Their gradient in a block is one
 * matrix: A1 in the first h rows, A2 in the first d columns of the rows behind them. */
typedef struct {
    int64_t h, d, blocks, steps;
} bq_learned_size;
bq_learned_size bq_learned_size_of(const bq_recipe *r, const bq_model *m);
static inline int64_t bq_learned_rows(bq_learned_size s) { return s.h + s.d; }
static inline int64_t bq_learned_cols(bq_learned_size s) { return s.h > s.d ? s.h : s.d; }

/* The samples of a batch that each rank takes: bq_shard_of(batch, rank, ranks). */
void bq_learned_leaves(int64_t batch, int ranks, bq_shard out[BQ_REPLICAS]);

/* Bytes: of what is kept between steps, on the host and in ckpt/rotation.f32; on the device beside a block,
 * its quantized form and the activations of a sample with a backward; on the host; of streams.  0: nothing is
 * learned. */
size_t bq_learned_bytes(bq_learned_size s);
size_t bq_learned_need(const bq_recipe *r, const bq_layouts *layouts, int rank, int ranks);
size_t bq_learned_host(const bq_recipe *r, const bq_model *m);
size_t bq_learned_stream(const bq_recipe *r, const bq_model *m, int ranks);

#endif
