/* SPDX-License-Identifier: Apache-2.0 */
/* account.h - run.csv (docs/files.md): a row for each block, and one for each rank and part of the run. */
#ifndef BQ_ACCOUNT_H
#define BQ_ACCOUNT_H

#include "driver/run/walk.h"

/* open: make the file, on rank 0.  part: add a row of this rank, for the time since its last such row.
 * Local. */
void bq_account_open(const bq_run *s);
void bq_account_part(bq_run *s, const char *part, int sweep, int phase);

/* The work on the current block took so many seconds: make its row and its line of the log.  settled: its
 * checkpoint is on disk, add them.  Local. */
void bq_account_block(bq_walk *w, double seconds);
void bq_account_settled(bq_walk *w);

#endif
