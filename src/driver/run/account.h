/* account.h - run.csv (docs/formats.md): a row a block, and a row a part of the run and rank. */
#ifndef BQ_ACCOUNT_H
#define BQ_ACCOUNT_H

#include "driver/run/walk.h"

/* Make the file, on rank 0; a row of this rank about the part of the run
 * that ends here and began where the last one ended.  Local. */
void bq_account_open(const bq_run *s);
void bq_account_part(bq_run *s, const char *part, int sweep, int phase);

/* The block at hand is done after `seconds`: its row, a line for people.  Local. */
void bq_account_block(const bq_walk *w, double seconds);

#endif
