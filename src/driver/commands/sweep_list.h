/* SPDX-License-Identifier: Apache-2.0 */
/* sweep_list.h - the runs of `blockq sweep`: every recipe with every combination of the --vary values, and
 * the table of what came out.  All calls are local. */
#ifndef BQ_SWEEP_LIST_H
#define BQ_SWEEP_LIST_H

#include "driver/commands/commands.h"

#define BQ_SWEEP_NAME 200 /* bytes of a run's name, with the closing 0 */

typedef struct {
    char name[BQ_SWEEP_NAME]; /* the recipe's, and the varied keys: "gptq,seed=1" */
    char *recipe;             /* of args */
    char *set[BQ_VARIED];     /* KEY=VALUE, one for each --vary; owned by the list */
    double code;              /* its exit code, if it was run here */
    bq_run_facts facts;       /* with code 0 */
} bq_sweep_run;

typedef struct {
    int count;
    bq_sweep_run *at;
} bq_sweep_list;

/* Fill the list.  BQ_OK; or BQ_USAGE after one message: a --vary without a value, two runs of one name, a
 * name that is too long, more than 4096 runs.  close is due in any case. */
int bq_sweep_list_open(bq_sweep_list *list, const bq_args *args);
void bq_sweep_list_close(bq_sweep_list *list);

/* Print the table, and write <dir>/sweep.csv and the page <dir>/sweep.html (report.h): a row a run, those
 * that are done by bits, then perplexity.  A star marks the runs that no other one beats in both (the
 * Pareto front). */
void bq_sweep_list_report(bq_sweep_list *list, const char *dir);

#endif
