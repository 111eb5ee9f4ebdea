/* SPDX-License-Identifier: Apache-2.0 */
/* args.h - what the command line says, checked: options.h fills it. */
#ifndef BQ_ARGS_H
#define BQ_ARGS_H

#include "base/key.h"
#include "driver/eval/eval.h"

#include <stdint.h>

#define BQ_VERSION "0.1.0" /* as in CMakeLists.txt */
#define BQ_SETS    64
#define BQ_PROMPTS 16
#define BQ_VARIED  4

typedef enum {
    BQ_COMMAND_NONE, /* help or version was printed: nothing to do */
    BQ_COMMAND_RUN,
    BQ_COMMAND_PLAN,
    BQ_COMMAND_SWEEP,
    BQ_COMMAND_EVAL,
    BQ_COMMAND_GENERATE,
    BQ_COMMAND_EXPORT,
    BQ_COMMAND_IMPORT,
    BQ_COMMAND_COMPARE,
    BQ_COMMAND_INSPECT, /* from here on: one process, without MPI */
    BQ_COMMAND_TOKENS,
    BQ_COMMAND_STATUS,
    BQ_COMMAND_REPORT,
    BQ_COMMAND_CLEAN,
    BQ_COMMANDS
} bq_command;

/* Who reads and writes acts/ of the run directory: each rank its samples; rank 0, and the others have files
 * in scratch; each rank its samples through MPI-IO. */
typedef enum { BQ_ACTS_BY_ALL, BQ_ACTS_BY_ROOT, BQ_ACTS_BY_MPI } bq_acts_by;

/* Pointers are into argv, or NULL: the option was not given. */
typedef struct {
    bq_command command;
    int nfile;
    char **file; /* run, plan, generate, inspect, status: one path; sweep: recipes; import: model, directory;
                    compare: two paths; tokens: texts */
    /* run, plan */
    const char *preset; /* a recipe of named.h in the place of a file; else NULL */
    int nset;
    char *set[BQ_SETS];        /* "key=value", for bq_recipe_read */
    bool no_eval, result_only; /* result_only: run, and eval of a run: evaluate only the result */
    int stages;                /* of the grid; 0: chosen */
    int64_t micro;             /* samples of a micro-batch; 0: chosen */
    double save_every;         /* seconds between states inside a block; 0: only on a stop */
    int stop_after;            /* --stop-after-blocks: end with BQ_STOPPED after so many blocks; 0: never */
    char out[BQ_PATH_MAX];     /* sweep, run ("<recipe name>.run" if not given), export, tokens */
    /* run, plan, eval */
    int threads;        /* 0: the environment's */
    const char *device; /* kernels/ops.h; without a number: by the rank on the node */
    int64_t timeout;    /* seconds of silence that mean a rank is dead; 0: never */
    size_t memory;      /* bytes this process may use; 0: what the system gives */
    const char *scratch;
    const char *model_copy; /* run, plan: where to read the recipe's model; NULL: there */
    const char *reference;  /* run: a folder for the FP stream, which runs share; NULL: the run's */
    bool split_reference;
    bq_acts_by acts;
    /* plan */
    int ranks; /* forecast up to so many; 0: as far as more ranks help */
    const char *gpu, *network, *files;
    int node; /* ranks of a node; 0: the default */
    /* sweep */
    int groups; /* of ranks; 0: chosen */
    int nvary;
    char *vary[BQ_VARIED]; /* "key=value,value" */
    /* eval, compare, generate, export */
    const char *model, *run, *tokens; /* eval, generate: exactly one of model and run */
    int64_t ctx, windows, offset;     /* windows 0: all */
    int neval;
    char *eval[BQ_EVALS]; /* eval: "KIND:FILE,...", for bq_recipe_evaluate */
    int rtn;              /* 0, or also evaluate round to nearest with this many bits */
    /* generate */
    int nprompt;
    char *prompt[BQ_PROMPTS]; /* "1,2,3" */
    int64_t count, seed;
    int top_k;          /* 0: all */
    double temperature; /* 0: the most likely token */
    /* export, import */
    const char *format;        /* export: "NAME:KEY=VALUE,...", for bq_recipe_export; else NULL */
    size_t shard;              /* export, import: bytes of tensors in a file */
    const char *type;          /* import: bq_import_format */
    const char *tokenizer;     /* tokens: a tokenizer.json, or its folder */
    bool no_tokenizer;         /* import */
    bool watch;                /* status */
    bool dry_run;              /* clean */
    bool verbose, bytes, json; /* all; tokens; status, compare */
} bq_args;

#endif
