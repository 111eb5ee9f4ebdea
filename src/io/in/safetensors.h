/* safetensors.h - what one safetensors file holds, checked.
 *
 * u64 length n (little-endian), n bytes of JSON, data.  Refused: n beyond 100,000,000 or the file, text that
 * is not UTF-8 JSON, duplicate names, unknown dtypes, shapes whose bytes do not equal the range, holes,
 * overlaps, bytes after the last tensor.  Tensors may start at any address: never cast, copy. */
#ifndef BQ_SAFETENSORS_H
#define BQ_SAFETENSORS_H

#include "base/mat.h"

#include <jansson.h>

#define BQ_TENSOR_DIMS  8
#define BQ_HEADER_MAX   ((size_t)100000000)
#define BQ_INDEX_MAX    ((size_t)100000000)
#define BQ_METADATA_KEY "__metadata__"

typedef struct {
    const char *name;  /* owned by whoever listed it */
    const char *dtype; /* "F32", "BF16", ...: static text */
    int dims;
    int64_t shape[BQ_TENSOR_DIMS];
    int file;      /* which shard, from 0 in order of file name */
    size_t offset; /* of the first byte in the file */
    size_t bytes;
} bq_tensor;

/* The format's own spelling of a dtype as static text, and its bits an element; NULL and 0 when unknown. */
const char *bq_dtype_name(const char *dtype);
int bq_dtype_bits(const char *dtype);
/* F32, F16 and BF16 as a bq_type; false for all others. */
bool bq_dtype_float(const char *dtype, bq_type *type);

/* Elements; 1 for a scalar. */
int64_t bq_tensor_count(const bq_tensor *t);

/* One file's tensors, in order of their bytes. */
typedef struct {
    bq_tensor *at;
    int count;
    size_t bytes;   /* of the file */
    json_t *header; /* owns the names */
} bq_safetensors;

/* BQ_OK, or BQ_DATA after one message; *s is then empty.  fd is read at its start and stays the caller's. */
int bq_safetensors_read(bq_safetensors *s, int fd, const char *path);
/* The same from the JSON alone: header text and the whole file's size (at least 8 + bytes). */
int bq_safetensors_parse(bq_safetensors *s, const char *path, const char *text, size_t bytes,
                         size_t file_bytes);
void bq_safetensors_close(bq_safetensors *s);
/* A value of __metadata__, or NULL. */
const char *bq_safetensors_metadata(const bq_safetensors *s, const char *key);

/* model.safetensors.index.json: *map is its weight_map, name to file name, every file name plain (no '/', no
 * "..", no leading dot) and ending in ".safetensors".  BQ_OK (json_decref(*map)) or BQ_DATA after one
 * message. */
int bq_index_parse(const char *path, const char *text, size_t bytes, json_t **map);

#endif
