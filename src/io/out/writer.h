/* SPDX-License-Identifier: Apache-2.0 */
/* writer.h - write files of tensors as a stream; equal input gives equal bytes.
 *
 * Plan, add all tensors, open, put their bytes in file order, close.  The file gets its name when it is
 * whole and on disk; until then it is "<path>.<pid>.tmp".  A failing disk ends the job.  All calls are
 * local.  Fault points: writer_write, writer_close. */
#ifndef BQ_WRITER_H
#define BQ_WRITER_H

#include "base/hash.h"
#include "io/in/safetensors.h"

#define BQ_WRITER_PRODUCER "blockq" /* of __metadata__, which is {"format":"pt","producer":"blockq"} */

/* A kind of file: a header, then the tensors' data. */
typedef struct {
    const char *suffix; /* of the file's name */
    size_t align;       /* of each tensor in the data; the last one is filled up, too */
    /* The type's name as static text, NULL: unknown; bytes of a tensor, whose shape fills whole bytes. */
    const char *(*dtype)(const char *name);
    size_t (*bytes)(const bq_tensor *t);
    /* The order in the file; NULL: as they were added. */
    int (*order)(const void *a, const void *b);
    /* The bytes up to the data, which the caller frees.  Offsets of `at` are those in the data. */
    char *(*header)(const void *ctx, const bq_tensor *at, int count, size_t *bytes);
} bq_container;

/* Wider dtypes first, then by name.  The data start at a multiple of 8, so each tensor is aligned to its
 * type. */
extern const bq_container bq_container_safetensors;

typedef struct bq_writer bq_writer;

bq_writer *bq_writer_plan(void); /* safetensors */
/* ctx: for the header; valid until open */
bq_writer *bq_writer_plan_as(const bq_container *container, const void *ctx);
/* Add a tensor.  Name and shape are copied.  An unknown dtype or a name that is there already is a bug and
 * ends the job. */
void bq_writer_add(bq_writer *w, const char *name, const char *dtype, int dims, const int64_t *shape);

/* Put the tensors in order, create the temporary file and write the header.  Then `at` is in file order, with
 * offsets. */
void bq_writer_open(bq_writer *w, const char *path);
int bq_writer_count(const bq_writer *w);
const bq_tensor *bq_writer_at(const bq_writer *w, int i);
/* Put the next bytes of the data, in portions of any size.  More than planned ends the job. */
void bq_writer_put(bq_writer *w, const void *data, size_t bytes);
/* fsync, rename, fsync the directory; free w.  Returns the file's hashes; missing bytes end the job.
 * drop: give up, remove the temporary file, free w; NULL is fine. */
bq_file_hash bq_writer_close(bq_writer *w);
void bq_writer_drop(bq_writer *w);

/* Write model.safetensors.index.json, whole or not at all.  map: tensor to file, freed here; total: bytes of
 * all tensors.  Ends the job when the disk fails. */
void bq_index_write(const char *path, size_t total, json_t *map);

#endif
