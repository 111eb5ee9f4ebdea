/* SPDX-License-Identifier: Apache-2.0 */
/* distill.h - end-to-end distillation: the scales, gains and biases of all blocks are trained together, so
 * that the logits of the quantized model become those of the original.
 *
 * It starts from the result of the phases.  Codes stay as they are.  A scale or a gain of a norm becomes s
 * exp(u), a zero point that is a float z + s u, a bias b + mean|b| u.  All u start at 0, and are trained by
 * Adam (0.9, 0.95) on the mean over tokens of KL(softmax of the original || softmax of the quantized model),
 * as in the second phase of EfficientQAT (Chen et al., 2024).  Numbers in files are rounded to their type;
 * so are those of each step, and the gradient goes through that rounding as it is.
 *
 * Where each row has one scale its gradient is that of the outputs times the outputs, summed over tokens: no
 * gradient of weights is computed (block.h).  So a step costs two forwards and the backward of inputs.
 *
 * A step goes forward and back through all stages.  Each stage has its blocks: it reads one block after the
 * other, keeps their inputs, and sends micro-batches on, as in the reference pipeline; then gradients of
 * outputs come back the other way, and each block's forward is computed again before its backward.  Replicas
 * share the samples of a step.  Gradients are added by the fixed tree of comm/treesum.h, so any grid gives
 * the same bytes. */
#ifndef BQ_DISTILL_RUN_H
#define BQ_DISTILL_RUN_H

#include "driver/streams/run.h"

/* Do it, unless the recipe has none or it is done; after bq_sweep_results.  Then the results of the run are
 * those of distillation (bq_run_checkpoint).  BQ_OK, or BQ_STOPPED on all ranks, with the state of the last
 * step in ckpt/inside_*.  A loss that is not finite ends the job (BQ_DATA).  Collective over world. */
int bq_distill_run(bq_run *s);

/* s->distill_tag: the fingerprint of the phases, and the recipe's `distill`.  Local. */
void bq_distill_tag(bq_run *s);

/* Read s->final_norm, if the result has one, after s->distilled is set.  A damaged file ends the job.
 * Local. */
void bq_distill_final(bq_run *s);

/* Are the results of all blocks there?  Local. */
bool bq_distill_done(const bq_run *s);

#endif
