/* grid.h - which rank does which blocks and samples.  Pure arithmetic: a launch decides it, results do not
 * see it.
 *
 * A unit is what may run apart from the rest: a segment, or with `inputs: fp` in every phase a single block.
 * A stage owns whole units that follow each other; its replicas share the samples. */
#ifndef BQ_GRID_H
#define BQ_GRID_H

#include "base/shard.h"
#include "driver/recipe.h"

/* Units of a model of that many blocks, and where unit u starts; u = units: one past the last block. */
int bq_grid_units(const bq_recipe *recipe, int blocks);
int bq_grid_start(const bq_recipe *recipe, int blocks, int unit);
bool bq_grid_is_start(const bq_recipe *recipe, int blocks, int block);

/* Blocks of a stage: [first, first + count). */
bq_shard bq_grid_blocks(const bq_recipe *recipe, int blocks, int stage, int nstage);

/* Stages for that many ranks: the most that leave no stage without a unit and give all stages the same number
 * of replicas.  wish > 0: that number.  BQ_LAUNCH with one message when there is no such grid, or more
 * replicas than samples. */
int bq_grid_choose(const bq_recipe *recipe, int blocks, int ranks, int wish, int *nstage);

#endif
