/* SPDX-License-Identifier: Apache-2.0 */
/* sweep.h - sweeps: the last phase is repeated, and its segments start from the QT stream of earlier sweeps.
 *
 * In sweep 0 every segment starts from the FP stream.  At the end of a segment its QT stream, the boundary,
 * is kept as acts/qt_<block>.s<sweep>.h5: the head of the next segment in the next sweep.  Heads of a sweep
 * come from earlier sweeps only, so its segments do not depend on each other.  A segment is frozen if its
 * head has the same bits as the one it was last trained from: its blocks and its boundary stay as they are.
 * After as many sweeps as segments every segment has started from the QT stream of the final blocks before
 * it.  Later sweeps start from the codes and scales of the sweep before. */
#ifndef BQ_SWEEP_H
#define BQ_SWEEP_H

#include "driver/streams/run.h"
#include "io/state/stream.h"

/* Is the segment that starts at `block` frozen in this sweep?  Only files decide it, so it is the same after
 * a restart.  Collective over stage. */
bool bq_sweep_frozen(const bq_run *s, int sweep, int block);

/* Read my share of the head of the segment that starts at `block`, the boundary of the latest sweep before
 * this one, into qt.  False: there is none, so the head is the FP stream.  buffer: host (T, H).  Collective
 * over stage. */
bool bq_sweep_head(const bq_run *s, int sweep, int block, bq_stream *qt, bq_mat buffer);

/* keep: write my share of the boundary before `block`, unless it is kept.  kept: is it?  Collective over
 * stage. */
void bq_sweep_keep(const bq_run *s, int sweep, int block, const bq_stream *qt, bq_mat buffer);
bool bq_sweep_kept(const bq_run *s, int sweep, int block);

/* How much the boundary before `block` differs from the head that it replaces: the relative L2 norm over all
 * samples.  That head is the latest sweep's before, or else `fp`.  0 if this sweep kept none, or if there is
 * no head to compare with (fp NULL).  a, b: host (T, H).  Collective over stage. */
double bq_sweep_moved(const bq_run *s, int sweep, int block, const bq_stream *fp, bq_mat a, bq_mat b);

/* Has no boundary changed by more than the recipe's tolerance in this sweep?  False in the first sweep.
 * Collective over world. */
bool bq_sweep_settled(const bq_run *s, int sweep);

/* latest: the latest sweep before `end` in which a block was made; -1: none.  Local: another rank may see a
 * file later.  Fault point sweep_late.  start: the same as replica 0 sees it.  Collective over stage. */
int bq_sweep_latest(const bq_run *s, int phase, int block, int end);
int bq_sweep_start(const bq_run *s, int phase, int block, int end);

/* Set s->latest, when all blocks are made, to the latest sweep that any rank sees.  Collective over world. */
void bq_sweep_results(bq_run *s);

#endif
