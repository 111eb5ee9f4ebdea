/* plan.h - what a run takes, before it takes it: bytes by consumer, arithmetic by phase.
 *
 * Sizes come from the same functions that push the memory, so a plan cannot drift from the run. */
#ifndef BQ_PLAN_H
#define BQ_PLAN_H

#include "block/passes/pass.h"
#include "driver/plan/machine.h"
#include "io/state/stream.h"

#define BQ_PLAN_ITEMS 20

typedef struct {
    const char *name;
    size_t bytes;
    bq_place place;     /* BQ_DEVICE: in the arena */
    const char *remedy; /* when it is the largest and too large */
} bq_plan_item;

typedef struct {
    int items;
    bq_plan_item item[BQ_PLAN_ITEMS];
    char pass[48], midway[64]; /* the names of two of them */
    size_t arena;              /* device bytes to reserve: the largest of phases, evaluation, reference */
    size_t total, limit;       /* bytes of the process; what it may use */
    size_t gpu;                /* bytes of a GPU that hold the arena; 0: the device is the host */
    bool direct;   /* it holds micro-batches of the reference, too, for messages from GPU to GPU */
    int64_t ahead; /* floats of a buffer for the next block's weights (ahead.h); 0: they are not read ahead */
    bq_home home;  /* where streams live; its device is the session's */
    int64_t keeps; /* of so many samples of the share, where passes ask for it, they keep what they go on from
                      (midway.h): those that half of the memory left has room for; the others take time */
    bq_effort effort[BQ_WORKS];
} bq_plan;

/* Plan this rank's run on its grid.  micro: samples of a micro-batch.  limit 0: an even share of what the
 * machine (or its cgroup) gives.  scratch: directory offered for streams, used only when they do not fit in
 * memory; NULL: none.  split: see bq_effort_count.  evals: what the run evaluates.  gpu: bytes of
 * the GPU that is the device, 0: the host is.  With one the arena is there; the next block's weights are read
 * ahead to it, and micro-batches are there, where it has room for them; streams live there if they fit, else
 * pinned; and what is copied to write it to files, or to send it, is on the host, where micro-batches have
 * room, too: whether they go from GPU to GPU turns out later.  threads: of the cpu backend; 0: as many as
 * OpenMP starts.  What the process holds already is counted as the first plan finds it. */
void bq_plan_make(bq_plan *plan, const bq_recipe *recipe, const bq_arch *arch, const bq_scheme *scheme,
                  const bq_comm *comm, int64_t micro, size_t limit, const char *scratch, bool split,
                  const bq_evals *evals, size_t gpu, int threads);

/* BQ_USAGE, with one message naming the largest consumer, when the plan does not fit. */
int bq_plan_check(const bq_plan *plan);

/* Does an evaluation alone fit: arena and stream bytes against limit (0: as for a plan)?  *use: NULL, or
 * scratch where only that lets it.  BQ_USAGE with one message when it does not. */
int bq_plan_evaluation(size_t arena, size_t stream, size_t limit, const bq_comm *comm, const char *scratch,
                       const char **use);

/* Bytes of the device that measuring rates for the plan may take: within what may be used, and never many. */
size_t bq_plan_probe(const bq_plan *plan);

/* Where streams live, in words. */
const char *bq_plan_home(const bq_plan *plan, char *text, size_t n);

/* The tables of memory, largest consumer first, and of work; machine: whose seconds, of all of it, are
 * predicted.
 */
void bq_plan_print(const bq_plan *plan, const bq_machine *machine, FILE *out);

/* What other numbers of ranks would make of the same recipe: the grid that a run would choose, bytes of a
 * rank, predicted seconds, how much of the ranks' time is used, and what takes the most of them besides
 * arithmetic. most 0: as long as more ranks help by a tenth; else powers of two up to that many, and it. */
void bq_plan_advise(const bq_recipe *recipe, const bq_arch *arch, const bq_scheme *scheme,
                    const bq_machine *machine, const bq_evals *evals, int most, FILE *out);

/* The scheme of each linear of the model; BQ_USAGE when the recipe names linears the model does not have, or
 * a group that does not divide a linear's columns. */
int bq_plan_schemes(const bq_recipe *recipe, const bq_arch *arch, bq_scheme *scheme);

#endif
