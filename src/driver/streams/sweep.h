/* sweep.h - segments made whole again: repeats in which a segment starts from the true quantized stream.
 *
 * In sweep 0 every segment starts from the FP stream.  At the end of a segment the quantized stream, the
 * boundary, is kept as acts/qt_<block>.s<sweep>.h5, the head of the next segment in the sweep after.  Heads
 * of sweep j come from sweep j - 1 only, so segments of a sweep stay independent.  A segment whose head is
 * bit-identical to the one it was last trained from is frozen: its blocks and its boundary stay.  After as
 * many sweeps as segments the chained problem is solved exactly.  Later sweeps start from the codes and
 * scales of the one before. */
#ifndef BQ_SWEEP_H
#define BQ_SWEEP_H

#include "driver/streams/run.h"
#include "io/state/stream.h"

/* The segment that starts at `block` need not be trained in this sweep: its head has not changed.  The files
 * decide, so every restart agrees.  Collective over stage. */
bool bq_sweep_frozen(const bq_run *s, int sweep, int block);

/* My share of the quantized stream at the head of the segment that starts at `block`, from the latest
 * boundary before this sweep; false when there is none: the FP stream it is.  buffer: host (T, H).
 * Collective over stage. */
bool bq_sweep_head(const bq_run *s, int sweep, int block, bq_stream *qt, bq_mat buffer);

/* Keep my share of the boundary before `block`, unless it is there.  Collective over stage. */
void bq_sweep_keep(const bq_run *s, int sweep, int block, const bq_stream *qt, bq_mat buffer);
bool bq_sweep_kept(const bq_run *s, int sweep, int block);

/* How far the kept boundary before `block` moved since the head it replaces (an earlier sweep's, or in the
 * first the FP stream `fp`, NULL: not counted): relative L2 norm over all samples; 0 when this sweep kept
 * none.  a, b: host (T, H).  Collective over stage. */
double bq_sweep_moved(const bq_run *s, int sweep, int block, const bq_stream *fp, bq_mat a, bq_mat b);

/* No boundary moved by more than the recipe's tolerance in this sweep, the second or a later one.  Collective
 * over world. */
bool bq_sweep_settled(const bq_run *s, int sweep);

/* The latest sweep before `end` in which a block was made; -1: none.  Local: another rank may see a file
 * later.  Fault point sweep_late. */
int bq_sweep_latest(const bq_run *s, int phase, int block, int end);
/* The same as replica 0 sees it.  Collective over stage. */
int bq_sweep_start(const bq_run *s, int phase, int block, int end);

/* Set s->latest once all blocks are made: the latest that any rank sees.  Collective over world. */
void bq_sweep_results(bq_run *s);

#endif
