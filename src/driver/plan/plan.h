/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - what a run needs, computed before it starts: bytes by consumer, arithmetic by phase.
 *
 * Sizes come from the functions that push the memory, so plan and run agree.  */
#ifndef BQ_PLAN_H
#define BQ_PLAN_H

#include "block/passes/pass.h"
#include "driver/plan/machine.h"
#include "driver/recipe/args.h"
#include "io/state/stream.h"

#define BQ_PLAN_ITEMS 20

typedef struct {
    const char *name;
    size_t bytes;
    bq_place place;     /* BQ_DEVICE: in the arena */
    const char *remedy; /* for a plan that does not fit, of which this is the largest item */
} bq_plan_item;

typedef struct {
    int items;
    bq_plan_item item[BQ_PLAN_ITEMS];
    char pass[48], midway[64]; /* the names of two of them */
    int nstage, nreplica;      /* the grid */
    int64_t micro;             /* samples of a micro-batch */
    size_t arena;              /* device bytes to reserve: the largest of phases, evaluation, reference */
    size_t total, limit;       /* bytes of the process; what it may use */
    size_t gpu;                /* bytes of the GPU that has the arena; 0: the device is the host */
    bool direct;    /* the GPU also has room for micro-batches of the reference: messages from GPU to GPU */
    int64_t ahead;  /* floats of a buffer for the next block's weights (ahead.h); 0: not read ahead */
    bq_home home;   /* where streams are; its device is the session's */
    int64_t keeps;  /* samples for which passes keep states inside the block (midway.h), in half of the memory
                      that is left; the others are computed again */
    size_t pending; /* bytes of the copy of a checkpoint that a thread writes; 0: it is written at once */
    bq_effort effort[BQ_WORKS];
} bq_plan;

/* Plan this rank's run on its grid.
 *   args     memory, scratch, micro, split_reference, threads
 *   evals    what the run evaluates
 *   gpu      bytes of the GPU that is the device; 0: the host is
 * On a GPU: streams, the next block's weights and micro-batches are there if it has room for them; else
 * streams are in pinned memory.  Copies for files and messages are on the host.  */
void bq_plan_make(bq_plan *plan, const bq_recipe *recipe, const bq_layouts *layouts, const bq_comm *comm,
                  const bq_args *args, const bq_evals *evals, size_t gpu);

/* Host bytes of the data of the largest checkpoint of a run.  */
size_t bq_plan_checkpoint(const bq_recipe *recipe, const bq_layouts *layouts);

/* Bytes on the GPU, with those of libraries; 0: the device is the host.  */
size_t bq_plan_on_gpu(const bq_plan *plan);

/* Does it fit on the GPU and on the host?  BQ_USAGE after one message with the largest item if not.  */
bool bq_plan_fits(const bq_plan *plan);
int bq_plan_check(const bq_plan *plan);

/* Does an evaluation without a run fit?  limit as above.  *use: NULL, or scratch if the stream must be there.
 * BQ_USAGE after one message if it does not.  */
int bq_plan_evaluation(size_t arena, size_t stream, size_t limit, const bq_comm *comm, const char *scratch,
                       const char **use);

/* Device bytes that measuring rates for the plan may take.  */
size_t bq_plan_probe(const bq_plan *plan);

/* Bytes in a place; the number of the largest item that is not printed, -1: all are. */
size_t bq_plan_sum(const bq_plan *plan, bq_place place);
int bq_plan_largest(const bq_plan *plan, const bool *printed);

/* The seconds of each kind of work on a machine, then of all, and by use.  */
void bq_plan_seconds(const bq_plan *plan, const bq_machine *machine, double seconds[BQ_WORKS + 1],
                     double use[BQ_USES]);

/* Where streams are, as text.  */
const char *bq_plan_home(const bq_plan *plan, char *text, size_t n);

/* Print the tables of memory, largest item first, and of work, in seconds of this machine.  */
void bq_plan_print(const bq_plan *plan, const bq_machine *machine, FILE *out);

/* Runs on machines that need not be here. */
typedef struct {
    const bq_recipe *recipe;
    const bq_layouts *layouts;
    const bq_args *args;
    const bq_evals *evals;
    const bq_machine *machine;
} bq_forecast;

/* Plan the first rank of so many, which has most to do.  BQ_LAUNCH after one message if they have no grid. */
int bq_plan_forecast(bq_plan *plan, const bq_forecast *forecast, int ranks);

/* Print what other numbers of ranks would need: grid, bytes of a rank, predicted seconds, efficiency, what
 * takes most time besides arithmetic, and whether it does not fit.  For args->ranks 0: as long as more ranks
 * save a tenth; else for powers of two up to that number, and the number.  args->stages where they divide the
 * ranks.  */
void bq_plan_advise(const bq_forecast *forecast, FILE *out);

/* Fill in the scheme of each linear.  BQ_USAGE if the recipe names linears that the model does not have, or a
 * group that does not divide the columns.  */
int bq_plan_schemes(const bq_recipe *recipe, bq_layouts *layouts);

#endif
