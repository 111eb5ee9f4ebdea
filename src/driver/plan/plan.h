/* plan.h - what a run needs, computed before it starts: bytes by consumer, arithmetic by phase.
 *
 * Sizes come from the functions that push the memory, so plan and run agree.  */
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
    const char *remedy; /* for a plan that does not fit, of which this is the largest item */
} bq_plan_item;

typedef struct {
    int items;
    bq_plan_item item[BQ_PLAN_ITEMS];
    char pass[48], midway[64]; /* the names of two of them */
    size_t arena;              /* device bytes to reserve: the largest of phases, evaluation, reference */
    size_t total, limit;       /* bytes of the process; what it may use */
    size_t gpu;                /* bytes of the GPU that has the arena; 0: the device is the host */
    bool direct;   /* the GPU also has room for micro-batches of the reference: messages from GPU to GPU */
    int64_t ahead; /* floats of a buffer for the next block's weights (ahead.h); 0: not read ahead */
    bq_home home;  /* where streams are; its device is the session's */
    int64_t keeps; /* samples for which passes keep states inside the block (midway.h), in half of the memory
                      that is left; the others are computed again */
    bq_effort effort[BQ_WORKS];
} bq_plan;

/* Plan this rank's run on its grid.
 *   micro    samples of a micro-batch
 *   limit    bytes that the process may use; 0: an even share of what the machine or its cgroup gives
 *   scratch  directory for streams that do not fit into memory; NULL: none
 *   split    see bq_effort_count
 *   evals    what the run evaluates
 *   gpu      bytes of the GPU that is the device; 0: the host is
 *   threads  of the cpu backend; 0: as many as OpenMP starts
 * On a GPU: streams, the next block's weights and micro-batches are there if it has room for them; else
 * streams are in pinned memory.  Copies for files and messages are on the host.  */
void bq_plan_make(bq_plan *plan, const bq_recipe *recipe, const bq_layouts *layouts, const bq_comm *comm,
                  int64_t micro, size_t limit, const char *scratch, bool split, const bq_evals *evals,
                  size_t gpu, int threads);

/* BQ_USAGE after one message with the largest item, if the plan does not fit.  */
int bq_plan_check(const bq_plan *plan);

/* Does an evaluation without a run fit?  limit as above.  *use: NULL, or scratch if the stream must be there.
 * BQ_USAGE after one message if it does not.  */
int bq_plan_evaluation(size_t arena, size_t stream, size_t limit, const bq_comm *comm, const char *scratch,
                       const char **use);

/* Device bytes that measuring rates for the plan may take.  */
size_t bq_plan_probe(const bq_plan *plan);

/* Where streams are, as text.  */
const char *bq_plan_home(const bq_plan *plan, char *text, size_t n);

/* Print the tables of memory, largest item first, and of work, in seconds of this machine.  */
void bq_plan_print(const bq_plan *plan, const bq_machine *machine, FILE *out);

/* Print what other numbers of ranks would need: grid, bytes of a rank, predicted seconds, efficiency, and
 * what takes most time besides arithmetic. most 0: as long as more ranks save a tenth; else powers of two up
 * to `most`, and `most`.  */
void bq_plan_advise(const bq_recipe *recipe, const bq_layouts *layouts, const bq_machine *machine,
                    const bq_evals *evals, int most, FILE *out);

/* Fill in the scheme of each linear.  BQ_USAGE if the recipe names linears that the model does not have, or a
 * group that does not divide the columns.  */
int bq_plan_schemes(const bq_recipe *recipe, bq_layouts *layouts);

#endif
