/* SPDX-License-Identifier: Apache-2.0 */
/* eval.h - a kind of evaluation: sequences of token ids, and one number from the losses of their tokens.
 *
 * One file defines a kind, one row of eval.c lists it (docs/add-an-evaluation.md).  A kind reads its own
 * data; score.h computes the losses. */
#ifndef BQ_EVAL_H
#define BQ_EVAL_H

#include "base/key.h"
#include "io/tokens.h"

#define BQ_EVALS                 4    /* evaluations in a recipe's list */
#define BQ_EVAL_OPTIONS          1152 /* most bytes of a kind's options */
#define BQ_EVAL_OPTIONS_OF(type) BQ_OPTIONS_OF(type, BQ_EVAL_OPTIONS)

typedef struct bq_eval bq_eval;

/* Scores: one number for each sequence, which `judge` makes of its losses. */
typedef struct {
    bq_scope scope;    /* of its options.  The first key is the path of the data, all others have defaults */
    const char *name;  /* in recipes, on the command line and in logs */
    const char *value; /* what the number is: "perplexity" */
    const char *unit;  /* what `items` counts: "windows" */
    bool share;        /* the number is a share of the items, whose count is also in result.json */
    const char *const *stat; /* names of the values behind the number: "macro" */
    /* Read and check the data that e->options name, and fill e; may set options that depend on the data.
     * BQ_OK, or BQ_USAGE or BQ_DATA after one message. */
    int (*open)(bq_eval *e);
    /* Write the ids of sequence i, at most e->ctx; returns how many.  *from: the first one whose loss is
     * wanted, at least 1. */
    int64_t (*sequence)(const bq_eval *e, int64_t i, int32_t *ids, int64_t *from);
    /* The score.  nll: negative log-likelihoods of the n tokens of sequence i from `from` on, each given all
     * before it.  On the rank that has the sequence. */
    double (*judge)(const bq_eval *e, int64_t i, const double *nll, int64_t n);
    /* In the place of judge, unless NULL: the score from the n logits of the token that follows. */
    double (*pick)(const bq_eval *e, int64_t i, const float *logits, int64_t n);
    /* From all scores: value[0] is the number; then come e->stats values with the kind's names, and the
     * number of each of the e->parts.  blame: why the number is not finite: "the loss of window 3 is nan". */
    void (*number)(const bq_eval *e, const double *score, double *value);
    void (*blame)(const bq_eval *e, const double *score, char *text, size_t size);
} bq_eval_kind;

#define BQ_EVAL_PARTS 256 /* most parts of an evaluation */
#define BQ_EVAL_NAME  64  /* bytes of the name of one, with the closing 0 */

/* A part of the items that has a number of its own: a subject. */
typedef struct {
    char name[BQ_EVAL_NAME];
    int64_t items;
} bq_eval_part;

/* An evaluation whose data are open. */
struct bq_eval {
    const bq_eval_kind *kind;
    void *options;
    const char *path;       /* of the data, for messages */
    bq_tokens tokens;       /* all ids; their tokenizer and vocabulary, "" and 0: unknown */
    int64_t first, used;    /* ids [first, first + used) are read */
    int64_t items;          /* what people count: windows, questions */
    int64_t sequences, ctx; /* ctx: tokens of the longest sequence, at least 2 */
    void *data;             /* the kind's own, one piece of malloc */
    int stats, parts;       /* values behind the number */
    bq_eval_part *part;     /* malloc */
};

static inline int bq_eval_values(const bq_eval *e) { return 1 + e->stats + e->parts; }

/* The evaluations of a run: the recipe's object `eval` if it names tokens, then its list `evals`. */
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

/* Row i of the table, NULL behind the last; the names as choices of a key; its options. */
const bq_eval_kind *bq_eval_kind_at(int i);
bq_choice bq_eval_choice(int i);
const bq_scope *bq_eval_scope(int i);

/* Open one more; returns what open returns.  Call bq_evals_close in any case. */
int bq_evals_add(bq_evals *set, const bq_eval_kind *kind, void *options);
void bq_evals_close(bq_evals *set);

/* NaN without its sign, which printf would show. */
double bq_eval_unsigned(double x);

#endif
