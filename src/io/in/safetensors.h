/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.h - the header of a safetensors file, checked.
 *
 * The file: u64 n (little-endian), n bytes of JSON, the tensors' data.  Refused: n above 100,000,000 or
 * beyond the file; text that is not a JSON object in UTF-8; a duplicate name; an unknown dtype; more than 8
 * dimensions; a shape that does not fill its range of bytes; holes, overlaps, bytes behind the last tensor.
 * Data may be misaligned in the file: copy them, never cast.  All calls are local. */
#ifndef BQ_SAFETENSORS_H
#define BQ_SAFETENSORS_H

#include "base/mat.h"

#include <jansson.h>

#define BQ_TENSOR_DIMS  8
#define BQ_HEADER_MAX   ((size_t)100000000)
#define BQ_INDEX_MAX    ((size_t)100000000)
#define BQ_METADATA_KEY "__metadata__"

typedef struct {
    const char *name;  /* owned by the list that the tensor is in */
    const char *dtype; /* the format's name: "F32", "BF16", ...; static */
    int dims;
    int64_t shape[BQ_TENSOR_DIMS];
    int file;      /* number of its shard, in order of the files' names */
    size_t offset; /* of its first byte in the file */
    size_t bytes;
} bq_tensor;

/* The format's name of a dtype as static text, and the bits of an element; NULL and 0 if it is unknown. */
const char *bq_dtype_name(const char *dtype);
int bq_dtype_bits(const char *dtype);
/* F32, F16 and BF16 as a bq_type; false for all others. */
bool bq_dtype_float(const char *dtype, bq_type *type);

/* Number of elements; 1 for a scalar. */
int64_t bq_tensor_count(const bq_tensor *t);

/* Sort a list of tensors by name; then find one in it, NULL if it is not there. */
void bq_tensors_sort(const bq_tensor **by_name, int count);
const bq_tensor *bq_tensors_find(const bq_tensor *const *by_name, int count, const char *name);

/* The tensors of one file, in order of their bytes. */
typedef struct {
    bq_tensor *at;
    int count;
    size_t bytes;   /* of the file */
    json_t *header; /* owns the names */
} bq_safetensors;

/* Read the header.  BQ_OK, and the caller closes; or BQ_DATA after one message, and *s is empty.  fd stays
 * the caller's; its position does not matter. */
int bq_safetensors_read(bq_safetensors *s, int fd, const char *path);
/* The same from the text of the header; file_bytes: size of the whole file, at least 8 + bytes. */
int bq_safetensors_parse(bq_safetensors *s, const char *path, const char *text, size_t bytes,
                         size_t file_bytes);
void bq_safetensors_close(bq_safetensors *s);

/* Parse model.safetensors.index.json: *map is its weight_map, from a tensor's name to its file's.  Every
 * file name is plain (no '/', no leading dot) and ends in ".safetensors".  BQ_OK, and *map is the caller's
 * (json_decref); or BQ_DATA after one message. */
int bq_index_parse(const char *path, const char *text, size_t bytes, json_t **map);

#endif
