/* SPDX-License-Identifier: Apache-2.0 */
/* effort.h - what one rank of a grid has to do, counted: arithmetic, traffic of memory, messages, files.
 *
 * The counts are those of the ops' contracts and of docs/architecture.md; docs/scaling.md has them as
 * formulas. The busiest rank is counted: the first replica of a stage. */
#ifndef BQ_EFFORT_H
#define BQ_EFFORT_H

#include "driver/recipe/recipe.h"

enum {
    BQ_WORK_ROTATIONS, /* training them */
    BQ_WORK_SCHEMES,   /* errors of bits.auto */
    BQ_WORK_REFERENCE,
    BQ_WORK_TARGETS,
    BQ_WORK_TRAINING,
    BQ_WORK_PASSES,
    BQ_WORK_ADVANCE,
    BQ_WORK_SAVE, /* checkpoints, all of whose bytes are counted */
    BQ_WORK_DISTILL,
    BQ_WORK_EVAL,
    BQ_WORKS
};

/* Of all blocks of the rank, where each expert gets equally many tokens, in all phases and sweeps.  micro:
 * samples of a micro-batch; split: the reference is shared by samples alone; evals: what the run evaluates;
 * keeps: samples that passes keep midway. */
void bq_effort_count(bq_effort effort[BQ_WORKS], const bq_recipe *recipe, const bq_layouts *layouts,
                     const bq_comm *grid, int64_t micro, bool split, const bq_evals *evals, int64_t keeps);

#endif
