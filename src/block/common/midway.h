/* SPDX-License-Identifier: Apache-2.0 */
/* midway.h - a walk that stops before each site of a block, for passes that quantize the sites one after the
 * other.
 *
 * Each site sees inputs that come from the quantized sites before it.  While a site is quantized, the
 * state of as many samples as there is room for is kept, so these samples go through the block once.  It is
 * what the rest of the block needs: the outputs of the heads; or the input of norm 2 and z.  The other
 * samples start again from the block's input for each site.  That runs the same ops on the same operands,
 * so the number of kept samples changes no bit. */
#ifndef BQ_MIDWAY_H
#define BQ_MIDWAY_H

#include "base/shard.h"
#include "block/common/capture.h"

typedef struct {
    bq_pass_context *c;
    bq_shard share; /* samples of this replica */
    int64_t kept;   /* how many of them, the first ones, have their state kept */
    bq_mat m, o,
        z; /* (kept * T, H), (kept * T, columns of o), (kept * T, I).  o and z are the same memory: once z
                       exists, o is not read again */
} bq_midway;

/* Begin a walk.  Pushes room for c->keeps samples, or for the whole share if that is smaller; the caller's
 * mark and reset take it back.  Local.  bq_midway_need: its arena bytes. */
void bq_midway_open(bq_midway *a, bq_pass_context *c);
size_t bq_midway_need(const bq_arch *arch, int64_t tokens, int64_t kept);

/* Take the samples of the pass's stream (bq_capture_stream), in ascending order, to the input of site `to`,
 * or where that is the number of sites to the output of the block.  Call it for 0, 1, ... in this order.  w:
 * the matrices; those of sites before `to` must be final.  visit gets that input (T, columns of `to`), or the
 * output (T, H), as y.  visit may overwrite x (T, H), the workspace's, and the rest of c->work; for the
 * output x and y are the same memory.  Sends heartbeats.  Local. */
void bq_midway_to(bq_midway *a, int to, const bq_mat *w, bq_visit visit, void *ctx);

/* End the walk: unless c->advance is NULL, it gets the outputs of the block with the final matrices w.
 * Local. */
void bq_midway_end(bq_midway *a, const bq_mat *w);

#endif
