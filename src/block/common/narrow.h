/* narrow.h - how much products that are narrower than f32 change a block. */
#ifndef BQ_NARROW_H
#define BQ_NARROW_H

#include "block/passes/pass.h"

/* Outputs y of the four matrices c->blk->w with products made that way (one the device has), against y32 in
 * f32: nmse[m] = sum (y - y32)^2 / sum y32^2, on the first sample of this replica's share of the stream that
 * a pass without training sees.  Scratch: bq_gemm_scratch.  Local. */
void bq_narrow_error(bq_pass_context *c, bq_compute compute, double nmse[BQ_MATS]);

/* Device bytes it takes beside block, workspace and scratch. */
size_t bq_narrow_need(const bq_arch *arch, int64_t tokens);

#endif
