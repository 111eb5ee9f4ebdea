/* restore.h - a block's result, back from its checkpoint. */
#ifndef BQ_RESTORE_H
#define BQ_RESTORE_H

#include "driver/streams/run.h"

/* A checkpointed block's codes and scales, and its folded weights where wanted, into q (pushed);
 * norms and biases that a pass has changed into blk.  The caller has seen it whole: else the job ends. */
void bq_restore(const bq_run *s, bq_dev *dev, const char *path, bq_block *blk, bq_quantized *q, bool fold);

#endif
