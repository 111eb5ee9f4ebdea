/* reader.h - samples of an activation file, read ahead by a thread.
 *
 * One thread reads and verifies samples in order into a ring of buffers while the caller computes; it does
 * nothing else, and sends no message.  A joined file (acts.h) is read by the caller's thread instead, which
 * alone talks MPI.  The file handle is the reader's from open to close. */
#ifndef BQ_READER_H
#define BQ_READER_H

#include "io/state/acts.h"

typedef struct bq_reader bq_reader;

/* Samples [first, first + count) of acts, `values` f32 each, in a ring of `depth` >= 2.  Local. */
bq_reader *bq_reader_open(bq_acts *acts, int64_t values, int64_t first, int64_t count, int depth);

/* Is the next sample there?  Waits for it, at most so many seconds, which count as stalled. */
bool bq_reader_wait(bq_reader *r, double seconds);
/* The next sample, waited for; valid until the call after.  NULL: it is absent or
 * damaged, and the reader has stopped there. */
const float *bq_reader_next(bq_reader *r);

double bq_reader_stalled(const bq_reader *r); /* seconds that the caller has waited */
void bq_reader_close(bq_reader *r);           /* before the end, too; NULL is fine */

#endif
