/* SPDX-License-Identifier: Apache-2.0 */
/* learning.h - rotations that are trained before the phases (SpinQuant, by blocks).
 *
 * A step walks the original's stream of a batch of samples through the blocks, one block in memory.  In each
 * block all weights are rounded to nearest in the rotated basis (block/common/turned.h).  With y the
 * original's output and z that of the rounded block from the same input, the loss is the mean over tokens of
 * |z - y|^2 / |y|^2: so all blocks count in the same unit, as each norm behind them divides by |y|.
 * Gradients are added over samples in a fixed tree, then over blocks in order.  R2 of a block takes its step
 * (block/common/cayley.h) as soon as its gradient is there; R1, which is of all blocks, at the end of the
 * walk.
 *
 * All ranks share the samples of a batch, whatever their stages are, and each computes the same step: so the
 * bytes do not depend on the number of ranks.  ckpt/rotation.f32 has the rotations after each step. */
#ifndef BQ_LEARNING_H
#define BQ_LEARNING_H

#include "driver/streams/run.h"

/* Train, or go on, unless the recipe learns nothing; then s->src gives the tensors of the rotated model.
 * BQ_OK; BQ_STOPPED on all ranks.  Collective over world. */
int bq_learning_run(bq_run *s);

/* The same of a run that is done, from its file.  BQ_DATA after one message where that is gone.  Local. */
int bq_learning_read(bq_run *s);

#endif
