/* SPDX-License-Identifier: Apache-2.0 */
/* weights.h - an open model: its tensors and its configuration, whatever kind of source has them.
 *
 * The kinds are a table (weights_reader.h): a directory with model.safetensors, or else with the shards that
 * its index names; one safetensors file of any name; a directory whose config.json says that the weights are
 * procedural; a GGUF file, or the first of its parts.  Opening checks all headers, and the index against
 * them.  Bad input (BQ_DATA) is: a config.json that cannot be read, a tensor in two shards, a missing or
 * truncated shard, a shard outside of the directory, a tensor that the index does not have or has in another
 * shard, more than 900 shards; and what gguf.h and gguf_config.h refuse.  A read that fails after that ends
 * the job.  Several threads may read at a time.  All calls are local. */
#ifndef BQ_WEIGHTS_H
#define BQ_WEIGHTS_H

#include "io/in/safetensors.h"

typedef struct bq_weights bq_weights;

/* BQ_OK, and the caller closes; or BQ_DATA after one message, and *w is NULL. */
int bq_weights_open(bq_weights **w, const char *path);
void bq_weights_close(bq_weights *w);    /* NULL is fine */
bool bq_weights_known(const char *path); /* is this file a model, by its name? */

/* The tensors that the model must have, by its configuration: name, dims and shape of each.  BQ_DATA after
 * one message where one is absent, has another shape, or is not of F32, F16, BF16 or as fp8.h says.  A
 * source that makes its weights has these tensors from here on, and none before. */
int bq_weights_expect(bq_weights *w, const bq_tensor *list, int count);

/* Tensors in order of file, then offset.  They and their names are valid until close. */
int bq_weights_count(const bq_weights *w);
const bq_tensor *bq_weights_at(const bq_weights *w, int i);
const bq_tensor *bq_weights_find(const bq_weights *w, const char *name); /* NULL when absent */
/* A value of the first file's __metadata__, or NULL. */
const char *bq_weights_metadata(const bq_weights *w, const char *key);
/* The model's configuration in the form of config.json, NULL if there is none; and its name for messages. */
const json_t *bq_weights_config(const bq_weights *w, const char **path);
/* Files that belong beside the weights, where the source has what is in them: an object from the file's name
 * ("tokenizer.json") to its JSON value, which the caller owns.  NULL: they are files of the directory.
 * tokenizer: with those of the tokenizer, if the source has one that blockq knows.  BQ_OK, or BQ_DATA after
 * one message. */
int bq_weights_beside(const bq_weights *w, bool tokenizer, json_t **files);

/* Files: their number, their names without the directory, their sizes. */
int bq_weights_files(const bq_weights *w);
const char *bq_weights_file(const bq_weights *w, int file, size_t *bytes);
const char *bq_weights_dir(const bq_weights *w);
bool bq_weights_synthetic(const bq_weights *w); /* made-up values: every token is as good as another */

/* Read rows [first, first + rows) as f32.
 *   t    F32, F16, BF16 or as fp8.h says, of one dimension (one row) or two
 *   to   (rows, columns of t) f32 in host memory, ld >= cols
 * Fault point: weights_read (in all reads of files). */
void bq_weights_read(const bq_weights *w, const bq_tensor *t, int64_t first, int64_t rows, bq_mat to);
/* Read bytes [from, from + bytes) of a tensor in its type. */
void bq_weights_read_raw(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes);
/* Bytes of the files that hold a tensor, with scales and zero points that belong to it. */
size_t bq_weights_held(const bq_weights *w, const bq_tensor *t);
/* Tell the kernel that the tensor will be read soon.  Returns at once. */
void bq_weights_prefetch(const bq_weights *w, const bq_tensor *t);

/* The hash of a model's weights: XXH3 of what the reader adds, then of the XXH3 values (little-endian) of
 * the files in order.  Where a file is hashed, its F32, F16, BF16 and F8_E4M3 values are checked: a NaN or
 * an infinity is bad input, and the message has tensor, place and value.  For procedural weights: XXH3 of
 * their rule's version, the seed, all names and shapes.
 *   cache_path  NULL, or a file that keeps the hashes (ckpt/model.hash.json in docs/files.md).  A file is
 *               not read again if it is unchanged: path, size, mtime, ctime and inode are the same; on ranks
 *               other than 0, which may read copies, path, size and mtime.  Rank 0 writes the cache if it
 *               lacked a file.  A cache that is unreadable or damaged is ignored
 * Memory: 4 MiB.  BQ_OK, or BQ_DATA after one message. */
int bq_weights_fingerprint(const bq_weights *w, const char *cache_path, uint64_t *hash);

#endif
