/* SPDX-License-Identifier: Apache-2.0 */
/* capture.h - the inputs of a block's sites, for passes that work from them.
 *
 * After a forward they are in the workspace (bq_block_input in block.h).  The
 * factors of blk->pre are not in them: no pass that reads inputs may follow one that leaves factors. */
#ifndef BQ_CAPTURE_H
#define BQ_CAPTURE_H

#include "base/shard.h"
#include "block/passes/pass.h"

/* The stream that a quantizing pass without training reads: QT where `inputs` is qt or mix. */
static inline bq_stream_id bq_capture_stream(bq_inputs input) {
    return input == BQ_INPUTS_FP ? BQ_STREAM_FP : BQ_STREAM_QT;
}

/* The stream that a preparing pass reads: QT only where `inputs` is qt. */
static inline bq_stream_id bq_prepare_stream(bq_inputs input) {
    return input == BQ_INPUTS_QT ? BQ_STREAM_QT : BQ_STREAM_FP;
}

/* Walk over the samples of this replica that are in the stride `of`, in ascending order: a forward of each
 * through the block with the matrices w, then visit, which finds the inputs in c->work.  x (T, H): the input
 * of the block; y (T, H): its output, undefined where `output` is false.  Both are the workspace's, and visit
 * may overwrite them.  Sends heartbeats.  Local. */
typedef void (*bq_visit)(void *ctx, int64_t sample, bq_mat x, bq_mat y);
void bq_capture(bq_pass_context *c, bq_stream_id stream, bq_stride of, const bq_mat *w, bool output,
                bq_visit visit, void *ctx);

#endif
