/* score.h - the walk of an evaluation: its sequences through all blocks and the head, with the weights asked
 * for.
 *
 * Sequences are walked block by block, so one block of weights is in memory whatever the depth.  They are
 * shared out over the ranks of the world.  The number is made of all scores in their order, so it is the same
 * on any number of ranks.  Sequences shorter than the longest are filled up at their end, which causal
 * attention does not see. */
#ifndef BQ_SCORE_H
#define BQ_SCORE_H

#include "comm/comm.h"
#include "driver/eval/eval.h"
#include "driver/load/source.h"
#include "io/state/stream.h"

typedef struct {
    bq_dev *dev;
    const bq_comm *comm;
    const bq_source *src;
    bq_angles angles;
    bq_home home;                     /* of streams */
    bool (*stopped)(const void *ctx); /* asked on every rank at each block; NULL: never */
    const void *stop_ctx;
    const char *label; /* for the progress line: "fp", "rtn", ... */
    int activations;   /* bits of the inputs of quantized linears; 0: as they are */
    bool prescaled;    /* the quantized form has room for factors of these inputs */
} bq_score;

/* Which weights: fills `what` (pushed) for block blk; NULL means the block's own. */
typedef void (*bq_weights_of)(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q);

/* Open all evaluations of a recipe and check their ids against the model; the recipe must stay where it is.
 * ctx: what messages call the length of the object `eval`.  BQ_OK, or BQ_USAGE or BQ_DATA after one message;
 * bq_evals_close is due in any case. */
int bq_score_open(bq_evals *set, bq_recipe *recipe, const bq_source *src, const char *ctx);

/* Walk all sequences; *value is the same on all ranks.  scheme: of the quantized form, used when weights is
 * not NULL.  BQ_OK; BQ_STOPPED on all ranks when one was stopped; BQ_DATA when the model's own weights give
 * no finite number, after one message that names the sequence.  Other weights may: *value is then inf or NaN
 * (without a sign), after a warning.  Fault point window_nan.  Collective over world. */
int bq_score_run(const bq_score *s, const bq_eval *e, const bq_scheme *scheme, bq_weights_of weights,
                 void *ctx, double *value);

/* Device bytes of the evaluation that takes the most, and of its stream on the rank with the largest share,
 * wherever it lives.  0 without evaluations. */
size_t bq_score_need(const bq_arch *arch, const bq_scheme *scheme, bool prescaled, const bq_evals *set);
/* Host bytes beside both: a sequence, its rotary table, losses, scores. */
size_t bq_score_host(const bq_arch *arch, const bq_evals *set);
size_t bq_score_stream(const bq_arch *arch, const bq_evals *set, int ranks);

#endif
