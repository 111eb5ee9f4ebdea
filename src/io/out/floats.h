/* SPDX-License-Identifier: Apache-2.0 */
/* floats.h - results of float elements as files have them: codes in bytes, scales in bytes, scales of tiles.
 * For the formats that know floats. */
#ifndef BQ_OUT_FLOATS_H
#define BQ_OUT_FLOATS_H

#include "io/out/format.h"

/* Bytes of a row of codes: of 8 bits a byte each, of 6 bits 4 codes in 3 bytes, of 4 bits 2 in a byte.  The
 * first code is in the lowest bits.  The columns must fill whole bytes. */
int64_t bq_float_row_bytes(int64_t cols, int bits);
/* Rows of scales in a file: one for each tile of rows. */
int64_t bq_float_scale_rows(const bq_qtensor *q);

/* Of item: BQ_OK, or BQ_DATA after one message if its columns do not fill whole bytes and groups. */
int bq_float_check(const bq_export_item *item);

/* For write: put the codes; the scales as bytes (F8_E4M3: their numbers times scheme.outer, F8_E8M0: their
 * exponents); the scales as F32, one for each tile. */
void bq_float_put_codes(bq_export_job *job, const bq_qtensor *q, bq_writer *w);
void bq_float_put_small(bq_export_job *job, const bq_qtensor *q, bq_writer *w);
void bq_float_put_scales(const bq_qtensor *q, bq_writer *w);

#endif
