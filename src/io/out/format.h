/* SPDX-License-Identifier: Apache-2.0 */
/* format.h - what an output format is, and what it may use of a job.  Only files of io/out and tests
 * include it.
 *
 * A job is a list of items and a list of outs.  Items are the tensors of the source in order of name,
 * blocks counted as numbers.  Outs are the tensors of the result: an item becomes one or several of them,
 * all in one shard.  A format decides which they are, and writes them. */
#ifndef BQ_FORMAT_H
#define BQ_FORMAT_H

#include "io/out/export.h"
#include "io/json.h"
#include "io/manifest.h"
#include "io/out/writer.h"

typedef struct {
    const char *name;
    const bq_tensor *t; /* of the source; for an lm_head that is tied there, the embedding */
    bool quantized;     /* q is valid, without data */
    bool replaced;      /* by bq_qsource.dense: then formats do not see it, but those that say so */
    bq_qtensor q;
    int shard;
    size_t bytes; /* of its outs */
} bq_export_item;

typedef struct {
    bq_tensor t;    /* name is owned, offset is not used */
    int item, part; /* part: a number of the format's own, not negative; or one of those below */
} bq_export_out;

/* Outs that need no data of the item's result: any; scales of cached keys, of cached values; what was
 * measured for its inputs. */
enum {
    BQ_EXPORT_BARE = -1,
    BQ_EXPORT_KEYS = -2,
    BQ_EXPORT_VALUES = -3,
    BQ_EXPORT_INPUT_SCALE = -4, /* of measured inputs */
    BQ_EXPORT_INPUT_ZERO = -5,
    BQ_EXPORT_INPUT_FACTOR = -6, /* of scales that are e4m3 numbers; its reciprocal */
    BQ_EXPORT_INPUT_STEP = -7
};

/* The size of the struct that a format's keys fill. */
#define BQ_FORMAT_OPTIONS_OF(type) BQ_OPTIONS_OF(type, BQ_FORMAT_OPTIONS)

/* Lines of `loads`; more: what transformers need besides. */
#define BQ_LOADS_VLLM "- vLLM: `vllm serve MODEL`\n"
#define BQ_LOADS_TRANSFORMERS(more)                                                                          \
    "- transformers" more ": `AutoModelForCausalLM.from_pretrained(\"MODEL\")`\n"

struct bq_format {
    const char *name, *help; /* in recipes, for --format and as the default folder; for docs/recipes.md */
    const char *loads;       /* bq_format_loads */
    bq_scope scope; /* its own keys in a recipe's output; the struct that they fill is job->options */
    /* Check an item, which is not replaced, and add its outs.  BQ_OK, or BQ_DATA after one message. */
    int (*plan)(bq_export_job *job, int item);
    /* Put the bytes of an out.  q: the item's result with data (BQ_EXPORT_BARE: as planned); NULL if the
     * item is not quantized. */
    void (*write)(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w);
    /* Change config, which becomes config.json. */
    void (*edit)(const bq_export_job *job, json_t *config);
    bool quantized; /* refused if no tensor is quantized */
    /* What only a format of another container has; NULL: safetensors. */
    const bq_container *container;
    /* What only some formats have. */
    bool replaced;                             /* plan and write get replaced tensors, too */
    bool (*wants_inputs)(const void *options); /* bq_format_wants_inputs; NULL: never */
    bool (*cache)(const bq_export_job *job);   /* can it say how keys and values are cached?  NULL: never */
    bool offsets;                              /* holds zero points that are floats */
    bool stacks; /* knows what to do with families that stack the experts of a block in one tensor */
    /* Look at the model before the first plan, and make job->own: BQ_OK, or BQ_DATA after one message.  Free
     * it. */
    int (*begin)(bq_export_job *job);
    void (*end)(bq_export_job *job);
    /* Write a file of the format's own to job->out_dir, by one process and before config.json; NULL: there is
     * none.  It may ask for data (bq_export_hold).  export_dir.c must know the name: `loadable`. */
    void (*finish)(bq_export_job *job);
};

/* Of the header of a container: which file it is. */
typedef struct {
    const bq_export_job *job;
    int shard;
} bq_export_file;

struct bq_export_job {
    const bq_weights *src;
    const char *out_dir;
    bq_qsource source;
    const bq_format *format;
    bq_export_item *item;
    bq_export_out *out; /* in order of name */
    json_t *config;     /* the source's */
    int items, outs, room, shards;
    bool stacked;        /* the family stacks experts */
    json_t *beside;      /* bq_weights_beside of the source; NULL: not asked yet, or there are none */
    bq_file_hash *hash;  /* (shards) of those written here */
    char *buffer;        /* BQ_EXPORT_BUFFER bytes, free for use in write */
    const void *options; /* of the format, what its keys have filled */
    void *own;           /* of the format */
};

/* For plan: refuse an item (BQ_DATA), "export: '<name>'<text>".  Add an out to it.  Its name is the item's
 * without the last `cut` characters, then suffix.  */
