/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_header.h - the header of a GGUF file, checked: its keys with their values, and its tensors.
 *
 * The file: "GGUF", u32 version, u64 tensors, u64 keys, each key with its value, what each tensor is,
 * and from the next multiple of general.alignment on the tensors' data; all little-endian.  Refused: a
 * version other than 2 and 3; more than the limits below; a count, length or size that the file is too
 * short for; an unknown type of a value or a tensor (gguf_blocks.h); a list of lists; an empty name, or
 * one with a zero byte; a duplicate key; an alignment that is no power of two up to 65536; a size of 0,
 * sizes whose product overflows, a row that is no whole number of blocks; a place that is no multiple of
 * the alignment; data that overlap or lie beyond the end of the file.  Holes are fine.
 *
 * Memory: the bytes of the header, and a small struct for each key and each tensor.  Values stay as they
 * are stored until gguf_keys.h reads them, so a list of 256,000 texts costs nothing.  All calls are local. */
#ifndef BQ_GGUF_HEADER_H
#define BQ_GGUF_HEADER_H

#include "io/in/safetensors.h"

#define BQ_GGUF_DIMS    4
#define BQ_GGUF_KEYS    65536   /* most keys */
#define BQ_GGUF_TENSORS 1000000 /* most tensors */
#define BQ_GGUF_NAME    1023    /* most bytes of a name of a key or a tensor */

/* The types of values, as the file has them. */
enum {
    BQ_GGUF_U8,
    BQ_GGUF_I8,
    BQ_GGUF_U16,
    BQ_GGUF_I16,
    BQ_GGUF_U32,
    BQ_GGUF_I32,
    BQ_GGUF_F32,
    BQ_GGUF_BOOL,
    BQ_GGUF_TEXT,
    BQ_GGUF_LIST,
    BQ_GGUF_U64,
    BQ_GGUF_I64,
    BQ_GGUF_F64
};

typedef struct {
    const char *key;
    bool list;
    uint32_t type;       /* of the value; of a list: of its items; never BQ_GGUF_LIST */
    uint64_t count;      /* of items; 1 for a value that is no list */
    const uint8_t *data; /* the items as stored; a text is a u64 with its bytes, then these */
} bq_gguf_value;

typedef struct {
    uint8_t *bytes;       /* of the file up to the tensors' data: owns all names and values */
    bq_gguf_value *value; /* in order of their keys */
    bq_tensor *tensor;    /* in order of their bytes.  dtype is the type's name of gguf_blocks.h; shape as in
                             safetensors: the last size is of the row, which the file has first */
    int values, tensors;
    size_t file_bytes;
} bq_gguf_header;

/* BQ_OK, and the caller closes; or BQ_DATA after one message, and *h is empty.  fd stays the caller's, and
 * must be of a regular file; its position does not matter. */
int bq_gguf_header_read(bq_gguf_header *h, int fd, const char *path);
void bq_gguf_header_close(bq_gguf_header *h);

const bq_gguf_value *bq_gguf_value_of(const bq_gguf_header *h, const char *key); /* NULL when absent */
/* Bytes of a value or an item of this type; 0 for a text, and for what is no type of one value. */
size_t bq_gguf_value_bytes(uint32_t type);
/* A number of 1 to 8 bytes, little-endian, without sign. */
uint64_t bq_gguf_number(const uint8_t *at, size_t bytes);

#endif
