/* export.h - a quantized model as a directory that engines load, written by one process or by many.
 *
 *   bq_export_open     all   what will be written, refused if the format cannot hold it; nothing is touched
 *   bq_export_claim    one   make the directory, remove an export that blockq left there
 *   bq_export_write    all   a part of the shards each
 *   bq_export_finish   one   tokenizer and generation files, the index of several shards, config.json
 *   bq_export_list     one   names, sizes and hashes of all that was made
 *   bq_export_close    all
 *
 * in this order; the caller sees to it that a step is done everywhere before the next one starts.  No message
 * is sent here.  config.json is removed first and written last, so a directory is loadable only when it is
 * whole.  The model and shard_bytes alone cut shards: equal input gives equal bytes for any number of
 * processes. Memory: 4 MiB and the list of tensors, besides what the source of results holds. */
#ifndef BQ_EXPORT_H
#define BQ_EXPORT_H

#include "base/key.h"
#include "io/manifest.h"
#include "io/in/weights.h"

/* Bytes that a job keeps to copy through. */
#define BQ_EXPORT_BUFFER ((size_t)4 << 20)

/* What became of one quantized tensor.  Views are host memory; data may be NULL when only the plan is asked
 * for, rows and cols never lie. */
typedef struct {
    bq_mat code;        /* (rows, cols) i8, signed */
    bq_mat scale;       /* (rows, groups) f32, groups = 1 or ceil(cols / group) */
    bq_mat zero;        /* (rows, groups) f32, whole numbers that codes can be; no rows: symmetric */
    bq_mat pre;         /* (1, cols) f32, what the inputs are multiplied by first; no rows: they are not */
    bq_mat dense;       /* (rows, cols) f32, (code - zero) * scale; data NULL: the exporter multiplies */
    int bits;           /* 2..8 */
    bq_type scale_type; /* f32, f16 or bf16: every scale is a value of it */
    int activations;    /* bits that engines are to round the inputs to, with a scale a token; 0: none */
    int64_t group;      /* columns a scale; 0: one scale a row */
} bq_qtensor;

/* Where results come from.  name is the tensor's name in the source
 * ("model.layers.0.self_attn.q_proj.weight").
 *   get    is the tensor quantized?  True: *q says what it became; the views stay valid until the next call.
 *          Asked twice a tensor, want_data false (plan) and true (write), with the same answer but for data
 *   dense  is a tensor that is not quantized replaced, a norm after smoothing say?  to.data NULL only asks
 *          (plan); else to is a host view (rows, cols) f32 to fill with rows [first, first + to.rows), each
 *          row asked for once, in order.  A vector is one row.  NULL: none is replaced
 * Both false: the tensor is as it was.  "lm_head.weight" is asked for even where the source ties it to the
 * embedding, of whose shape it is: true unties it. */
typedef struct {
    void *ctx;
    bool (*get)(void *ctx, const char *name, bool want_data, bq_qtensor *q);
    bool (*dense)(void *ctx, const char *name, int64_t first, bq_mat to);
} bq_qsource;

/* A format of outputs: one file defines it, one row of formats.c lists it.  In every format tensors that are
 * not quantized keep type and bytes, but replaced ones are F32, whatever type config.json names: loaders
 * convert. */
typedef struct bq_format bq_format;

/* The table: row i, NULL behind the last; the row of a name, or -1; the names as choices of a key, and what
 * docs/recipes.md says of a row. */
const bq_format *bq_format_at(int i);
int bq_format_find(const char *name);
bq_choice bq_format_choice(int i);
const char *bq_format_help(int i);

typedef struct bq_export_job bq_export_job;

/* Plan the export of src, as q changes it, to out_dir.  Asks q for no data.
 *   out_dir      need not exist; must live until close, as must src and what q has
 *   shard_bytes  what the tensors of a file may have; a larger tensor gets a file of its own.  One file is
 *                model.safetensors, several are model-00001-of-<n>.safetensors, ...
 * BQ_OK, or BQ_DATA after one message (config.json unreadable; a result of another shape; bits or group that
 * the format cannot say); *job is then NULL. */
int bq_export_open(bq_export_job **job, const bq_weights *src, const char *out_dir, bq_qsource q,
                   const bq_format *format, size_t shard_bytes);
int bq_export_shards(const bq_export_job *job);
/* (shards): XXH3 of those that this process has written.  For the list the caller fills in the others'. */
uint64_t *bq_export_hashes(bq_export_job *job);

/* May an export of the model in src_dir go to out_dir?  Nothing is touched.  BQ_OK, or after one message
 * BQ_DATA: it is the source itself, or holds a model that blockq did not write; or BQ_USAGE: it
 * is a link, or a name in it that an export writes is one, or a FIFO, or a folder.  own: the caller knows
 * that blockq wrote what is there, whatever became of it. */
int bq_export_look(const char *src_dir, const char *out_dir, bool own);

/* The same, then make it, and remove what an earlier export left there.  BQ_DATA: it cannot be made. */
int bq_export_claim(const bq_export_job *job);

/* Write share `part` of `parts` of the shards: neighbours, so that a block's results are asked for by few.
 * Asks q for the data of its tensors only.  A failing disk dies. */
void bq_export_write(bq_export_job *job, int part, int parts);

/* BQ_OK, or BQ_DATA after one message: a file of the source's cannot be read. */
int bq_export_finish(bq_export_job *job);

/* Add what was made, when it is finished and all hashes are known. */
void bq_export_list(const bq_export_job *job, bq_manifest *list);

void bq_export_close(bq_export_job *job); /* NULL is fine */

#endif
