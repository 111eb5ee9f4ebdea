/* SPDX-License-Identifier: Apache-2.0 */
/* prompts.h - generation of text: prompts as an evaluation whose score is the next token.
 *
 * Each new token is computed from the whole text before it, by one walk through all blocks (score.h): there
 * is no cache of keys and values, so a token costs as much as an evaluation of all texts.  A text is on one
 * rank, but the choice does not depend on which one. */
#ifndef BQ_PROMPTS_H
#define BQ_PROMPTS_H

#include "driver/score/score.h"

/* Make the command line's prompts the only element of the set; args must outlive it.  BQ_OK, or BQ_USAGE or
 * BQ_DATA after one message; bq_evals_close is due in any case.  Local. */
int bq_prompts_open(bq_evals *set, const bq_args *args, const bq_source *src);

/* What the command evaluates: `generate` its prompts, `eval` the recipe's evaluations, others nothing. */
int bq_prompts_or_evals(bq_evals *set, bq_recipe *recipe, const bq_args *args, const bq_source *src);

/* Add args->count tokens to each prompt; an earlier call's are dropped.  weights and so on: as of
 * bq_score_run.  BQ_OK; BQ_STOPPED; BQ_DATA if a logit is not finite, after one message.  Collective over
 * world. */
int bq_prompts_run(const bq_score *s, bq_eval *e, const bq_layouts *layouts, bq_weights_of weights,
                   void *ctx);

/* The tokens that were added to prompt i: args->count of them. */
const int32_t *bq_prompts_added(const bq_eval *e, int64_t i);

#endif
