/* SPDX-License-Identifier: Apache-2.0 */
/* result.h - the evaluations that a run ends with. */
#ifndef BQ_RESULT_H
#define BQ_RESULT_H

#include "driver/score/score.h"
#include "driver/streams/run.h"

/* Round to nearest, as a bq_weights_of. */
void bq_rtn_weights(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q);

/* The weights of the run's checkpoints, likewise; ctx: the run. */
void bq_result_weights(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q);

/* For evaluations of the run: the caller sets the label. */
bq_score bq_result_score(bq_run *s);

/* Run an evaluation on the result; *value as of bq_score_run.  Collective over world. */
int bq_result_value(bq_run *s, const bq_eval *e, double *value);

/* What result.json says of the recipe, as the recipe does: keys of `bits` that change an evaluation and that
 * no checkpoint knows, of those that round. */
json_t *bq_result_bits(const bq_run *s);

/* Evaluate the model, round to nearest and the result; print the result line.  Returns as bq_score_run.
 * Collective over world. */
int bq_result_evaluate(bq_run *s);

#endif
