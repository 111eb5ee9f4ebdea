/* SPDX-License-Identifier: Apache-2.0 */
/* recipe.h - the recipe: everything that changes the result's bytes, and names of files.
 *
 * A recipe is a JSON file, read and written by the tables of keys.c.  The struct has no pointers: it may be
 * copied and broadcast as bytes. */
#ifndef BQ_RECIPE_H
#define BQ_RECIPE_H

#include "block/passes/pass.h"
#include "block/model/rope.h"
#include "block/model/rotate.h"
#include "driver/eval/perplexity.h"
#include "driver/recipe/args.h"
#include "io/out/export.h"

#include <stdio.h>

#define BQ_PHASES     8
#define BQ_PASSES     8
#define BQ_OUTPUTS    8
#define BQ_TRANSFORMS 1
#define BQ_LINEARS    16 /* names a recipe may give bits to: q_proj ... w3 */
#define BQ_PARTS      16 /* capacity for bq_recipe_parts */

_Static_assert(BQ_PHASES <= BQ_RNG_PASS_STRIDE, "two passes would have the same random numbers");

typedef struct {
    int kind; /* bq_pass_kind_at */
    _Alignas(8) char options[BQ_PASS_OPTIONS];
} bq_pass;

typedef struct {
    char name[32]; /* for people: log, run.csv */
    bq_inputs inputs;
    double mix;       /* share of elements from the QT stream, with BQ_INPUTS_MIX */
    bool activations; /* do the passes see inputs rounded by bits.activations? */
    bq_compute compute;
    int npass;
    bq_pass pass[BQ_PASSES];
} bq_phase;

/* Experts with few tokens: others of the layer fill up what is missing; rounded to nearest; all tokens of the
 * layer. */
typedef enum { BQ_STARVED_BLEND, BQ_STARVED_RTN, BQ_STARVED_ALL } bq_starved;

/* How the inputs of linears are rounded.  Element 16: they are not. */
typedef enum { BQ_RANGE_MINMAX, BQ_RANGE_PERCENTILE, BQ_RANGE_MSE } bq_range;
typedef enum { BQ_PER_AUTO, BQ_PER_TOKEN, BQ_PER_TENSOR, BQ_PER_HEAD } bq_per;
typedef struct {
    int element;
    bool even; /* no zeros */
    bq_per per;
    int64_t group;
    bq_type scale;
    bq_round_rule rule;
    bq_power_rule power;
    bool dynamic; /* what all inputs of a linear share comes from each sample; else it is measured */
    bq_range range;
    double percentile;
} bq_activations;

/* The same of keys and values.  AUTO: integers have a scale for each token and head, floats one for a block.
 */
typedef struct {
    int element;
    bq_per per;
} bq_cache;

typedef enum { BQ_TRANSFORM_ROTATE } bq_transform_kind;

/* An exact change of the model, made while its tensors are read (rotated.h). */
typedef struct {
    bq_transform_kind kind;
    bq_rotate_kind r1, r2;
    int64_t r1_block, r2_block; /* where the kind is block */
    struct {
        int64_t steps, batch; /* steps 0: the rotations stay as they are */
        double lr;            /* radians */
    } learn;                  /* run/learning.h */
} bq_transform;

/* What a budget counts: bits of a weight, scales included; bytes of all linears of the blocks; microseconds
 * that they take in a step of decoding. */
typedef enum { BQ_BUDGET_BITS, BQ_BUDGET_BYTES, BQ_BUDGET_TIME } bq_budget;

/* The schemes among which each site of each block gets one (plan/mixed.h). */
#define BQ_MIXED 8
typedef struct {
    int count; /* 0: nothing is chosen */
    bq_scheme scheme[BQ_MIXED];
    bq_budget unit;
    double budget;
    int64_t samples;         /* of calibration, at most */
    double bandwidth, flops; /* of the machine that will serve: GB/s, TFLOP/s */
    int64_t tokens;          /* that it decodes at a time */
} bq_mixed;

/* End-to-end distillation (run/distill.h). */
typedef struct {
    int64_t steps, batch; /* steps 0: none */
    double lr;
    int64_t warmup;    /* steps in which the rate rises */
    int64_t positions; /* of a sample whose tokens count in a step; 0: all */
    int64_t held;      /* samples behind those of the calibration, which are measured alone */
    bool norms;        /* gains and biases are trained, too */
    bq_compute compute;
} bq_distill;

#define BQ_BASE_MODEL 128
#define BQ_LICENSE    64

typedef struct {
    int format;                                          /* bq_format_at */
    char dir[64];                                        /* a plain name, made below the run directory */
    int64_t shard_bytes;                                 /* of tensors in one file */
    char base_model[BQ_BASE_MODEL], license[BQ_LICENSE]; /* for the model card; "": as the source says */
    _Alignas(8) char options[BQ_FORMAT_OPTIONS];
} bq_output;

#define BQ_SHARD_BYTES 5000000000 /* if not said, and the least */
#define BQ_SHARD_MIN   100000

