/* account.h - run.csv (docs/files.md): a row for each block, and one for each rank and part of the run. */
#ifndef BQ_ACCOUNT_H
#define BQ_ACCOUNT_H

#include "driver/run/walk.h"

/* open: make the file, on rank 0.  part: add a row of this rank, for the time since its last such row.
 * Local. */
void bq_account_open(const bq_run *s);
void bq_account_part(bq_run *s, const char *part, int sweep, int phase);

/* The current block is done, after `seconds`: add its row, and log a line.  Local. */
void bq_account_block(const bq_walk *w, double seconds);

#endif
