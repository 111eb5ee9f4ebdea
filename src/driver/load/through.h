/* SPDX-License-Identifier: Apache-2.0 */
/* through.h - all samples of a stream through a block, unit by unit: so only one unit's weights are in
 * memory. The values are those of bq_block_forward on the whole block, bit for bit.  All calls are local. */
#ifndef BQ_THROUGH_H
#define BQ_THROUGH_H

#include "driver/load/source.h"
#include "driver/load/routed.h"

/* Gives the weights of a unit that was just read into blk: fills q, whose w_hat is used. */
typedef void (*bq_weights_of)(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q);

typedef struct {
    bq_dev *dev;
    const bq_source *src;
    bq_block blk;
    bq_work work, inside;      /* for cores, and blocks without experts; for an expert */
    bq_routed routed;          /* experts 0: the model has none */
    bq_arch expert;            /* the layout of the expert at hand */
    bq_layout layout;          /* the same, with its schemes */
    bq_mat buffer;             /* host (T, H), the caller's */
    const bq_layouts *layouts; /* with weights: of the model's units, */
    bq_quantized q;            /* and room for them */
    bq_weights_of weights;     /* NULL: the model's own */
    bool keeps;                /* weights leaves blk as it was */
    void *ctx;
    const int64_t *real; /* of each sample, work.real; NULL: no sample is padded */
    const float *grids; /* what work.inputs needs: two numbers for each site of each unit (blk->inputs), block
                           by block; NULL: nothing */
    const float *kv;    /* what work.cache needs: the scales of each block (blk->kv); NULL: nothing */
    void (*step)(void *ctx, int unit, int64_t sample); /* after each sample in each unit; may be NULL */
    void *step_ctx;
    int held; /* the block whose only unit is in blk; -1: none */
} bq_through;

/* Push what it takes for n samples of T tokens; then set the fields that are the caller's: buffer, step,
 * work.inputs, work.cache and what they need, and for weights layouts, q, weights.  home: where the inputs of
 * experts are kept.  need: bytes on the device and on the host, without q and the stream of those inputs. */
void bq_through_open(bq_through *t, const bq_source *src, bq_angles angles, bq_dev *dev, int64_t n,
                     int64_t tokens, bq_home home);
void bq_through_close(bq_through *t);
size_t bq_through_need(const bq_arch *first, int64_t tokens);

/* The sites of all units of the blocks before, and of the units before in this block. */
int64_t bq_through_sites(const bq_source *src, int block, int unit);

/* The first n samples of `from` through block b into `to`, which may be the same stream. */
void bq_through_block(bq_through *t, int b, int64_t n, const bq_stream *from, bq_stream *to);

#endif
