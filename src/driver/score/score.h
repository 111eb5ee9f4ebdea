/* SPDX-License-Identifier: Apache-2.0 */
/* score.h - one evaluation: takes its sequences through all blocks and the head, with given weights.
 *
 * All sequences go through one block before the next block is read, so the weights of only one block are in
 * memory.  The ranks of the world share the sequences.  The number is computed from all scores in order, so
 * it is the same on any number of ranks.  Sequences shorter than the longest are padded at their end, which
 * causal attention does not read. */
#ifndef BQ_SCORE_H
#define BQ_SCORE_H

#include "comm/comm.h"
#include "driver/eval/eval.h"
#include "driver/load/source.h"
#include "driver/load/through.h"

typedef struct {
    bq_dev *dev;
    const bq_comm *comm;
    const bq_source *src;
    bq_angles angles;
    bq_home home;                     /* where hidden states are kept */
    bool (*stopped)(const void *ctx); /* called on every rank before each block; may be NULL */
    const void *stop_ctx;
    const char *label;         /* for messages: "fp", "rtn", ... */
    bq_rounding inputs, cache; /* with weights: how inputs of linears, keys and values are rounded */
    bool prescaled;            /* weights may set factors of these inputs (blk->pre) */
    const float *norm;         /* with weights: gains of the final norm (H); NULL: the model's */
    const float *grids, *kv;   /* what these roundings need (through.h) */
} bq_score;

/* Open all evaluations of a recipe, which must outlive the set, and check their ids against the model.  ctx:
 * the name of the length of the object `eval`, for messages.  BQ_OK, or BQ_USAGE or BQ_DATA after one
 * message; bq_evals_close is due in any case.  Local. */
int bq_score_open(bq_evals *set, bq_recipe *recipe, const bq_source *src, const char *ctx);

/* Run an evaluation; value: bq_eval_values(e) numbers, the same on all ranks.  weights: of each unit, NULL:
 * the model's own.  With weights, embedding and head are rounded by the recipe's schemes, too.
 * layouts: of the units with their schemes, read only if weights is not NULL.  BQ_OK; BQ_STOPPED on all
 * ranks if a stop came to one; BQ_DATA if the number of the model's own weights is not finite, after one
 * message that names the sequence.  With other weights value[0] is then inf or NaN (without a sign), after a
 * warning.  Fault point window_nan.  Collective over world. */
int bq_score_run(const bq_score *s, const bq_eval *e, const bq_layouts *layouts, bq_weights_of weights,
                 void *ctx, double *value);

/* The same up to the scores: score[i] of sequence i, on all ranks; finite or not.  BQ_OK or BQ_STOPPED. */
int bq_score_each(const bq_score *s, const bq_eval *e, const bq_layouts *layouts, bq_weights_of weights,
                  void *ctx, double *score);

/* Bytes of the evaluation that takes the most; 0 without evaluations.  layouts: of the model's units, with
 * schemes if `quantized`; arch: of the first.  need: on the device.  host: a sequence, its rotary table,
 * losses, scores, lists of experts.  stream: hidden states on the rank with the largest share. */
size_t bq_score_need(const bq_layouts *layouts, bool quantized, bool prescaled, const bq_evals *set);
size_t bq_score_host(const bq_arch *arch, const bq_evals *set, int ranks);
size_t bq_score_stream(const bq_arch *arch, const bq_evals *set, int ranks);

#endif
