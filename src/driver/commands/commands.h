/* commands.h - one function a command, each in the file of its name.
 *
 * args is complete and checked (options.h).  Each returns the exit code (base/die.h), the same on all ranks,
 * after its own message.  Rank 0 prints results to standard output. */
#ifndef BQ_COMMANDS_H
#define BQ_COMMANDS_H

#include "comm/comm.h"
#include "driver/recipe/args.h"

/* With MPI.  Collective over world. */
int bq_cmd_run(const bq_args *args, bq_comm *comm);
int bq_cmd_plan(const bq_args *args, bq_comm *comm);
int bq_cmd_eval(const bq_args *args, bq_comm *comm);
int bq_cmd_export(const bq_args *args, bq_comm *comm);
int bq_cmd_import(const bq_args *args, bq_comm *comm);

/* One process without MPI: comm has size 1, nothing collective may be called. */
int bq_cmd_inspect(const bq_args *args, bq_comm *comm);
int bq_cmd_tokens(const bq_args *args, bq_comm *comm);
int bq_cmd_status(const bq_args *args, bq_comm *comm);

#endif