typedef struct {
    char model[BQ_PATH_MAX]; /* directory; all paths are absolute */
    struct {
        char tokens[BQ_PATH_MAX]; /* "": none, if every pass is rtn */
        int64_t samples, length,
            offset; /* sample k: tokens [offset + k * length, offset + (k + 1) * length) */
    } calibration;
    struct {
        bq_starved starved;  /* how an expert is calibrated that gets fewer than `least` tokens */
        int64_t least, most; /* most: of the tokens of an expert that are used */
    } experts;
    uint64_t seed;
    struct {
        bq_scheme decoder, linear[BQ_LINEARS]; /* linear: that of decoder, unless the recipe says otherwise */
        bq_mixed mixed;
        char schemes[BQ_PATH_MAX];    /* a file with schemes of sites; "": none */
        bq_scheme embedding, lm_head; /* element 16: they are not rounded */
        bq_activations activations;
        bq_cache kv;
    } bits;
    bq_angles rope;       /* rotary angles in float32 as in transformers, or in double */
    bq_compute reference; /* how the original model is computed */
    int ntransform;
    bq_transform transform[BQ_TRANSFORMS];
    int segments, sweeps;
    double tolerance; /* of sweeps */
    int nphase;
    bq_phase phase[BQ_PHASES]; /* at least one */
    bq_distill distill;
    int noutput;
    bq_output output[BQ_OUTPUTS];
    bq_perplexity eval;
    int nevals;
    bq_evaluation evals[BQ_EVALS];
} bq_recipe;

/* In rounding.c.  How the inputs of linears, keys and values are rounded; element 0: they are not.  group of
 * inputs: where weights have tiles as many columns as a tile has, as engines do it. */
bq_rounding bq_recipe_inputs(const bq_recipe *r);
bq_rounding bq_recipe_cache(const bq_recipe *r, const bq_model *m);
/* Are scales of inputs, or of the cache, measured on the samples? */
bool bq_recipe_inputs_measured(const bq_recipe *r);
bool bq_recipe_cache_measured(const bq_recipe *r);

/* BQ_PASS_CALIBRATED ... of all its passes; does one leave factors for the linears' inputs? */
unsigned bq_recipe_traits(const bq_recipe *r);
bool bq_recipe_prescaled(const bq_recipe *r);

/* Are rotations trained?  With how many samples each step? */
static inline bool bq_recipe_learns(const bq_recipe *r) {
    return r->ntransform && r->transform[0].learn.steps > 0;
}
static inline int64_t bq_recipe_learn_batch(const bq_recipe *r) {
    int64_t batch = r->transform[0].learn.batch, all = r->calibration.samples;
    return !bq_recipe_learns(r) ? 0 : batch < all ? batch : all;
}

/* Read a recipe file and the Quark files that it names, and apply overrides
 * "phases.0.passes.0.iterations=64". Relative paths start at the file's folder, those of overrides at the
 * current directory.  BQ_OK, or BQ_USAGE (BQ_DATA for a Quark file) after one message with file, key, value
 * and what is allowed.  Local: read on one rank, broadcast the struct.  parse: a text in memory; name is for
 * messages, folder is absolute. */
int bq_recipe_read(const char *path, int nset, char *const *set, bq_recipe *recipe);
int bq_recipe_parse(const char *text, size_t bytes, const char *name, const char *folder, int nset,
                    char *const *set, bq_recipe *recipe);

/* Replace the recipe's evaluations by those of `blockq eval`: --tokens and its numbers, and each --eval.
 * BQ_OK, or BQ_USAGE after one message. */
int bq_recipe_evaluate(bq_recipe *recipe, const bq_args *args);

/* Replace the recipe's outputs by the one of --format and --shard.  BQ_OK, or BQ_USAGE after one message. */
int bq_recipe_export(bq_recipe *recipe, const bq_args *args);

/* Can all passes of the recipe work with a scheme?  BQ_OK, or BQ_USAGE after one message that names `file`
 * and `path`. */
int bq_recipe_takes(const bq_recipe *recipe, bq_scheme scheme, const char *file, const char *path);

/* The scheme of a linear by the last part of its name ("self_attn.q_proj"), which recipes must know.  fits:
 * refuse (BQ_USAGE) bits for a linear that is not among the model's names. */
bq_scheme bq_recipe_scheme(const bq_recipe *recipe, const char *linear);
int bq_recipe_fits(const bq_recipe *recipe, int count, const char *const *names);

/* Write the resolved recipe: JSON with all defaults, keys in table order.  Reading it gives the same struct.
 * The caller checks ferror. */
void bq_recipe_write(const bq_recipe *recipe, FILE *out);

/* A hash (XXH3) of each top-level key that changes the result's bytes: "calibration", "bits", "phases", ...;
 * not of paths, whose files are hashed elsewhere, nor of outputs and evaluation.  Returns how many: the same
 * for all. */
typedef struct {
    char name[24];
    uint64_t hash;
} bq_part;
int bq_recipe_parts(const bq_recipe *recipe, bq_part part[BQ_PARTS]);

/* The number of keys that change the result's bytes and differ from a run's recipe.json; text: the first
 * three, with both values.  0 if the file cannot be read.  Silent. */
int bq_recipe_differences(const char *path, const bq_recipe *recipe, char *text, size_t size);

/* docs/recipes.md. */
void bq_recipe_doc(FILE *out);

#endif
