/* SPDX-License-Identifier: Apache-2.0 */
/* narrow.h - how much products in a way less exact than f32 change the outputs of a block's sites. */
#ifndef BQ_NARROW_H
#define BQ_NARROW_H

#include "block/passes/pass.h"

/* nmse[m] = sum (y - y32)^2 / sum y32^2: y is the output of site m of c->blk computed in the given way, one
 * that the device has, y32 the same in f32, from the same inputs.  Uses the first sample of this replica in
 * the stream of bq_capture_stream.  Scratch: bq_gemm_scratch.  Local. */
void bq_narrow_error(bq_pass_context *c, bq_compute compute, double *nmse);

/* Arena bytes it takes beside that scratch. */
size_t bq_narrow_need(const bq_arch *arch, int64_t tokens);

#endif