int bq_export_refuse(const bq_export_item *item, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bq_export_add(bq_export_job *job, int item, int part, size_t cut, const char *suffix, const char *dtype,
                   int dims, const int64_t *shape);
/* For plan: add the out of an item that is replaced.  BQ_OK, or BQ_DATA after one message. */
int bq_export_plan_replaced(bq_export_job *job, int item, const char *dtype);
/* Is it the weight of a linear?  In the families we know, this is so for every "*.weight" of two dimensions
 * but the embedding. */
bool bq_export_is_linear(const bq_export_item *item);
/* The item of a name, NULL: there is none. */
const bq_export_item *bq_export_find(const bq_export_job *job, const char *name);
/* For write: the data of a quantized item, until the next call. */
void bq_export_hold(bq_export_job *job, const bq_export_item *item, bq_qtensor *q);
/* Put `bytes` of a name into a regular expression. */
void bq_export_escape(FILE *to, const char *name, size_t bytes);
/* Does config.json say the same of two results?  It does not have the rule of grids, and of the types of
 * scales it has only those of one byte. */
bool bq_export_same(const bq_qtensor *a, const bq_qtensor *b);
/* In linears.c, for formats of quantized linears.  Refuse what only other formats have: a result that is not
 * the weight of a linear, factors of inputs, rounded inputs; scales of another type than F16.  BQ_OK, or
 * BQ_DATA after one message, in which `format` is the format's name. */
int bq_export_linear_only(const bq_export_item *item, const char *format); /* all but rounded inputs */
int bq_export_weights_only(const bq_export_item *item, const char *format);
int bq_export_f16_scales(const bq_export_item *item, const char *format);
/* The buffer as `count` values of `size` bytes, which it must hold.  Put the transpose of scales as F16. */
void *bq_export_room(const bq_export_job *job, int64_t count, size_t size);
void bq_export_put_f16(bq_export_job *job, bq_mat scale, bq_writer *w);
/* Where scales of cached keys and values are measured and the item computes the keys: plan an F32 (1), or
 * (heads, 1, 1), for the scales of keys and one for those of values, in the place of the module and ".weight"
 * in the item's name.  Put one. */
void bq_export_plan_cache(bq_export_job *job, int item, const char *keys, const char *values);
void bq_export_put_cache(const bq_export_job *job, const bq_export_out *out, bq_writer *w);
/* What was measured for the inputs of the item.  Plan and put it, in the place of ".weight": input_scale F32,
 * and where there are zeros input_zero_point I8, or the factor as `factor`; dims: 1 or 0. */
bq_ends_grid bq_export_grid(const bq_export_job *job, const bq_export_item *item);
void bq_export_plan_inputs(bq_export_job *job, int item, int dims, const char *factor, int part);
void bq_export_put_inputs(const bq_export_job *job, const bq_export_out *out, bq_writer *w);
/* In compressed_tensors.c, for edit: how config.json says it, null where they are not quantized.  ModelOpt
 * has the same form. */
json_t *bq_export_cache_scheme(const bq_export_job *job);
/* For edit: the module of a linear, its name without ".weight"; a list of those that are not quantized,
 * routers of experts among them, and of a tied head, which is a linear, too, but has no tensor. */
json_t *bq_export_module(const bq_export_item *item);
json_t *bq_export_kept(const bq_export_job *job);
/* For write: put the tensor's bytes as they are in the source; put the rows of a view. */
void bq_export_put_raw(bq_export_job *job, const bq_tensor *t, bq_writer *w);
void bq_export_put_rows(bq_mat m, bq_writer *w);
/* In stacked.c, for formats that stack experts (gpt-oss) as floats.  plan: false if the item is not of an
 * expert; else the first expert's gate, down or bias adds an out of type dtype for those of all experts, and
 * *code is BQ_OK, or BQ_DATA after one message.  write: false if the out is no stack; `values` gives all
 * values of an item, a vector as one row, and `put` puts values of the out. */
typedef void bq_export_values(bq_export_job *job, const bq_export_item *item, bq_mat to);
typedef void bq_export_put(bq_export_job *job, const bq_export_out *out, const float *from, int64_t count,
                           bq_writer *w);
bool bq_export_plan_stacked(bq_export_job *job, int item, const char *dtype, int *code);
bool bq_export_write_stacked(bq_export_job *job, const bq_export_out *out, bq_export_values *values,
                             bq_export_put *put, bq_writer *w);

/* In export_dir.c.  Copy tokenizer, generation, code and licence files, unchanged: BQ_OK, or BQ_DATA after
 * one message.  Write the files that the source has inside (bq_weights_beside), and remove those of an
 * earlier export.  Add the files of an export to list, without its shards. */
int bq_export_copy(const bq_export_job *job);
void bq_export_dir_put(const json_t *beside, const char *out_dir);
void bq_export_list_copied(const bq_export_job *job, bq_manifest *list);

#endif
