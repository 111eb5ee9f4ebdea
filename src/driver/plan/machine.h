/* machine.h - how fast a rank is, on this machine or another, and how long an effort takes there.
 *
 * Here the rates are measured on all ranks at once.  For other machines they are published peaks times the
 * shares that docs/scaling.md gives.  */
#ifndef BQ_MACHINE_H
#define BQ_MACHINE_H

#include "driver/plan/effort.h"

typedef struct {
    const char *name;
    double flop, flop64; /* a second, sustained: GEMM in FP32, factorization in double */
    double memory;       /* bytes a second */
    double network;      /* bytes a second from one rank to another, each way */
    double latency;      /* seconds of a message */
    double files;        /* bytes of weights a second, one rank, with conversion to FP32 */
    size_t gpu;          /* bytes of the GPU that is the device; 0: the host is */
} bq_machine;

/* The seconds of an effort, and by use.  Arithmetic and memory traffic overlap in part; both are counted.  */
typedef enum { BQ_USE_FLOP, BQ_USE_MEMORY, BQ_USE_NETWORK, BQ_USE_IDLE, BQ_USE_FILES, BQ_USES } bq_use;
extern const char *const bq_use_names[BQ_USES];
double bq_machine_seconds(const bq_machine *machine, const bq_effort *effort, double use[BQ_USES]);

/* Measure the rates of this device for about 0.4 s, with blocks of this shape and samples of so many tokens;
 * rank 0 gets the slowest rank's.  gpu is 0.  Takes bq_machine_need bytes of the arena, at most all of it.
 * Collective over world.  */
void bq_machine_measure(bq_machine *machine, bq_dev *dev, const bq_arch *arch, int64_t tokens,
                        const bq_comm *comm);
/* Bytes for products of the model's shape, or of smaller ones that take at most `most`.  */
size_t bq_machine_need(const bq_arch *arch, int64_t tokens, size_t most);

/* A GPU by name ("h100"), or NULL: keep *machine; a network by rate ("200Gb" or "25GB" a second), or NULL:
 * the default.  BQ_OK, or BQ_USAGE after one message.  */
int bq_machine_named(bq_machine *machine, const char *gpu, const char *network);

#endif
