/* plan.h - what a run takes, before it takes it: bytes by consumer, arithmetic by phase.
 *
 * Sizes come from the same functions that push the memory, so a plan cannot drift from the run. */
#ifndef BQ_PLAN_H
#define BQ_PLAN_H

#include "block/pass.h"
#include "driver/recipe.h"

#define BQ_PLAN_ITEMS 16

typedef struct {
    const char *name;
    size_t bytes;
    bool device; /* in the device arena; else host */
} bq_plan_item;

typedef struct {
    int items;
    bq_plan_item item[BQ_PLAN_ITEMS];
    size_t arena;        /* device bytes to reserve: the largest of phases and evaluation */
    size_t total, limit; /* bytes of the process; what it may use */
    const char *scratch; /* where streams live; NULL: memory */
    double flop_targets, flop_train, flop_advance, flop_eval;
} bq_plan;

/* Plan this rank's run on its grid.  micro: samples of a micro-batch.  limit 0: what the machine (or its
 * cgroup) gives.  scratch: directory offered for streams, used only when they do not fit in memory; NULL:
 * none.  eval: the evaluation is part of the run. */
void bq_plan_make(bq_plan *plan, const bq_recipe *recipe, const bq_arch *arch, const bq_scheme *scheme,
                  const bq_comm *comm, int64_t micro, size_t limit, const char *scratch, bool eval);

/* BQ_USAGE, with one message naming the largest consumer, when the plan does not fit. */
int bq_plan_check(const bq_plan *plan);

/* The table, largest consumer first.  rate: flop/s to predict seconds with, 0: leave them out. */
void bq_plan_print(const bq_plan *plan, double rate, FILE *out);

/* Flop/s of a GEMM of the block's own shapes on this device now, over about 0.2 s. */
double bq_plan_rate(bq_dev *dev, const bq_arch *arch, int64_t tokens);

/* Does a phase read calibration samples (and so need streams)? */
bool bq_phase_calibrated(const bq_phase *phase);

/* The scheme of each linear of the model; BQ_USAGE when the recipe names linears the model does not have, or
 * a group that does not divide a linear's columns. */
int bq_plan_schemes(const bq_recipe *recipe, const bq_arch *arch, bq_scheme *scheme);

#endif
