/* SPDX-License-Identifier: Apache-2.0 */
/* side.h - one side of `blockq compare`: a model of any kind that blockq reads, or the result of a finished
 * run; its tensors as values. */
#ifndef BQ_SIDE_H
#define BQ_SIDE_H

#include "driver/run/tensors.h"

typedef struct {
    const char *path;
    bool is_run;
    bq_args args; /* of this side alone */
    bq_run run;
    bq_source model;
    const bq_source *src; /* of the run, or the model */
    bq_result_tensors result;
    bq_qsource of_run;
    const char **name; /* of its tensors, in order: layers.2 before layers.10 */
    int names;
    /* the tensor that was taken last */
    bq_tensor t;
    int64_t rows, cols;
    bool floats; /* its values can be read */
    bool coded;  /* q has its codes; only of runs */
    bq_qtensor q;
} bq_side;

/* Open a model or a finished run.  BQ_OK, or the exit code after one message; close is due in any case.
 * Collective over world. */
int bq_side_open(bq_side *s, const char *path, const bq_args *args, bq_comm *comm);
void bq_side_close(bq_side *s);

/* Take a tensor of the list, with all codes where there are some.  A vector is one row, a tensor of more than
 * two dimensions has the first as rows.  Local. */
void bq_side_take(bq_side *s, const char *name);
/* Its rows [first, first + to.rows), host f32. */
void bq_side_read(bq_side *s, int64_t first, bq_mat to);
/* Bits that are stored for it, with scales and zero points. */
double bq_side_bits(const bq_side *s);

#endif
