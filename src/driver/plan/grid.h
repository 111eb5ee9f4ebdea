/* grid.h - which rank does which blocks and samples.  Pure arithmetic: a launch decides it, results do not
 * see it.
 *
 * A unit is what may run apart from the rest: a segment, or with `inputs: fp` in every phase a single block.
 * A stage owns blocks that follow each other; its replicas share the samples.  Where the stages' number does
 * not divide the units', stages end inside segments, so that all have the same share of the blocks: see
 * bq_piece. */
#ifndef BQ_GRID_H
#define BQ_GRID_H

#include "base/shard.h"
#include "driver/recipe/recipe.h"

typedef struct {
    const bq_recipe *recipe;
    int blocks, nstage;
    bool cut; /* stages may end inside a segment */
} bq_grid;

/* Units, and where unit u starts; u = units: one past the last block. */
int bq_grid_units(const bq_grid *g);
int bq_grid_start(const bq_grid *g, int unit);
bool bq_grid_is_start(const bq_grid *g, int block);
/* The first block of the unit that `block` lies in. */
int bq_grid_unit_start(const bq_grid *g, int block);

/* Blocks of a stage: [first, first + count). */
bq_shard bq_grid_blocks(const bq_grid *g, int stage);

/* A stage's blocks in the order in which they are walked, at most BQ_PIECES ranges: first the beginning of
 * the segment that goes on in the next stage (gives: its quantized stream is handed on as soon as it is
 * there), then whole units, last the end of the segment that began in the stage before (takes).  So nobody
 * waits for anybody as long as pieces are shorter than what stages have besides.  Returns how many. */
enum { BQ_PIECES = 3 };
typedef struct {
    int first, end;
    bool gives, takes;
} bq_piece;
int bq_grid_pieces(const bq_grid *g, int stage, bq_piece piece[BQ_PIECES]);

/* Stages for that many ranks: the most that leave no stage without a unit and give all stages the same number
 * of replicas. */
int bq_grid_stages(const bq_grid *g, int ranks);

/* g->nstage for a launch: those, or wish > 0.  BQ_LAUNCH with one message when there is no such grid, or more
 * replicas than samples. */
int bq_grid_choose(bq_grid *g, int ranks, int wish);

#endif
