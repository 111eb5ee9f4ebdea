/* reference.h - the FP stream's way through the stages.
 *
 * The inputs of the first block of each piece of a stage (grid.h) are kept in acts/fp_<block>.h5.  A stage
 * that has its files whole needs nothing; for the others micro-batches of c samples flow from stage to stage:
 * received, run through the stage's blocks, sent on, while the next one is on its way (comm/flow.h): from GPU
 * to GPU where all of them can (comm->depth), else through the host.  A sample's numbers depend neither on c
 * nor on the way. */
#ifndef BQ_REFERENCE_H
#define BQ_REFERENCE_H

#include "driver/session.h"
#include "io/acts.h"

/* Make sure that this stage's head files are whole.  micro: c.  Collective over world. */
void bq_reference_run(bq_session *s, int64_t micro);

/* The same without messages (--split-reference): every rank of the world takes its share of the samples from
 * the last head file before the first that is missing through all blocks to the last that is.  Collective
 * over world. */
void bq_reference_split(bq_session *s);

/* A file of one stream of this run's shape, which the caller closes: NULL when there is none of that hash,
 * made where there is none.  Local. */
bq_acts *bq_reference_look(const bq_session *s, const char *path, uint64_t hash);
bq_acts *bq_reference_new(const bq_session *s, const char *path, uint64_t hash);

/* What look gave, for the replicas of the stage to move samples: joined (io/acts.h) where --acts says so, and
 * then NULL for all when one has none.  Then close is collective, too.  Collective over stage. */
bq_acts *bq_reference_join(const bq_session *s, bq_acts *acts);
bq_acts *bq_reference_open(const bq_session *s, const char *path, uint64_t hash);

/* The same, created by replica 0 where there is none, with --acts root by each of them.  Collective over
 * stage. */
bq_acts *bq_reference_make(const bq_session *s, const char *path, uint64_t hash);

/* The default c for a grid; the host bytes of the buffers; the arena of a GPU that has them. */
int64_t bq_reference_micro(const bq_recipe *recipe, int nstage, int nreplica);
size_t bq_reference_host(const bq_recipe *recipe, const bq_arch *arch, int64_t micro);
size_t bq_reference_device(const bq_recipe *recipe, const bq_arch *arch, int64_t micro);

/* The head file of a block.  Its samples of [first, first + count) are there, with the data that the log
 * promises: bq_reference_whole. */
bool bq_reference_whole(const bq_session *s, int block, bq_shard samples);
void bq_reference_path(const bq_session *s, int block, char *path, size_t n);
uint64_t bq_reference_hash(const bq_session *s, int block);

#endif
