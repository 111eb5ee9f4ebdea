/* export_job.h - what the exporters share; nobody but export*.c includes it, and the tests.
 *
 * A job is a list of items (tensors of the source, in order of name, blocks counted as numbers) and a list of
 * outs (tensors of the result; an item becomes one or several, all in one shard).  A format says which and
 * how. */
#ifndef BQ_EXPORT_JOB_H
#define BQ_EXPORT_JOB_H

#include "io/out/export.h"
#include "io/json.h"
#include "io/manifest.h"
#include "io/out/writer.h"

typedef struct {
    const char *name;
    const bq_tensor *t; /* an lm_head that the source ties has the embedding's */
    bool added;         /* not in the source */
    bool quantized;     /* q holds, its data do not */
    bool replaced;      /* by rows that the results' source has; the formats do not see it */
    bq_qtensor q;
    int shard;
    size_t bytes; /* of its outs */
} bq_export_item;

typedef struct {
    bq_tensor t;    /* owns its name; offset unused */
    int item, part; /* part: the format's own number, or BQ_EXPORT_BARE */
} bq_export_out;

#define BQ_EXPORT_BARE (-1) /* written from the plan alone: the result's data are not asked for */

struct bq_format {
    const char *name, *help; /* in recipes, as --format, as the default folder; what docs/recipes.md says */
    /* Check an item that is not replaced and add its outs.  BQ_OK, or BQ_DATA after one message. */
    int (*plan)(bq_export_job *job, int item);
    /* Put an out's bytes; q is the item's result with data (bare: as planned), NULL when it is as it was. */
    void (*write)(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w);
    /* Change config.json. */
    void (*edit)(const bq_export_job *job, json_t *config);
    bool quantized; /* makes no sense where nothing is quantized */
};

struct bq_export_job {
    const bq_weights *src;
    const char *out_dir;
    bq_qsource source;
    const bq_format *format;
    bq_export_item *item;
    bq_export_out *out; /* in order of name */
    json_t *config;     /* the source's */
    int items, outs, room, shards;
    uint64_t *hash; /* (shards) of those written here */
    char *buffer;   /* BQ_EXPORT_BUFFER bytes, for write */
};

/* For plan: the item becomes base + suffix, where base is its name without the last `cut` characters. */
void bq_export_add(bq_export_job *job, int item, int part, size_t cut, const char *suffix, const char *dtype,
                   int dims, const int64_t *shape);
/* Of the families known here, everything with two dimensions but the embedding is the weight of a linear. */
bool bq_export_is_linear(const bq_export_item *item);
/* For write: bytes as they lie in the source; the rows of a view. */
void bq_export_put_raw(bq_export_job *job, const bq_tensor *t, bq_writer *w);
void bq_export_put_rows(bq_mat m, bq_writer *w);

/* export_dir.c.  bq_export_look, then make out_dir and remove what an earlier export left. */
int bq_export_dir_claim(const char *src_dir, const char *out_dir);
/* Copy tokenizer, generation and licence files, unchanged. */
int bq_export_dir_copy(const char *src_dir, const char *out_dir);
/* Add what an export makes in out_dir, but for the shards. */
void bq_export_dir_list(const char *out_dir, bq_manifest *list);

#endif
