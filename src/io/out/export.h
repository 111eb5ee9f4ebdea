/* SPDX-License-Identifier: Apache-2.0 */
/* export.h - write a quantized model as a directory that engines load, by one process or by many.
 *
 *   bq_export_open     all   plan what will be written; refuse what the format cannot hold.  Writes nothing
 *   bq_export_claim    one   make the directory, remove an export that blockq left there
 *   bq_export_write    all   each a part of the shards
 *   bq_export_finish   one   tokenizer and generation files, the index of several shards, config.json
 *   bq_export_list     one   names, sizes and hashes of all that was made
 *   bq_export_close    all
 *
 * in this order.  All calls are local: the caller makes sure that all processes are done with a step before
 * the next begins.  config.json is removed first and written last, so a directory can be loaded only when
 * it is whole.  Where a shard ends depends on the model, the results' shapes and shard_bytes: equal input
 * gives equal bytes for any number of processes.  Memory: 4 MiB and the list of tensors, besides what the
 * source of results holds. */
#ifndef BQ_EXPORT_H
#define BQ_EXPORT_H

#include "base/key.h"
#include "io/manifest.h"
#include "io/in/weights.h"
#include "kernels/rounding.h"

/* Bytes of a job's buffer. */
#define BQ_EXPORT_BUFFER ((size_t)4 << 20)

/* The result for one quantized tensor.  Views are in host memory.  data may be NULL if only the plan is
 * asked for; rows and cols are always right. */
typedef struct {
    bq_mat code;  /* (rows, cols) i8, signed */
    bq_mat scale; /* (rows, groups) f32, groups = 1 or ceil(cols / group) */
    bq_mat zero;  /* (rows, groups) f32, whole numbers in the range of codes, or floats (bq_scheme_offset); no
                     rows: symmetric */
    bq_mat pre;   /* (1, cols) f32, factors by which inputs are multiplied first; no rows: none */
    bq_mat dense; /* (rows, cols) f32, (code - zero) * scale; data NULL: the exporter computes it */
    /* Scales are values of its type.  A group is less than a row, of floats at most a row; or -1. */
    bq_scheme scheme;
    bq_rounding inputs; /* how engines are to round the inputs; element 0: they are not rounded */
    bool fixed;         /* what all inputs share is measured: bq_qsource.grid has it */
} bq_qtensor;

/* Values [first, first + count) of row r of a result that has its data: (code - zero) * scale * pre. */
void bq_qtensor_values(const bq_qtensor *q, int64_t r, int64_t first, int64_t count, float *to);

/* Where results come from.  name: in the source ("model.layers.0.self_attn.q_proj.weight").
 *   get    is the tensor quantized?  If so, *q has the result; its views are valid until the next call.
 *          want_data: false for the plan, true for writing, once or more each; answers differ only in data
 *   dense  is a tensor that is not quantized replaced (a norm after smoothing, say)?  If to.data is not NULL,
 *          fill `to`, a host view (rows, cols) f32, with the tensor's rows from `first` on: each row once, in
 *          order; a vector is one row.  dense NULL: no tensor is replaced
 *   cache  is `name` the linear that computes the keys (or queries, keys and values) of a block?  If so, and
 *          scale is not NULL, it gets the measured scales: `heads` of keys, then as many of values.  NULL:
 *          keys and values are not cached rounded.  cached: how; heads 0: engines compute the scales
 *   grid   what was measured for the inputs of the linear of that weight
 *   inputs is `name` the weight of a linear?  *tokens and square[column], unless they are NULL: how many
 *          tokens it got, and the sums of the squares of its inputs
 * cache, grid and inputs are NULL where nobody has these numbers.
 * If get and dense say no, the tensor is written from the source.  "lm_head.weight" is asked for even where
 * the source ties it to the embedding, whose shape it has: a yes unties it. */
