/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_blocks.h - how GGUF stores values: a row of a tensor is a whole number of blocks, and a block of a
 * type has a fixed number of elements in a fixed number of bytes.
 *
 * Decoders use f32, products in the order of ggml's reference code, so they give the same bits as the
 * Python package gguf.  They keep no state: several threads may call them at a time. */
#ifndef BQ_GGUF_BLOCKS_H
#define BQ_GGUF_BLOCKS_H

#include <stdint.h>

typedef struct {
    const char *name;    /* "Q4_K" */
    uint32_t number;     /* what the file calls it */
    int elements, bytes; /* of a block */
    /* Blocks one after the other, of any alignment, to elements x blocks values. */
    void (*decode)(const uint8_t *block, int64_t blocks, float *to);
} bq_gguf_type;

/* Row i of the table, NULL behind the last; the row of a number or a name, NULL where there is none: the
 * types of 1, 2 and 3 bits with a codebook, the integers, F64, and what is newer. */
const bq_gguf_type *bq_gguf_type_at(int i);
const bq_gguf_type *bq_gguf_type_of(uint32_t number);
const bq_gguf_type *bq_gguf_type_named(const char *name);

#endif
