/* SPDX-License-Identifier: Apache-2.0 */
/* routed.h - the inputs of a block's experts for the samples of a stream, and adding what the experts
 * compute.
 *
 * After a block's core every sample has the input of its experts, n, and a list of the tokens that each
 * expert gets, with their weights.  Then the experts come one after the other, and each is applied to all
 * samples: so only one expert's weights are in memory.  The sums are those of bq_block_forward on the whole
 * block, bit for bit: each product has the tokens of one expert in one sample, and the experts come in
 * ascending order. All calls are local. */
#ifndef BQ_ROUTED_H
#define BQ_ROUTED_H

#include "block/model/experts.h"
#include "io/state/stream.h"

typedef struct {
    bq_dev *dev;
    int experts;
    int64_t chosen;
    bq_stream n;               /* (samples, T, H) */
    int32_t *row;              /* (samples, T k): the tokens of each expert of a sample, in ascending order */
    float *weight;             /* (samples, T k): likewise their weights */
    int32_t *first;            /* (samples, E + 1): where each expert's begin */
    float *host;               /* (T, H): for samples that the device cannot reach */
    bq_mat rows, weights, all; /* on the device, (T, 1): a list; 0, 1, 2, ... */
} bq_routed;

/* Open it for samples of the model whose blocks have the core arch; n is put where home says.  close takes a
 * zeroed struct, too.  need: bytes on the device, pushed to its arena; on the host, without n. */
void bq_routed_open(bq_routed *r, const bq_arch *core, int64_t samples, int64_t tokens, bq_dev *dev,
                    bq_home home);
void bq_routed_close(bq_routed *r);
size_t bq_routed_need(int64_t tokens);
size_t bq_routed_host(const bq_arch *core, int64_t samples, int64_t tokens);

/* Keep what the experts need of sample i, whose forward through the core is in k.  Waits for the device. */
void bq_routed_take(bq_routed *r, int64_t i, const bq_block *core, bq_work *k);

/* The tokens of sample i that an expert gets, and their number; that of all samples. */
const int32_t *bq_routed_rows(const bq_routed *r, int64_t i, int expert, int64_t *n);
int64_t bq_routed_count(const bq_routed *r, int expert);

/* Copy tokens of the inputs of sample i, by their numbers, to the host.  room: (T, H) on the device. */
void bq_routed_copy(bq_routed *r, int64_t i, const int32_t *row, bq_mat host, bq_mat room);

/* Sample i of `to` += what the expert blk computes with the matrices w.  k: a workspace of an expert's layout
 * for T tokens.  Waits for the device. */
void bq_routed_add(bq_routed *r, int64_t i, const bq_block *blk, const bq_mat *w, bq_work *k, bq_stream *to);

#endif
