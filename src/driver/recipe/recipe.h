/* recipe.h - the recipe: everything that changes the result's bytes, and the names of files.
 *
 * A recipe is a JSON file; its keys, defaults and ranges are rows of the tables in keys.c, from which the
 * reader, the resolved recipe and docs/recipes.md all come.  The struct is plain: it may be copied and
 * broadcast as bytes. */
#ifndef BQ_RECIPE_H
#define BQ_RECIPE_H

#include "block/passes/pass.h"
#include "block/model/rope.h"
#include "block/model/rotate.h"
#include "driver/eval/perplexity.h"
#include "driver/recipe/args.h"

#include <stdio.h>

#define BQ_PHASES     8
#define BQ_PASSES     8
#define BQ_OUTPUTS    4
#define BQ_TRANSFORMS 1
#define BQ_LINEARS    9  /* names a recipe may give bits to: q_proj ... gate_up_proj */
#define BQ_PARTS      16 /* capacity for bq_recipe_parts */

_Static_assert(BQ_PHASES <= BQ_RNG_PASS_STRIDE, "two passes would have the same random numbers");

typedef struct {
    int kind; /* bq_pass_kind_at */
    _Alignas(8) char options[BQ_PASS_OPTIONS];
} bq_pass;

typedef struct {
    char name[32]; /* for people: log, run.csv */
    bq_inputs inputs;
    double mix; /* share of elements from the QT stream, with BQ_INPUTS_MIX */
    bq_compute compute;
    int npass;
    bq_pass pass[BQ_PASSES];
} bq_phase;

typedef enum { BQ_TRANSFORM_ROTATE } bq_transform_kind;

/* An exact change of the model, made while its tensors are read (rotated.h). */
typedef struct {
    bq_transform_kind kind;
    bq_rotate_kind r1, r2;
    int64_t r1_block, r2_block; /* where the kind is block */
} bq_transform;

typedef struct {
    int format;          /* bq_format_at */
    char dir[64];        /* a plain name, made below the run directory */
    int64_t shard_bytes; /* of tensors in one file */
} bq_output;

#define BQ_SHARD_BYTES 5000000000 /* if not said, and the least */
#define BQ_SHARD_MIN   100000

typedef struct {
    char model[BQ_PATH_MAX]; /* directory; all paths are absolute */
    struct {
        char tokens[BQ_PATH_MAX]; /* "": none, only where every pass is rtn */
        int64_t samples, length,
            offset; /* sample k: tokens [offset + k * length, offset + (k + 1) * length) */
    } calibration;
    uint64_t seed;
    struct {
        bq_scheme decoder,
            linear[BQ_LINEARS]; /* linear: resolved, equal to decoder unless the recipe differs */
        int activations; /* of the linears' inputs, 8, or 16: as they are.  Of evaluation and exports alone */
    } bits;
    bq_angles rope; /* rotary angles in float32 as transformers has them, or in double */
    int ntransform;
    bq_transform transform[BQ_TRANSFORMS];
    int segments, sweeps;
    double tolerance; /* of sweeps */
    int nphase;
    bq_phase phase[BQ_PHASES]; /* at least one */
    int noutput;
    bq_output output[BQ_OUTPUTS];
    bq_perplexity eval;
    int nevals;
    bq_evaluation evals[BQ_EVALS]; /* beside that */
} bq_recipe;

/* The same as ops count them: 0 where nothing is rounded. */
static inline int bq_recipe_activations(const bq_recipe *r) {
    return r->bits.activations < 16 ? r->bits.activations : 0;
}

/* Does a pass leave factors of the linears' inputs beside the weights? */
bool bq_recipe_prescaled(const bq_recipe *r);

/* Read a recipe file, and the files of Quark's that it names, and lay "key=value" overrides over it (keys as
 * dotted paths, phases.0.passes.0.iterations). BQ_OK, or BQ_USAGE (BQ_DATA for a file of Quark's) after one
 * message that names file, key, value and what is allowed.  Relative paths in the file start at its folder,
 * those in overrides at the current directory. local: read on one rank, broadcast the struct. */
int bq_recipe_read(const char *path, int nset, char *const *set, bq_recipe *recipe);

/* The same for a text in memory; name is for messages, folder (absolute) is where relative paths start. */
int bq_recipe_parse(const char *text, size_t bytes, const char *name, const char *folder, int nset,
                    char *const *set, bq_recipe *recipe);

/* Put what `blockq eval` is asked for in the place of the recipe's evaluations: --tokens and its numbers, and
 * each --eval.  BQ_OK, or BQ_USAGE after one message. */
int bq_recipe_evaluate(bq_recipe *recipe, const bq_args *args);

/* The scheme of a linear by name; the part before the last dot does not count ("self_attn.q_proj").  Dies
 * when no recipe could name it. */
bq_scheme bq_recipe_scheme(const bq_recipe *recipe, const char *linear);

/* Refuse (BQ_USAGE) bits for a linear that the model does not have; names: the model's, as for
 * bq_recipe_scheme. */
int bq_recipe_fits(const bq_recipe *recipe, int count, const char *const *names);

/* The resolved recipe: canonical JSON, every default filled in, keys in table order.  Reading it gives the
 * same struct.  The caller looks at ferror. */
void bq_recipe_write(const bq_recipe *recipe, FILE *out);

/* One fingerprint (XXH3) for each top-level key that changes the result's bytes: "calibration", "bits",
 * "phases", ... Paths, names for people, outputs and evaluation do not count: hash the files' content
 * instead. Returns how many; the same number in the same order for every recipe. */
typedef struct {
    char name[24];
    uint64_t hash;
} bq_part;
int bq_recipe_parts(const bq_recipe *recipe, bq_part part[BQ_PARTS]);

/* Keys that change the result's bytes and differ from those of a resolved recipe in a file, a run's
 * recipe.json: how many, and into text the first three with both values.  0, too, where the file cannot be
 * read.  Silent. */
int bq_recipe_differences(const char *path, const bq_recipe *recipe, char *text, size_t size);

/* docs/recipes.md. */
void bq_recipe_doc(FILE *out);

#endif
