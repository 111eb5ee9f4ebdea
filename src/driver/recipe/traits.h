/* SPDX-License-Identifier: Apache-2.0 */
/* traits.h - what the recipe's passes mean for the run. */
#ifndef BQ_TRAITS_H
#define BQ_TRAITS_H

#include "driver/recipe/recipe.h"

/* BQ_PASS_CALIBRATED ... of a pass with its options; of all passes of a phase. */
unsigned bq_pass_traits(const bq_pass *p);
unsigned bq_phase_traits(const bq_phase *phase);

/* No steps if the pass does not train. */
bq_training bq_pass_training(const bq_pass *p, int sweep);

/* Device bytes of a pass besides block, result and workspace; what to do if they are too many. */
size_t bq_pass_need(const bq_pass *p, const bq_pass_size *of);
const char *bq_pass_remedy(const bq_pass *p);

/* Does the i-th pass of a phase also compute the block's outputs in the quantized stream? */
bool bq_pass_advances(const bq_phase *phase, int i);

/* calibrated: does the phase read samples?  reference: also the FP stream beyond a segment's head?  follows:
 * is the FP stream computed behind a segment's head?  streams: how many, of FP stream, targets, quantized
 * stream. */
bool bq_phase_calibrated(const bq_phase *phase);
bool bq_phase_reference(const bq_phase *phase);
bool bq_phase_follows(const bq_phase *phase, int segments);
int bq_phase_streams(const bq_phase *phase, int segments);

/* With experts.  tokens: the most that one is calibrated with.  routes: for how many streams their inputs are
 * kept.  rows: are the expert's tokens of that stream (or the targets) collected for its passes? */
int64_t bq_recipe_expert_tokens(const bq_recipe *r);
int bq_phase_routes(const bq_phase *phase, int segments);
bool bq_phase_expert_rows(const bq_phase *phase, bq_stream_id stream);

/* Its passes as a result's name has them: "gptq+adascale". */
void bq_phase_title(const bq_phase *phase, char *out, size_t n);
/* That name, of the last phase; "result" if it is "rtn" and not the only phase, since "rtn" is the name of
 * the original weights rounded to nearest. */
void bq_recipe_title(const bq_recipe *r, char *out, size_t n);

/* Does a later phase or sweep start from the result of this one?  Then checkpoints keep the weights before
 * rounding. */
bool bq_recipe_continues(const bq_recipe *r, int phase, int sweep);

/* Has it a pass that prepares: that changes weights, norms and biases? */
bool bq_phase_prepares(const bq_phase *phase);

/* Can the first pass make the targets (c->target of pass.h)? */
bool bq_phase_hands_on(const bq_phase *phase);

#endif
