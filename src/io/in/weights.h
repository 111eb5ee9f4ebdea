/* weights.h - an open model directory: model.safetensors, or the shards its index names.
 *
 * Opening checks all headers (safetensors.h) and the index against them: a duplicate tensor, a missing or
 * truncated shard, an entry outside the directory, a tensor the index has elsewhere or not at all is bad
 * input.  What was open and can no longer be read is a broken environment and dies.  Reads may come from
 * several threads at once. */
#ifndef BQ_WEIGHTS_H
#define BQ_WEIGHTS_H

#include "io/in/safetensors.h"

typedef struct bq_weights bq_weights;

/* BQ_OK, or BQ_DATA after one message; *w is then NULL. */
int bq_weights_open(bq_weights **w, const char *dir);
/* One safetensors file of any name, for golden data. */
int bq_weights_open_file(bq_weights **w, const char *path);
/* Procedural weights (procedural.h) of the tensors that a safetensors header describes, which is given as
 * text; data: bytes of all of them.  BQ_OK, or BQ_DATA after one message. */
int bq_weights_open_procedural(bq_weights **w, const char *dir, const char *header, size_t data,
                               int64_t seed);
void bq_weights_close(bq_weights *w); /* NULL is fine */

/* Tensors in order of file, then offset.  They and their names live until close. */
int bq_weights_count(const bq_weights *w);
const bq_tensor *bq_weights_at(const bq_weights *w, int i);
const bq_tensor *bq_weights_find(const bq_weights *w, const char *name); /* NULL when absent */
/* A value of the first file's __metadata__, or NULL. */
const char *bq_weights_metadata(const bq_weights *w, const char *key);

/* Shards: how many, their names without directory, their sizes. */
int bq_weights_files(const bq_weights *w);
const char *bq_weights_file(const bq_weights *w, int file, size_t *bytes);
int bq_weights_fd(const bq_weights *w, int file); /* stays ours; -1 where there is no file */
bool bq_weights_procedural(const bq_weights *w, int64_t *seed);
const char *bq_weights_dir(const bq_weights *w);

/* Rows [first, first + rows) as f32.
 *   t    a 1-D or 2-D tensor of F32, F16 or BF16; 1-D counts as one row
 *   to   (rows, columns of t) f32 host, ld >= cols
 * Fault point: weights_read. */
void bq_weights_read(const bq_weights *w, const bq_tensor *t, int64_t first, int64_t rows, bq_mat to);
/* Bytes [from, from + bytes) of a tensor as stored. */
void bq_weights_read_raw(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes);
/* The kernel may read the tensor now: a read of it soon will not wait for the disk.  Returns at once. */
void bq_weights_prefetch(const bq_weights *w, const bq_tensor *t);
/* Bytes of a shard, header included. */
void bq_weights_pread(const bq_weights *w, int file, size_t from, void *to, size_t bytes);

/* One number for the model's bytes: XXH3 over the little-endian XXH3 values of the shards in file order.  On
 * the way every F32, F16 and BF16 value is checked: a NaN or infinity is bad input, the message names
 * tensor, place and value.
 *   cache_path  NULL, or a JSON file of path, size, times, inode and hash a shard: one that did not change
 *               since is not read again (on a rank behind 0, whose file may be a copy: path, size and time of
 *               change).  Written by rank 0 when it lacked something; an unreadable or torn one is ignored.
 * Memory: a few MiB.  BQ_OK, or BQ_DATA after one message. */
int bq_weights_fingerprint(const bq_weights *w, const char *cache_path, uint64_t *hash);

#endif
