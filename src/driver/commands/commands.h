/* SPDX-License-Identifier: Apache-2.0 */
/* commands.h - one function a command, each in the file of its name.
 *
 * args is complete and checked (options.h).  Each returns the exit code (base/die.h), the same on all ranks,
 * after its own message.  Rank 0 prints results to standard output. */
#ifndef BQ_COMMANDS_H
#define BQ_COMMANDS_H

#include "comm/comm.h"
#include "driver/recipe/args.h"

/* With MPI.  Collective over world; of `compare` only evaluations are shared by the ranks. */
int bq_cmd_compare(const bq_args *args, bq_comm *comm);
int bq_cmd_run(const bq_args *args, bq_comm *comm);
int bq_cmd_sweep(const bq_args *args, bq_comm *comm);
int bq_cmd_plan(const bq_args *args, bq_comm *comm);
int bq_cmd_eval(const bq_args *args, bq_comm *comm);
int bq_cmd_generate(const bq_args *args, bq_comm *comm);
int bq_cmd_export(const bq_args *args, bq_comm *comm);
int bq_cmd_import(const bq_args *args, bq_comm *comm);

/* `run`, and what is known at its end; facts only with BQ_OK.  Collective over world. */
typedef struct {
    double bits, seconds, planned, peak; /* a weight; of the passes, all starts; bytes of rank 0 */
    double value[3]; /* of the first evaluation: the model, round to nearest, the result; or NaN */
} bq_run_facts;
int bq_run_whole(const bq_args *args, bq_comm *comm, bq_run_facts *facts);

/* The perplexity of args->tokens that `eval` would print of args->run, or else of args->model; windows: over
 * so many.  Prints nothing but messages.  Returns as bq_score_run.  Collective over world. */
int bq_eval_perplexity(const bq_args *args, bq_comm *comm, double *value, int64_t *windows);

/* One process without MPI: comm has size 1, nothing collective may be called. */
int bq_cmd_inspect(const bq_args *args, bq_comm *comm);
int bq_cmd_tokens(const bq_args *args, bq_comm *comm);
int bq_cmd_status(const bq_args *args, bq_comm *comm);
int bq_cmd_report(const bq_args *args, bq_comm *comm);
int bq_cmd_clean(const bq_args *args, bq_comm *comm);

#endif
