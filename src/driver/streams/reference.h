/* SPDX-License-Identifier: Apache-2.0 */
/* reference.h - the FP stream at the blocks where pieces start (grid.h).
 *
 * The inputs of the first block of each piece are kept in acts/fp_<block>.h5, its head file.  Stages whose
 * files are whole do nothing.  For the others micro-batches of c samples go from stage to stage: a stage
 * receives one, runs it through its blocks and sends it on, while the next one arrives (comm/flow.h).
 * Messages go from GPU to GPU if all ranks can (comm->depth), else through the host.  The values of a sample
 * do not depend on c or on the kind of messages. */
#ifndef BQ_REFERENCE_H
#define BQ_REFERENCE_H

#include "driver/streams/run.h"

/* Make sure that this stage's head files are whole.  micro: c.  Collective over world. */
void bq_reference_run(bq_run *s, int64_t micro);

/* The same without messages (--split-reference).  Every rank of the world takes its share of the samples from
 * the last head file before the first missing one through all blocks up to the last missing one.  Collective
 * over world. */
void bq_reference_split(bq_run *s);

/* The path of a block's head file, and the hash that the file carries.  Local. */
uint64_t bq_reference_file(const bq_run *s, int block, char *path, size_t n);

/* Does the head file of a block have these samples, undamaged?  Collective over stage. */
bool bq_reference_whole(const bq_run *s, int block, bq_shard samples);

#endif
