/* result.h - the evaluations that a run ends with. */
#ifndef BQ_RESULT_H
#define BQ_RESULT_H

#include "driver/streams/run.h"

/* Round to nearest, as a bq_weights_of. */
void bq_rtn_weights(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q);

/* Evaluate the model, round to nearest and the result; print the result line.  Returns as bq_score_run.
 * Collective over world. */
int bq_result_evaluate(bq_run *s);

#endif
