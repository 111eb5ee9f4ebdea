/* midway.h - the samples of a pass on their way through a block whose matrices are quantized one after the
 * other.
 *
 * They wait before each matrix until it is quantized.  Of as many as there is room for, what the rest of the
 * block needs is kept meanwhile: the heads, or the input of norm 2 with the gated activations.  So they go
 * through the block once.  The others start again from the block's input, with the same ops on the same
 * operands: how many are kept changes no bit. */
#ifndef BQ_MIDWAY_H
#define BQ_MIDWAY_H

#include "base/shard.h"
#include "block/common/capture.h"

typedef struct {
    bq_pass_context *c;
    bq_shard share;
    int64_t kept;   /* the first of the share */
    bq_mat m, o, z; /* (kept * T, H), (kept * T, nh hd), (kept * T, I).  o and z are the same memory: nobody
                       asks for the heads once there is a z */
} bq_midway;

/* Push room for c->keeps samples, or the share; the caller's mark and reset give it back.  Local. */
void bq_midway_open(bq_midway *a, bq_pass_context *c);
size_t bq_midway_need(const bq_arch *arch, int64_t tokens, int64_t kept);

/* Bring the samples of the pass's stream (bq_capture_stream), in order, from before the matrix ahead of `to`
 * to before `to`, BQ_MATS: out of the block, with the matrices w, of which those ahead of `to` are final.
 * Called for qkv, o, gate_up, down and BQ_MATS in turn.  visit sees y what matrix `to` is fed (T, its
 * columns), or the output, and x: room (T, H), and may use c->work; for the output both are the same.  The
 * heartbeat beats. Local.  Takes no more of the arena than bq_capture. */
void bq_midway_to(bq_midway *a, int to, const bq_mat w[BQ_MATS], bq_visit visit, void *ctx);

/* Bring them out of the block, with w final, and to c->advance, if anybody takes them. */
void bq_midway_end(bq_midway *a, const bq_mat w[BQ_MATS]);

#endif
