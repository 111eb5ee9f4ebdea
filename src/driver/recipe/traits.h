/* traits.h - what follows from a recipe's passes for the run around them. */
#ifndef BQ_TRAITS_H
#define BQ_TRAITS_H

#include "driver/recipe/recipe.h"

/* BQ_PASS_CALIBRATED ... of a pass with its options; of all passes of a phase. */
unsigned bq_pass_traits(const bq_pass *p);
unsigned bq_phase_traits(const bq_phase *phase);

/* No steps where the pass does not train. */
bq_training bq_pass_training(const bq_pass *p, int sweep);

/* Device bytes that it takes beside block, result and workspace; what to do when they are too many. */
size_t bq_pass_need(const bq_pass *p, const bq_pass_size *of);
const char *bq_pass_remedy(const bq_pass *p);

/* Does the i-th pass of a phase, done, leave the quantized stream behind the block? */
bool bq_pass_advances(const bq_phase *phase, int i);

/* Does a phase read calibration samples (and so need streams)?  Those of the FP stream beyond a segment's
 * head? */
bool bq_phase_calibrated(const bq_phase *phase);
bool bq_phase_reference(const bq_phase *phase);

/* Is the FP stream moved on behind a segment's head, which is else the quantized stream's alone?  How many
 * streams does the phase have: FP and targets where it is, and the quantized one? */
bool bq_phase_follows(const bq_phase *phase, int segments);
int bq_phase_streams(const bq_phase *phase, int segments);

/* Can the first pass make the targets (c->target of pass.h)? */
bool bq_phase_hands_on(const bq_phase *phase);

#endif
