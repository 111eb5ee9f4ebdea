/* weights.h - an open model directory: model.safetensors, or else the shards that its index names.
 *
 * Opening checks all headers (safetensors.h), and the index against them.  Bad input (BQ_DATA) is: a tensor
 * in two shards, a missing or truncated shard, a shard outside of the directory, a tensor that the index
 * does not have or has in another shard, more than 900 shards.  A read that fails after that ends the job.
 * Several threads may read at a time.  All calls are local. */
#ifndef BQ_WEIGHTS_H
#define BQ_WEIGHTS_H

#include "io/in/safetensors.h"

typedef struct bq_weights bq_weights;

/* BQ_OK, and the caller closes; or BQ_DATA after one message, and *w is NULL. */
int bq_weights_open(bq_weights **w, const char *dir);
/* The same for one safetensors file of any name (golden data of tests). */
int bq_weights_open_file(bq_weights **w, const char *path);
/* The same for procedural weights (procedural.h) of the model directory dir.  header: the text of a
 * safetensors header with the tensors; data: bytes of all of them. */
int bq_weights_open_procedural(bq_weights **w, const char *dir, const char *header, size_t data,
                               int64_t seed);
void bq_weights_close(bq_weights *w); /* NULL is fine */

/* Tensors in order of file, then offset.  They and their names are valid until close. */
int bq_weights_count(const bq_weights *w);
const bq_tensor *bq_weights_at(const bq_weights *w, int i);
const bq_tensor *bq_weights_find(const bq_weights *w, const char *name); /* NULL when absent */
/* A value of the first file's __metadata__, or NULL. */
const char *bq_weights_metadata(const bq_weights *w, const char *key);

/* Shards: their number, their names without the directory, their sizes.  One for procedural weights. */
int bq_weights_files(const bq_weights *w);
const char *bq_weights_file(const bq_weights *w, int file, size_t *bytes);
int bq_weights_fd(const bq_weights *w, int file); /* w closes it; -1 for procedural weights */
bool bq_weights_procedural(const bq_weights *w, int64_t *seed);
const char *bq_weights_dir(const bq_weights *w);

/* Read rows [first, first + rows) as f32.
 *   t    F32, F16 or BF16, of one dimension (one row) or two
 *   to   (rows, columns of t) f32 in host memory, ld >= cols
 * Fault point: weights_read (in all reads of files). */
void bq_weights_read(const bq_weights *w, const bq_tensor *t, int64_t first, int64_t rows, bq_mat to);
/* Read bytes [from, from + bytes) of a tensor as stored. */
void bq_weights_read_raw(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes);
/* Tell the kernel that the tensor will be read soon.  Returns at once. */
void bq_weights_prefetch(const bq_weights *w, const bq_tensor *t);
/* Read bytes of a shard, header included.  Not for procedural weights. */
void bq_weights_pread(const bq_weights *w, int file, size_t from, void *to, size_t bytes);

/* The hash of a model's weights: XXH3 of the XXH3 values (little-endian) of its shards in file order.
 * Where a shard is hashed, its F32, F16 and BF16 values are checked: a NaN or an infinity is bad input, and
 * the message has tensor, place and value.  For procedural weights: XXH3 of their rule's version, the seed,
 * all names and shapes.
 *   cache_path  NULL, or a file that keeps the hashes (ckpt/model.hash.json in docs/formats.md).  A shard is
 *               not read again if it is unchanged: path, size, mtime, ctime and inode are the same; on ranks
 *               other than 0, which may read copies, path, size and mtime.  Rank 0 writes the file if it
 *               lacked a shard.  A file that is unreadable or damaged is ignored
 * Memory: 4 MiB.  BQ_OK, or BQ_DATA after one message. */
int bq_weights_fingerprint(const bq_weights *w, const char *cache_path, uint64_t *hash);

#endif
