/* SPDX-License-Identifier: Apache-2.0 */
/* machine.h - how fast a rank is, on this machine or another, and how long an effort takes there.
 *
 * Here the rates are measured on all ranks at once.  For other machines they are published peaks times the
 * shares of them that were measured on one GPU (docs/scaling.md).  */
#ifndef BQ_MACHINE_H
#define BQ_MACHINE_H

#include "driver/plan/effort.h"

typedef struct {
    const char *name;
    double flop[BQ_RATES]; /* a second, sustained */
    double memory;         /* bytes a second */
    double fabric;         /* bytes a second from one rank of a node to another, each way */
    double network;        /* the same from node to node, for each rank */
    double latency;        /* seconds of a message */
    double files;          /* bytes of weights a second that one rank reads and makes FP32 */
    double files_all;      /* bytes a second that the file system gives to all ranks together */
    double writes;         /* bytes of a checkpoint a second, one rank */
    int node;              /* ranks of a node */
    size_t gpu;            /* bytes of the GPU that is the device; 0: the host is */
} bq_machine;

/* The seconds of an effort on a grid, and by use.  Arithmetic and memory traffic overlap in part; both are
 * counted.  Replicas of a stage follow each other on the nodes. */
typedef enum {
    BQ_USE_FLOP,
    BQ_USE_MEMORY,
    BQ_USE_FABRIC,
    BQ_USE_NETWORK,
    BQ_USE_IDLE,
    BQ_USE_FILES,
    BQ_USES
} bq_use;
extern const char *const bq_use_names[BQ_USES];
double bq_machine_seconds(const bq_machine *machine, const bq_effort *effort, int nstage, int nreplica,
                          double use[BQ_USES]);

/* Measure the rates of this device for about a second, with blocks of this shape and samples of so many
 * tokens, and with the ways of computing products that the device has; rank 0 gets the slowest rank's.  gpu
 * is 0.  Takes bq_machine_need bytes of the arena, at most all of it.  Collective over world.  */
void bq_machine_measure(bq_machine *machine, bq_dev *dev, const bq_arch *arch, int64_t tokens,
                        const bq_comm *comm);
/* Bytes for ops of the model's shape, or of smaller ones that take at most `most`.  */
size_t bq_machine_need(const bq_arch *arch, int64_t tokens, size_t most);

/* What a user says of a machine: a GPU by name ("h100"), NULL: keep *machine; rates of network and file
 * system ("200Gb" or "25GB" a second), NULL: the default; ranks of a node, 0: the default.  BQ_OK, or
 * BQ_USAGE after one message. */
int bq_machine_named(bq_machine *machine, const bq_args *args);

#endif
