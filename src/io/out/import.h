/* SPDX-License-Identifier: Apache-2.0 */
/* import.h - write an open model as a directory of safetensors: an export without results, in one type. */
#ifndef BQ_IMPORT_H
#define BQ_IMPORT_H

#include "io/out/export.h"

/* The format for a type of --type: f32, bf16 or f16; NULL: the types that the source's tensors have
 * (weights.h), which lose nothing.  NULL if there is no such type. */
const bq_format *bq_import_format(const char *type);

/* Read all values.  BQ_OK, or BQ_DATA after one message: a value is NaN, infinite, or beyond the range of the
 * format's type. */
int bq_import_check(const bq_weights *src, const bq_format *format);

/* As bq_export_open.  beside: of bq_weights_beside; the job takes it over, also where it is refused. */
int bq_import_open(bq_export_job **job, const bq_weights *src, const char *out_dir, const bq_format *format,
                   json_t *beside, size_t shard_bytes);

#endif
