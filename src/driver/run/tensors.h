/* SPDX-License-Identifier: Apache-2.0 */
/* tensors.h - the tensors of a finished run's result, by their names in the model: from its checkpoints, or
 * from the model as the run uses it. */
#ifndef BQ_RESULT_TENSORS_H
#define BQ_RESULT_TENSORS_H

#include "driver/streams/run.h"
#include "io/out/export.h"
#include "io/state/checkpoint.h"

/* One checkpoint is open at a time. */
typedef struct {
    const bq_run *s;
    bool folds; /* the recipe's passes change norms or biases */
    int block, unit;
    bq_ckpt_file *file;
    bq_ckpt head;
    int8_t *code; /* room for codes, scales, zero points and factors of the largest tensor; NULL: not yet */
    float *scale, *zero, *pre;
    bq_tensor_kind held; /* whose codes are there: BQ_TENSOR_EMBED, BQ_TENSOR_HEAD, or of another tensor */
} bq_result_tensors;

/* The result of s as an exporter reads it (export.h).  t and s must live as long as it is used.  Local. */
bq_qsource bq_result_tensors_of(bq_result_tensors *t, const bq_run *s);
void bq_result_tensors_close(bq_result_tensors *t); /* a zeroed one is fine */

#endif
