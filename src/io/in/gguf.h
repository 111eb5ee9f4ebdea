/* SPDX-License-Identifier: Apache-2.0 */
/* gguf.h - an open GGUF model: one file, or the parts NAME-00001-of-00003.gguf ... of one.
 *
 * Opening checks all headers (gguf_header.h).  Bad input (BQ_DATA) is also: a part other than the first is
 * named, a part is missing, or is not the one that its name says; a tensor is there twice; tensors are
 * missing.  A read that fails after that ends the job.  Several threads may read at a time.  All calls are
 * local. */
#ifndef BQ_GGUF_H
#define BQ_GGUF_H

#include "io/in/gguf_keys.h"

#define BQ_GGUF_PARTS 450 /* most parts: a model has two descriptors of each, and 1024 is the usual limit */

typedef struct bq_gguf bq_gguf;

/* path: the file, or its first part.  BQ_OK, and the caller closes; or BQ_DATA after one message, and *g is
 * NULL. */
int bq_gguf_open(bq_gguf **g, const char *path);
void bq_gguf_close(bq_gguf *g); /* NULL is fine */

/* The keys, of the first part; k->status is BQ_OK. */
bq_gguf_keys bq_gguf_keys_of(const bq_gguf *g);

/* Tensors in order of file, then offset.  They and their names are valid until close. */
int bq_gguf_count(const bq_gguf *g);
const bq_tensor *bq_gguf_at(const bq_gguf *g, int i);
const bq_tensor *bq_gguf_find(const bq_gguf *g, const char *name); /* NULL when absent */

/* Parts: their number, their names without the directory, their sizes, their descriptors, which g closes. */
int bq_gguf_files(const bq_gguf *g);
const char *bq_gguf_file(const bq_gguf *g, int file, size_t *bytes);
int bq_gguf_fd(const bq_gguf *g, int file);
const char *bq_gguf_dir(const bq_gguf *g);

/* Rows and columns of a tensor: the last size is of a row, all others together are the rows. */
int64_t bq_gguf_rows(const bq_tensor *t);
int64_t bq_gguf_cols(const bq_tensor *t);

/* Decode rows [first, first + rows) to f32.
 *   to   (rows, columns of t) f32 in host memory, ld >= cols
 * Fault point: weights_read (in all reads of tensors). */
void bq_gguf_read(const bq_gguf *g, const bq_tensor *t, int64_t first, int64_t rows, bq_mat to);
/* Read bytes [from, from + bytes) of a tensor as stored. */
void bq_gguf_read_raw(const bq_gguf *g, const bq_tensor *t, size_t from, void *to, size_t bytes);

#endif
