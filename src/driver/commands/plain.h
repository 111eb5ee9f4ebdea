/* SPDX-License-Identifier: Apache-2.0 */
/* plain.h - a model without a run, open for what `eval` and `generate` compute of it. */
#ifndef BQ_PLAIN_H
#define BQ_PLAIN_H

#include "driver/score/score.h"

typedef struct {
    const bq_args *args;
    const bq_comm *comm;
    bq_source model;
    bq_recipe recipe; /* only its evaluations are used */
    bq_evals evals;
    bq_layouts layouts; /* with the schemes of args->rtn */
    bq_dev dev;
    bq_home home;
} bq_plain;

/* args and comm are set.  Reads all weights once, to find NaN and Inf.  BQ_OK, or the exit code after one
 * message; close is due in any case.  Collective over world. */
int bq_plain_open(bq_plain *p);
void bq_plain_close(bq_plain *p);

/* For evaluations of its own weights. */
bq_score bq_plain_score(bq_plain *p);

#endif
