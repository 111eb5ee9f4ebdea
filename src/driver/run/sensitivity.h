/* SPDX-License-Identifier: Apache-2.0 */
/* sensitivity.h - mixed precision: how far each scheme of bits.auto moves the output of a block, and the
 * choice.
 *
 * One site of one block at a time is rounded to nearest, in the original's stream.  Its error is the sum of
 * |y' - y|^2 / |y|^2 over the tokens of the samples, with y an output of the block: so all blocks count in
 * the same unit, as each norm behind them divides by |y|.
 *
 * The ranks share the schemes of the sites of a block; each has all samples.  Errors are sums over samples
 * in order, so they do not depend on the number of ranks.  ckpt/sensitivity.json keeps them block by block:
 * a run that goes on measures only what is not there.  The choice follows from them. */
#ifndef BQ_SENSITIVITY_H
#define BQ_SENSITIVITY_H

#include "driver/streams/run.h"

/* Measure and choose, unless the recipe has no bits.auto; then s->layouts has the schemes, and schemes.json
 * in the run directory says them.  BQ_OK; BQ_STOPPED on all ranks.  Collective over world. */
int bq_sensitivity_run(bq_run *s);

/* The same of a run that is done, from what it has measured.  BQ_DATA after one message where that is gone.
 * Local. */
int bq_sensitivity_read(bq_run *s);

#endif
