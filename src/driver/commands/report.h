/* SPDX-License-Identifier: Apache-2.0 */
/* report.h - what `blockq report` knows of a run: the files of its directory, read as strangers' files.  All
 * calls are local. */
#ifndef BQ_REPORT_H
#define BQ_REPORT_H

#include "io/json.h"
#include "io/state/state.h"

#include <stdio.h>

/* Rows of run.csv. */
enum { BQ_REPORT_STEPS = 5 }; /* load, targets, passes, advance, save */
typedef struct {
    int sweep, phase, block;
    double seconds[BQ_REPORT_STEPS], wall; /* wall: without overlap of the checkpoint's writing */
    double first, last;                    /* losses of training; NaN: none */
} bq_report_block;
typedef struct {
    char name[16]; /* "reference", "phase", ... */
    double wall;   /* of rank 0, all its rows */
} bq_report_part;

typedef struct {
    const char *dir;
    json_t *recipe, *result, *origin, *summary; /* NULL: absent or damaged; summary: of its first output */
    bq_state_summary state;                     /* blocks 0: none */
    int blocks, parts;
    bq_report_block *block;
    bq_report_part part[16];
    double planned, peak; /* largest of all rows, bytes */
    int ranks;
} bq_report_run;

/* Read a run directory.  BQ_OK, and the caller closes; or BQ_USAGE after one message: it is none. */
int bq_report_read(bq_report_run *run, const char *dir);
void bq_report_close(bq_report_run *run);

/* The number of the first evaluation of: "fp", "rtn", or NULL: the result, whose key goes to *key; NaN: none.
 * bits: a weight, of the first output, or else of the recipe's scheme. */
double bq_report_value(const bq_report_run *run, const char *of, const char **key);
double bq_report_bits(const bq_report_run *run);

/* The page of these runs: HTML that needs no other file.  Texts are escaped. */
void bq_report_page(FILE *out, const bq_report_run *run, int count);

#endif
