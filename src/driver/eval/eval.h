/* eval.h - a kind of evaluation: sequences of token ids, and one number from the losses of their tokens.
 *
 * One file defines a kind, one row of eval.c lists it.  A kind reads its own data and no model.  score.h
 * walks the sequences through the blocks and hands the losses back.  docs/add-an-evaluation.md shows how to
 * add one. */
#ifndef BQ_EVAL_H
#define BQ_EVAL_H

#include "base/key.h"
#include "io/tokens.h"

#define BQ_EVALS 4 /* evaluations in a recipe's list */

/* Room for a kind's options in a recipe. */
#define BQ_EVAL_OPTIONS          1152
#define BQ_EVAL_OPTIONS_OF(type) BQ_OPTIONS_OF(type, BQ_EVAL_OPTIONS)

typedef struct bq_eval bq_eval;

/* Scores: one number for each sequence, which `judge` makes of its losses. */
typedef struct {
    bq_scope scope;    /* its section of docs/recipes.md; keys and size of the options.  The first key is the
                          path of the data, all others have defaults */
    const char *name;  /* in recipes, on the command line and in logs */
    const char *value; /* what the number is: "perplexity" */
    const char *unit;  /* what `items` counts: "windows" */
    bool share;        /* the number is a share of the items: result.json has their count, too */
    /* Read and check the data that e->options name, fill in e: BQ_OK, or BQ_USAGE or BQ_DATA after one
     * message.  May fill in options that depend on the data. */
    int (*open)(bq_eval *e);
    /* Write the ids of sequence i, at most e->ctx; returns how many, and in *from the first one whose loss is
     * wanted, at least 1. */
    int64_t (*sequence)(const bq_eval *e, int64_t i, int32_t *ids, int64_t *from);
    /* nll: the negative log-likelihoods of the n tokens of sequence i from `from` on, each given all before
     * it.  Runs on the rank that has the sequence. */
    double (*judge)(const bq_eval *e, int64_t i, const double *nll, int64_t n);
    /* The number, of all scores.  Not finite: it cannot be told. */
    double (*number)(const bq_eval *e, const double *score);
    /* Why the number is not finite: "the loss of window 3 is nan". */
    void (*blame)(const bq_eval *e, const double *score, char *text, size_t size);
} bq_eval_kind;

/* An evaluation whose data are open. */
struct bq_eval {
    const bq_eval_kind *kind;
    void *options;
    const char *path;       /* of the data, for messages */
    bq_tokens tokens;       /* all ids; their tokenizer and vocabulary, "" and 0 where they are not known */
    int64_t first, used;    /* ids [first, first + used) are read */
    int64_t items;          /* what people count: windows, questions */
    int64_t sequences, ctx; /* ctx: tokens of the longest sequence, at least 2 */
    void *data;             /* the kind's own, one piece of malloc */
};

/* Those of a run: the recipe's object `eval`, where it names tokens, then its list `evals`. */
typedef struct {
    bool object; /* the first is that object */
    int count;
    bq_eval eval[1 + BQ_EVALS];
} bq_evals;

/* An element of the list. */
typedef struct {
    int kind; /* bq_eval_kind_at */
    _Alignas(8) char options[BQ_EVAL_OPTIONS];
} bq_evaluation;

/* The table: row i, NULL behind the last; the names as choices of a key. */
const bq_eval_kind *bq_eval_kind_at(int i);
bq_choice bq_eval_choice(int i);
const bq_scope *bq_eval_scope(int i);

/* Open one more.  What open returns; bq_evals_close is due in any case. */
int bq_evals_add(bq_evals *set, const bq_eval_kind *kind, void *options);
void bq_evals_close(bq_evals *set);

/* NaN without a sign, which would be printed. */
double bq_eval_unsigned(double x);

#endif
