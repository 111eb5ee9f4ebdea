/* methods.h - the passes as a table: what a phase may name, what each takes and does.
 *
 * To add one: its file in src/block, a bq_pass_kind and its options in recipe.h, a row here and one in
 * methods_run.c, a table of keys in keys_pass.c, a recipe in configs that a test runs. */
#ifndef BQ_METHODS_H
#define BQ_METHODS_H

#include "driver/recipe.h"

/* What decides how much device memory a pass takes on this replica. */
typedef struct {
    const bq_arch *arch;
    const bq_scheme *scheme;
    int64_t tokens, samples;
    int replica, nreplica;
    int64_t keeps; /* of so many samples a pass keeps what it goes on from, if it does (bq_pass_keeps) */
} bq_pass_size;

typedef struct {
    const char *name; /* the recipe's, and the result's */
    bool calibrated;  /* reads samples */
    bool reference;   /* of the FP stream whatever the inputs are */
    bool quantizes;   /* leaves codes; the others prepare, and come before all that quantize */
    bool trains;      /* is done again in later sweeps */
    bool hands_on;    /* begins with a walk of what it prepares on through the block: the outputs are near */
    bool backward;    /* needs the workspace of a backward */
    bool asymmetric;  /* can give codes with zero points */
} bq_method;

extern const bq_method bq_methods[BQ_PASS_KINDS];

/* methods_run.c: do the pass: steps done, or a BQ_PASS value.  Collective over stage.  The device bytes that
 * it takes beside block, result and workspace. */
int64_t bq_pass_run(bq_pass_context *c, const bq_pass *p, int sweep);
size_t bq_pass_need(const bq_pass *p, const bq_pass_size *of);

/* What to do when its memory is too much. */
const char *bq_pass_remedy(const bq_pass *p);

/* Does it go on from what it keeps of samples?  Does the i-th pass of a phase, done, leave the quantized
 * stream behind the block? */
bool bq_pass_keeps(const bq_pass *p);
bool bq_pass_advances(const bq_phase *phase, int i);

/* Steps of a pass that trains in one block, 0 for the others. */
int64_t bq_pass_steps(const bq_pass *p, int sweep);

/* Does a phase read calibration samples (and so need streams)?  Those of the FP stream beyond a segment's
 * head?  Is it done again in later sweeps?  Does it
 * need a backward? */
bool bq_phase_calibrated(const bq_phase *phase);
bool bq_phase_reference(const bq_phase *phase);
bool bq_phase_trains(const bq_phase *phase);
bool bq_phase_backward(const bq_phase *phase);

/* Is the FP stream moved on behind a segment's head, which is else the quantized stream's alone?  How many
 * streams does the phase have: FP and targets where it is, and the quantized one? */
bool bq_phase_follows(const bq_phase *phase, int segments);
int bq_phase_streams(const bq_phase *phase, int segments);

/* Does a pass read the block's FP outputs?  Can the first pass make them (c->target of pass.h)? */
bool bq_phase_targets(const bq_phase *phase);
bool bq_phase_hands_on(const bq_phase *phase);

#endif
