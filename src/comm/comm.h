/* SPDX-License-Identifier: Apache-2.0 */
/* comm.h - who the ranks are, and what they decide together.
 *
 * The ranks form a grid of stages x replicas.  A stage owns blocks that follow each other (driver/plan/grid.h
 * decides which); its replicas share the samples.
 *
 * "Collective over C": all ranks of the communicator C call the function, in the same order.  "Local": no
 * other rank has to call it at the same time.  Where another rank is lost the job ends (heartbeat.h), so
 * nothing here returns an error of MPI.  Only one thread of a rank calls MPI (MPI_THREAD_FUNNELED). */
#ifndef BQ_COMM_H
#define BQ_COMM_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BQ_REPLICAS 1024 /* most replicas that a stage may have */

typedef struct {
    MPI_Comm world, stage;
    int rank, size;        /* in world: my rank, number of ranks */
    int istage, nstage;    /* my stage, number of stages */
    int replica, nreplica; /* my number in the stage, ranks of the stage */
    int local, locals;     /* my number among the ranks of this node, their number */
    struct bq_nccl *nccl;  /* between the GPUs of my stage, or NULL (nccl.h) */
    struct bq_nccl *depth; /* between the GPUs of my replica in all stages, or NULL */
} bq_comm;

/* Start MPI, the guard (guard.h) and the heartbeat, with a grid of one stage; set bq_die_hook to abort the
 * job, and tell the log this rank.  BQ_OK; or BQ_LAUNCH after a message when there is one rank while Slurm
 * has started more tasks (srun without PMIx: every process would do the whole job).  close frees what open
 * and grid made and finalizes MPI.  Collective over world. */
int bq_comm_open(bq_comm *comm, int *argc, char ***argv);
void bq_comm_close(bq_comm *comm);

#define BQ_LIBRARY 64 /* bytes of a library's name and version */
/* "Open MPI v4.1.4".  Before bq_comm_open, too.  Local. */
void bq_comm_library(char text[BQ_LIBRARY]);

/* Tell the others that this rank is alive, and look whether they are: at least about once a second in long
 * work without waits or steps, such as hashing a model.  Before bq_comm_open it does nothing.  Local; only
 * for the thread that calls MPI. */
void bq_comm_beat(void);

/* Make a communicator of the ranks that pass the same color, ordered by key.  MPI waits in this call without
 * polling, so all ranks meet in a barrier first.  The caller frees it.  Collective over world. */
void bq_comm_split(const bq_comm *comm, int color, int key, MPI_Comm *part);

/* Cut the ranks of the job into `count` groups of neighbours, each with a world of its own for work that the
 * others do not share; count divides the number of ranks.  `group` has this rank's: numbers and communicators
 * are the group's, local and locals stay those of the node, and the heartbeat stays that of the job.
 * Collective over world.  close: back to the job's. Collective over the group. */
void bq_comm_group(const bq_comm *job, int count, bq_comm *group);
void bq_comm_group_close(const bq_comm *job, bq_comm *group);

/* Make the grid of nstage stages with size / nstage replicas each.  Ranks of a stage follow each other in
 * world.  BQ_LAUNCH after a message when nstage does not divide size.  Collective over world. */
int bq_comm_grid(bq_comm *comm, int nstage);

/* The largest of the values that the ranks pass: so an event on one rank becomes a decision of all.
 * Collective over world. */
int bq_comm_agree(const bq_comm *comm, int mine);

/* Copy rank 0's bytes to all ranks, any size; wait for all ranks, by polling.  Collective over world. */
void bq_comm_bcast(const bq_comm *comm, void *data, size_t bytes);
void bq_comm_barrier(const bq_comm *comm);

/* Fill rank 0's vector of `total` doubles, of which every rank has filled its share (bq_shard_of over the
 * ranks). Collective over world. */
void bq_comm_gather(const bq_comm *comm, double *values, int64_t total);

/* The rank in world of a replica of my stage.  Local. */
int bq_comm_rank_of(const bq_comm *comm, int replica);

/* Wait for all replicas of my stage; copy replica 0's bytes to all of them.  Collective over stage. */
void bq_comm_stage_barrier(const bq_comm *comm);
void bq_comm_stage_bcast(const bq_comm *comm, void *data, int bytes);

/* values[i] = op over all replicas' values[i], any count.  The order of a sum is MPI's: only for sums that
 * have the same bits in every order; else treesum.h.  Collective over stage. */
void bq_comm_reduce(const bq_comm *comm, void *values, int64_t count, MPI_Datatype type, MPI_Op op);

/* Most elements that one call of MPI gets.  Longer messages are sent as a type of several elements, or in
 * several calls.  Tests make it small. */
extern int bq_comm_most;

/* Start to send floats to a rank of world, or to receive them; any count.  Messages between two ranks keep
 * their order.  The buffer must not change until bq_comm_wait on the request has returned.  Local. */
void bq_comm_send(const bq_comm *comm, int to, const float *data, int64_t count, MPI_Request *request);
void bq_comm_receive(const bq_comm *comm, int from, float *data, int64_t count, MPI_Request *request);

/* An MPI type that stands for `count` contiguous floats, for messages beyond MPI's int counts: pieces of
 * `piece` floats, and the rest.  The caller frees it.  Local. */
MPI_Datatype bq_comm_floats(int64_t count, int piece);

/* Wait until all requests are complete.  It polls, and sends and watches heartbeats; after 2 ms it sleeps
 * between looks, so a longer wait uses no core.  Its seconds go to bq_spent.peers.  Local. */
void bq_comm_wait(MPI_Request *request, int count);

#endif
