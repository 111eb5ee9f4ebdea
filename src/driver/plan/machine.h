/* machine.h - how fast a rank is, here or elsewhere, and the seconds that an effort takes there.
 *
 * Here: rates measured in this minute, on all ranks at once.  Elsewhere: published peaks of named GPUs, of
 * which a share is taken as sustained (docs/scaling.md has table and shares). */
#ifndef BQ_MACHINE_H
#define BQ_MACHINE_H

#include "driver/plan/effort.h"

typedef struct {
    const char *name;
    double flop, flop64; /* a second, sustained: GEMM in FP32, factorization in double */
    double memory;       /* bytes a second */
    double network;      /* bytes a second from one rank to another, both ways at a time */
    double latency;      /* seconds of a message */
    double files;        /* bytes a second of weights, one rank, conversion to FP32 included */
} bq_machine;

/* Of an effort: seconds that add up, by what they are spent on.  Arithmetic and traffic of memory overlap in
 * part: both are counted. */
typedef enum { BQ_USE_FLOP, BQ_USE_MEMORY, BQ_USE_NETWORK, BQ_USE_IDLE, BQ_USE_FILES, BQ_USES } bq_use;
extern const char *const bq_use_names[BQ_USES];
double bq_machine_seconds(const bq_machine *machine, const bq_effort *effort, double use[BQ_USES]);

/* The rates of this device for a model with such blocks and samples of so many tokens, over about 0.4 s; on
 * rank 0 the slowest rank's.  Takes bq_machine_need bytes of the arena, which may be all of it.  Collective
 * over world. */
void bq_machine_measure(bq_machine *machine, bq_dev *dev, const bq_arch *arch, int64_t tokens,
                        const bq_comm *comm);
/* Bytes for products of the model's shape, or of parts of it that take `most` at most. */
size_t bq_machine_need(const bq_arch *arch, int64_t tokens, size_t most);

/* A GPU by its name ("h100"), NULL to keep *machine; and a network by its rate ("200Gb", "25GB" a second),
 * NULL for the GPU's default.  BQ_OK, or BQ_USAGE after one message. */
int bq_machine_named(bq_machine *machine, const char *gpu, const char *network);

#endif