typedef struct {
    void *ctx;
    bool (*get)(void *ctx, const char *name, bool want_data, bq_qtensor *q);
    bool (*dense)(void *ctx, const char *name, int64_t first, bq_mat to);
    bool (*cache)(void *ctx, const char *name, const float **scale);
    bq_rounding cached;
    int64_t heads;
    bq_ends_grid (*grid)(void *ctx, const char *name);
    bool (*inputs)(void *ctx, const char *name, float *tokens, float *square);
    int64_t samples, length; /* of inputs: calibration samples, tokens of each */
} bq_qsource;

/* An output format: one file defines it (format.h), one row of formats.c lists it.  Tensors that are not
 * quantized keep type and bytes; but replaced ones are F32, and safetensors makes all floats F32. */
typedef struct bq_format bq_format;

/* Row i of the table, or NULL behind the last; the row with a name, or -1; the names as choices of a recipe's
 * key; what docs/recipes.md says of a row. */
const bq_format *bq_format_at(int i);
int bq_format_find(const char *name);
bq_choice bq_format_choice(int i);
const char *bq_format_help(int i);
/* Do these options need bq_qsource.inputs? */
bool bq_format_wants_inputs(int i, const void *options);
/* How programs load it, as lines of a model card: MODEL is the folder, FILE its (first) file of weights. */
const char *bq_format_loads(int i);
/* The library that the hub shows for it. */
const char *bq_format_library(int i);
/* Its own keys in a recipe's output, which fill a struct of at most BQ_FORMAT_OPTIONS bytes. */
const bq_scope *bq_format_scope(int i);

#define BQ_FORMAT_OPTIONS 1280

typedef struct bq_export_job bq_export_job;

/* Plan the export of src, with the results of q, to out_dir.  Asks q for no data.
 *   out_dir      need not exist; must be valid until close, as must src and what q uses
 *   options      what the format's keys have filled, valid until close; NULL for a format without keys
 *   shard_bytes  most bytes of tensors in a file; a larger tensor has a file of its own.  One file is
 *                model.safetensors, several are model-00001-of-<n>.safetensors and so on
 * BQ_OK, and the caller closes; or BQ_DATA after one message, and *job is NULL: config.json cannot be read,
 * a result has a wrong shape, or the format cannot hold it. */
int bq_export_open(bq_export_job **job, const bq_weights *src, const char *out_dir, bq_qsource q,
                   const bq_format *format, const void *options, size_t shard_bytes);
int bq_export_shards(const bq_export_job *job);
/* (shards): hashes of the shards written here.  The caller fills in the others before bq_export_list. */
bq_file_hash *bq_export_hashes(bq_export_job *job);

/* May an export of the model in src_dir go to out_dir?  Changes nothing.  BQ_OK, or after one message
 * BQ_DATA: out_dir is the source itself, holds a model that blockq did not write, or cannot be listed; or
 * BQ_USAGE: out_dir is a link, or a name in it that an export writes is a link, a FIFO or a folder.  own:
 * the caller knows that blockq wrote what is there, in whatever state it is. */
int bq_export_look(const char *src_dir, const char *out_dir, bool own);

/* The same with own false; then make out_dir, and remove the config.json, index, shards, temporary files and
 * publications (publish.h) in it.  BQ_DATA also where it cannot be made.  Ends the job when a file cannot be
 * removed. */
int bq_export_claim(const bq_export_job *job);

/* Write share `part` of `parts` of the shards; shares are consecutive shards.  Asks q only for the data of
 * their tensors.  Ends the job when the disk fails. */
void bq_export_write(bq_export_job *job, int part, int parts);

/* Write what goes beside the shards.  BQ_OK, or BQ_DATA after one message: a file of the source cannot be
 * read.  Ends the job when the disk fails.  Fault point copy_write. */
int bq_export_finish(bq_export_job *job);

/* Add to list all files that were made.  Call it after finish, when all hashes are known. */
void bq_export_list(const bq_export_job *job, bq_manifest *list);

void bq_export_close(bq_export_job *job); /* NULL is fine */

#endif
