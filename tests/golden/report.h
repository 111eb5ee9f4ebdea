/* SPDX-License-Identifier: Apache-2.0 */
/* report.h - how far blockq is from a golden file: a table of quantities, each with its limit. */
#ifndef BQ_GOLDEN_REPORT_H
#define BQ_GOLDEN_REPORT_H

#include "golden/golden.h"

#include <stdio.h>

enum { GOLDEN_ROWS = 16 };

typedef struct {
    const char *what;
    double limit; /* of a deviation */
    double share; /* of all deviations that may be beyond it */
    bool counted; /* of codes and the like: the line says how many differ, not the worst deviation */
    int64_t compared, differ, beyond;
    double worst; /* infinite where a value is NaN */
    char at[120]; /* where */
} golden_row;

typedef struct {
    golden_row row[GOLDEN_ROWS];
    int rows;
    int left; /* cases of the file that blockq has no counterpart of */
} golden_report;

/* The row of this name, made where there is none. */
golden_row *golden_row_of(golden_report *r, const char *what, double limit, double share);
golden_row *golden_codes_of(golden_report *r, const char *what, double limit, double share);

/* One deviation, and the place that it is of. */
void golden_note(golden_row *row, double deviation, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* LARGEST: the largest |a - b| of the tensor over its largest |b|, one deviation a tensor.  The others
 * give one a value: RELATIVE: |a - b| / |b|, ABSOLUTE: |a - b|. */
typedef enum { GOLDEN_LARGEST, GOLDEN_RELATIVE, GOLDEN_ABSOLUTE } golden_measure;

/* Two host views of one shape, of types F32, F64, I8, U8 or I32. */
void golden_compare(golden_row *row, golden_measure measure, bq_mat have, bq_mat want, const char *at);

/* The largest |a - b| over the largest |b|. */
double golden_error(bq_mat have, bq_mat want);

/* A row about the tensors of the file that nothing was compared with, where there are any. */
void golden_unread(golden_report *r, const golden *g);

/* Something was compared, no value is NaN or infinite, and no more deviations are beyond the limit than
 * may be.  Of a row; of all rows. */
bool golden_row_fits(const golden_row *row);
bool golden_fits(const golden_report *r);

/* All rows in one line without its end. */
void golden_print(const golden_report *r, FILE *out);

#endif
