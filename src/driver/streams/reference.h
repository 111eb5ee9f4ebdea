/* reference.h - the FP stream's way through the stages.
 *
 * The inputs of the first block of each piece of a stage (grid.h) are kept in acts/fp_<block>.h5.  A stage
 * that has its files whole needs nothing; for the others micro-batches of c samples flow from stage to stage:
 * received, run through the stage's blocks, sent on, while the next one is on its way (comm/flow.h): from GPU
 * to GPU where all of them can (comm->depth), else through the host.  A sample's numbers depend neither on c
 * nor on the way. */
#ifndef BQ_REFERENCE_H
#define BQ_REFERENCE_H

#include "driver/streams/run.h"

/* Make sure that this stage's head files are whole.  micro: c.  Collective over world. */
void bq_reference_run(bq_run *s, int64_t micro);

/* The same without messages (--split-reference): every rank of the world takes its share of the samples from
 * the last head file before the first that is missing through all blocks to the last that is.  Collective
 * over world. */
void bq_reference_split(bq_run *s);

/* The path of a block's head file, and the hash that the file carries.  Local. */
uint64_t bq_reference_file(const bq_run *s, int block, char *path, size_t n);

/* The head file of a block has these samples, undamaged.  Collective over stage. */
bool bq_reference_whole(const bq_run *s, int block, bq_shard samples);

#endif
