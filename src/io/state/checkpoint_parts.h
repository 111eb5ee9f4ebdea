/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint_parts.h - what reading (checkpoint.c) and writing (checkpoint_write.c) of a checkpoint share. */
#ifndef BQ_CHECKPOINT_PARTS_H
#define BQ_CHECKPOINT_PARTS_H

#include "io/state/checkpoint.h"

#define BQ_CKPT_STEPS ((int64_t)1 << 32) /* the most losses */

/* Version 1 had codes as bytes, and always the weights before rounding; it is read, too. */
enum { BQ_CKPT_VERSION = 2, BQ_CKPT_PARTS = BQ_CKPT_OUTER + 1 };

/* Where the data of each part are in a file. */
typedef struct {
    int64_t part[BQ_MAX_LINEAR][BQ_CKPT_PARTS], norm[BQ_CKPT_NORMS], loss;
} bq_ckpt_offsets;

extern const char bq_ckpt_format[];
extern const char *const bq_ckpt_part_name[BQ_CKPT_PARTS], *const bq_ckpt_norm_name[BQ_CKPT_NORMS];
extern const bq_type bq_ckpt_part_type[BQ_CKPT_PARTS];

bq_mat *bq_ckpt_part_of(bq_ckpt_linear *l, int part);

/* What of a linear, or of the block without its linears, breaks the rules of checkpoint.h; NULL: nothing. */
const char *bq_ckpt_fault(const bq_ckpt_linear *l);
const char *bq_ckpt_fault_of_block(const bq_ckpt *c);

void bq_ckpt_put_scheme(bq_h5 *h, bq_scheme s);

/* How many rows of so many bytes are moved at a time. */
static inline int64_t bq_ckpt_chunk(int64_t bytes) { return bytes < 1 << 18 ? (1 << 18) / bytes : 1; }

#endif
