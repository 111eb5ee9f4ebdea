/* SPDX-License-Identifier: Apache-2.0 */
/* reader.h - a thread reads and verifies samples of an activation file, in order, into a ring of buffers.
 *
 * It never calls MPI: a joined file (acts.h) is read by the caller's thread instead.  The file's handle
 * belongs to the reader from open to close.  All calls are local. */
#ifndef BQ_READER_H
#define BQ_READER_H

#include "io/state/acts.h"

typedef struct bq_reader bq_reader;

/* Read samples [first, first + count) of acts, `values` f32 each, through a ring of `depth` >= 2 samples.
 * Fault point reader_thread. */
bq_reader *bq_reader_open(bq_acts *acts, int64_t values, int64_t first, int64_t count, int depth);

/* Is the next sample there, or is none to come?  Waits for that, at most so many seconds, which count as
 * stalled.  True at once for a joined file. */
bool bq_reader_wait(bq_reader *r, double seconds);
/* Wait for the next sample; it is valid until the next call.  NULL: all are read; or the next one is absent
 * or damaged, and the reader has stopped. */
const float *bq_reader_next(bq_reader *r);

double bq_reader_stalled(const bq_reader *r); /* seconds for which the caller has waited */
void bq_reader_close(bq_reader *r);           /* also before the end; NULL is fine */

#endif
