/* options.h - the command line: `blockq COMMAND [OPTIONS]`.
 *
 * One table of options, one of commands; argp's parsers and all help texts come from them.  An option never
 * changes the result's bytes: what does is in the recipe (and `--set` changes the recipe). */
#ifndef BQ_OPTIONS_H
#define BQ_OPTIONS_H

#include "driver/recipe/args.h"

#include <stdio.h>

#define BQ_VERSION "0.1.0" /* as in CMakeLists.txt */

/* Fill args, complete and checked.  BQ_OK, or BQ_USAGE after one message and a hint (rank 0 prints).  Help
 * and version go to standard output, and then args->command is BQ_COMMAND_NONE.  Needs no MPI. */
int bq_options_parse(int argc, char **argv, bq_args *args);

/* `blockq COMMAND --help`; BQ_COMMAND_NONE: `blockq --help`. */
void bq_options_help(bq_command command, FILE *out);

#endif
