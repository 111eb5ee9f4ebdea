/* SPDX-License-Identifier: Apache-2.0 */
/* cache.h - with --acts root: only rank 0 reads and writes activation files in the run directory.
 *
 * Every other rank has a directory of its own below --scratch, with its share of the files that its stage
 * reads or makes; the rest of the program uses these as it uses shared files.  The calls here copy samples
 * between them and the files of rank 0, which has those of earlier runs.  All ranks go through the files and
 * samples in one order, so no cycle of ranks can wait for each other.  Without --acts root the calls do
 * nothing.  Collective over world. */
#ifndef BQ_CACHE_H
#define BQ_CACHE_H

#include "driver/streams/run.h"

/* Set s->acts, the directory of this rank's files, and s->heads unless it is set.  It is a new private one
 * (io/folder.h) except on rank 0; directories that killed runs of this user left on this node are removed
 * first.  Local. */
void bq_cache_open(bq_run *s);
void bq_cache_close(bq_run *s);

/* At the start: copy what rank 0 has to the ranks that read it. */
void bq_cache_fetch(const bq_run *s);
/* After the reference: copy the stages' head files to rank 0. */
void bq_cache_give_heads(const bq_run *s);
/* After a sweep: copy its boundaries to rank 0, and to the ranks that start from them. */
void bq_cache_give_boundaries(const bq_run *s, int sweep);

#endif
