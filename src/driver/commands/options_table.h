/* options_table.h - what every command takes, as tables; options.c works by them.
 *
 * To add an option: a field of bq_args and a row. */
#ifndef BQ_OPTIONS_TABLE_H
#define BQ_OPTIONS_TABLE_H

#include "driver/commands/options.h"

#include <stddef.h>

/* Sets of commands. */
enum { RUN = 1 << BQ_COMMAND_RUN, PLAN = 1 << BQ_COMMAND_PLAN, EVAL = 1 << BQ_COMMAND_EVAL };
enum { EXPORT = 1 << BQ_COMMAND_EXPORT, TOKENS = 1 << BQ_COMMAND_TOKENS, STATUS = 1 << BQ_COMMAND_STATUS };
enum { INSPECT = 1 << BQ_COMMAND_INSPECT };
enum { ALL = RUN | PLAN | EVAL | EXPORT | INSPECT | TOKENS | STATUS, COMPUTE = RUN | PLAN | EVAL };

typedef enum {
    FLAG,
    INT,
    I64,
    BYTES,
    SECONDS,
    TEXT,
    OUT,
    FORMAT,
    DEVICE,
    ACTS,
    SET,
    EVALUATION
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

enum { BQ_OPTIONS = 40 }; /* room, and the end */
enum { BQ_THREADS_MAX = 4096 };
extern const bq_option bq_options[BQ_OPTIONS];
extern const bq_command_text bq_commands[BQ_COMMANDS];

#endif
