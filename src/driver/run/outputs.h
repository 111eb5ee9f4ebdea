/* outputs.h - models that a run writes at its end, each rank its share of the shards. */
#ifndef BQ_OUTPUTS_H
#define BQ_OUTPUTS_H

#include "driver/streams/run.h"

/* Can their formats hold what the recipe's outputs would hold?  Known before any work.  BQ_OK, or
 * BQ_DATA after one message.  Local. */
int bq_outputs_fit(const bq_run *s);
/* Write the outputs of the recipe that are not there yet, each rank its share of the shards.
 * BQ_OK, or BQ_DATA after one message.  Collective over world. */
int bq_outputs_write(const bq_run *s);
/* One more form of a finished run, in a directory of the caller's choice.  Collective over world. */
int bq_outputs_write_one(const bq_run *s, int format, size_t shard_bytes, const char *dir);

#endif
