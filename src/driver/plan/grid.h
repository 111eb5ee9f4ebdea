/* SPDX-License-Identifier: Apache-2.0 */
/* grid.h - which rank does which blocks and samples.  Pure arithmetic; results do not depend on the grid.
 *
 * A unit is what can run independently: a segment, or a block if every phase has `inputs: fp`.  A stage owns
 * consecutive blocks; its replicas share the samples.  Where the stages do not divide the units, stages end
 * inside segments, so that all have equal shares of the blocks: see bq_piece.  */
#ifndef BQ_GRID_H
#define BQ_GRID_H

#include "base/shard.h"
#include "driver/recipe/recipe.h"

typedef struct {
    const bq_recipe *recipe;
    int blocks, nstage;
    bool cut; /* stages may end inside a segment */
} bq_grid;

/* The number of units, and the first block of unit u; u = units: one past the last block.  */
int bq_grid_units(const bq_grid *g);
int bq_grid_start(const bq_grid *g, int unit);
/* Is a block the first of a unit?  The first block of its unit.  */
bool bq_grid_is_start(const bq_grid *g, int block);
int bq_grid_unit_start(const bq_grid *g, int block);

/* Blocks of a stage: [first, first + count). */
bq_shard bq_grid_blocks(const bq_grid *g, int stage);

/* A stage's blocks in the order of work, at most BQ_PIECES ranges; returns how many.  First the beginning of
 * the segment that the next stage goes on with (gives: its quantized stream is sent on when it is ready),
 * then whole units, last the end of the segment that the stage before began (takes).  So no stage waits while
 * pieces are shorter than the rest of a stage's work.  */
enum { BQ_PIECES = 3 };
typedef struct {
    int first, end;
    bool gives, takes;
} bq_piece;
int bq_grid_pieces(const bq_grid *g, int stage, bq_piece piece[BQ_PIECES]);

/* The most stages for so many ranks that leave no stage without a unit and have equally many replicas.  */
int bq_grid_stages(const bq_grid *g, int ranks);

/* Set g->nstage for a launch: to that, or to wish > 0.  BQ_LAUNCH after one message if there is no such grid,
 * or a stage has more replicas than samples.  */
int bq_grid_choose(bq_grid *g, int ranks, int wish);

#endif
