/* SPDX-License-Identifier: Apache-2.0 */
/* restore.h - reads the result of a unit of a block from its checkpoint. */
#ifndef BQ_RESTORE_H
#define BQ_RESTORE_H

#include "driver/streams/run.h"
#include "io/state/checkpoint.h"

/* Read the checkpoint at `path`: codes, grids and w_hat into q (pushed), with `fold` the fold too; factors of
 * inputs, and norms and biases that a pass has changed, into blk.  A damaged file ends the job.  Local. */
void bq_restore(const bq_run *s, bq_dev *dev, const char *path, bq_block *blk, bq_quantized *q, bool fold);

/* Fill in the linears of c, and norms and biases that a pass has changed, as views of blk and q, for
 * bq_ckpt_write; without fold.  Local. */
void bq_restore_describe(const bq_block *blk, const bq_quantized *q, bq_ckpt *c);

#endif
