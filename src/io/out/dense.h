/* SPDX-License-Identifier: Apache-2.0 */
/* dense.h - tensors as floats of one type, for formats of plain weights (dense.c).  Local to io/out. */
#ifndef BQ_OUT_DENSE_H
#define BQ_OUT_DENSE_H

#include "io/out/format.h"

/* What a format with `replaced` needs as plan, write and edit.  A float tensor becomes one out of dtype,
 * which is F32, BF16 or F16; others stay as they are.  A quantized one is exactly (code - zero) * scale,
 * times pre if there is one, before it is rounded to dtype.  A value too large for dtype ends the job. */
int bq_dense_plan(bq_export_job *job, int item, const char *dtype);
void bq_dense_write(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w);
void bq_dense_edit(json_t *config, const char *dtype);

#endif
