/* capture.h - what the linears of a block are fed: for passes that work from their inputs.
 *
 * The inputs of the four matrices are in the workspace after a forward: the first norm's output for qkv, the
 * heads for o, the second norm's output for gate_up, the gated activations for down.  They are as they were
 * before a block's factors (blk->pre), which passes that capture do not follow. */
#ifndef BQ_CAPTURE_H
#define BQ_CAPTURE_H

#include "base/shard.h"
#include "block/passes/pass.h"

/* The stream that a pass sees which does not train: the quantized one with `qt` and `mix`. */
static inline bq_stream_id bq_capture_stream(bq_inputs input) {
    return input == BQ_INPUTS_FP ? BQ_STREAM_FP : BQ_STREAM_QT;
}

/* The stream that passes see which prepare: the quantized one with `qt` alone. */
static inline bq_stream_id bq_prepare_stream(bq_inputs input) {
    return input == BQ_INPUTS_QT ? BQ_STREAM_QT : BQ_STREAM_FP;
}

/* The input of matrix m after a forward: (T, its cols), a view into work. */
bq_mat bq_capture_input(const bq_work *work, int m);

/* Those of this replica's samples of the stream that are `of` a stride, in order, through the block with
 * matrices w; visit is called after each forward, x (T, H) its input and y its output, or room for one where
 * no `output` is wanted.  The heartbeat beats.  Local. */
typedef void (*bq_visit)(void *ctx, int64_t sample, bq_mat x, bq_mat y);
void bq_capture(bq_pass_context *c, bq_stream_id stream, bq_stride of, const bq_mat w[BQ_MATS], bool output,
                bq_visit visit, void *ctx);

/* Arena bytes that a capture takes beside the workspace. */
size_t bq_capture_need(const bq_arch *arch, int64_t tokens);

#endif
