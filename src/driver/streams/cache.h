/* cache.h - activation files where only rank 0 touches the run directory's (--acts root).
 *
 * Every other rank keeps its share of the files that its stage reads or makes in a directory of its own below
 * --scratch; everything else works on these as it does on shared files.  Here they are brought up to date:
 * rank 0 has all that a run before left, and gets what this one makes.  Each exchange is one ordered walk
 * over the files, sample by sample, sender and receiver in step, so no cycle of full buffers can form.
 * Without --acts root all of this does nothing.  Collective over world. */
#ifndef BQ_CACHE_H
#define BQ_CACHE_H

#include "driver/streams/run.h"

/* s->acts: the directory of this rank's files; but on rank 0 a new, private one (io/folder.h).  Those that
 * killed runs of this user left on this node are removed first.  Local. */
void bq_cache_open(bq_run *s);
void bq_cache_close(bq_run *s);

/* What rank 0 has, to those who need it: at the start. */
void bq_cache_fetch(const bq_run *s);
/* The stages' head files to rank 0: after the reference. */
void bq_cache_give_heads(const bq_run *s);
/* The boundaries that a sweep has made to rank 0, and to those whose heads they are. */
void bq_cache_give_boundaries(const bq_run *s, int sweep);

#endif
