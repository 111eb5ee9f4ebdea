/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - the command line: `blockq COMMAND [OPTIONS]`.
 *
 * Argp's parsers and all help texts come from the tables of options_table.c.  To add an option: a field of
 * bq_args and a row.  An option never changes the result's bytes: what does is in the recipe, and `--set`
 * changes the recipe. */
#ifndef BQ_OPTIONS_H
#define BQ_OPTIONS_H

#include "driver/recipe/args.h"

#include <stdio.h>

/* Fill args, complete and checked.  BQ_OK, or BQ_USAGE after one message and a hint (rank 0 prints).  Help
 * and version go to standard output, and then args->command is BQ_COMMAND_NONE.  Needs no MPI. */
int bq_options_parse(int argc, char **argv, bq_args *args);

/* `blockq COMMAND --help`; BQ_COMMAND_NONE: `blockq --help`. */
void bq_options_help(bq_command command, FILE *out);

/* The same of all commands as a manual page (roff), and as completion for bash. */
void bq_options_man(FILE *out);
void bq_options_completion(FILE *out);
/* The sections of `help recipe` whose heading has the word ("gptq", "kv"); false: none has. */
bool bq_options_recipe(FILE *out, const char *word);
extern const char bq_exit_codes[];

/* Sets of commands. */
enum { RUN = 1 << BQ_COMMAND_RUN, PLAN = 1 << BQ_COMMAND_PLAN, EVAL = 1 << BQ_COMMAND_EVAL };
enum { SWEEP = 1 << BQ_COMMAND_SWEEP, REPORT = 1 << BQ_COMMAND_REPORT };
enum { CLEAN = 1 << BQ_COMMAND_CLEAN };
enum { EXPORT = 1 << BQ_COMMAND_EXPORT, TOKENS = 1 << BQ_COMMAND_TOKENS, STATUS = 1 << BQ_COMMAND_STATUS };
enum {
    INSPECT = 1 << BQ_COMMAND_INSPECT,
    IMPORT = 1 << BQ_COMMAND_IMPORT,
    COMPARE = 1 << BQ_COMMAND_COMPARE,
    GENERATE = 1 << BQ_COMMAND_GENERATE
};
enum { COMPUTE = RUN | SWEEP | PLAN | EVAL | COMPARE | GENERATE };
enum { ALL = COMPUTE | EXPORT | IMPORT | INSPECT | TOKENS | STATUS | REPORT | CLEAN };

typedef enum {
    FLAG,
    INT,
    I64,
    BYTES,
    SECONDS,
    REAL,
    TEXT,
    OUT,
    FORMAT,
    TYPE,
    DEVICE,
    ACTS,
    SET,
    VARY,
    EVALUATION,
    PROMPT
} bq_option_kind;

typedef struct {
    const char *name; /* NULL ends the table */
    char letter;      /* 0: none */
    const char *arg;  /* NULL: a flag */
    bq_option_kind kind;
    size_t at; /* in bq_args */
    double min, max;
    int commands;
    const char *help;
} bq_option;

typedef struct {
    const char *name, *args;
    int low, high; /* how many arguments */
    const char *brief, *about, *example;
} bq_command_text;

enum { BQ_OPTIONS = 64 }; /* room, and the end */
enum { BQ_THREADS_MAX = 4096 };
extern const bq_option bq_options[BQ_OPTIONS];
extern const bq_command_text bq_commands[BQ_COMMANDS];

#endif
