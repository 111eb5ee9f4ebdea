/* comm.h - who the ranks are, and what they decide together.
 *
 * The grid is stages x replicas: a stage owns whole segments of blocks, its replicas share the samples.
 * "collective": all ranks of the named communicator call it, in the same order.  "local": no message is sent.
 * A lost peer ends the job (heartbeat.h); nothing here returns an error.  One thread talks MPI
 * (MPI_THREAD_FUNNELED). */
#ifndef BQ_COMM_H
#define BQ_COMM_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BQ_REPLICAS 1024 /* most replicas of a stage */

typedef struct {
    MPI_Comm world, stage;
    int rank, size;        /* in world */
    int istage, nstage;    /* my stage, number of stages */
    int replica, nreplica; /* my place in the stage */
    int local, locals;     /* my number among the ranks of this node, and how many they are */
    struct bq_nccl *nccl;  /* between the GPUs of the stage, or NULL (nccl.h) */
    struct bq_nccl *depth; /* between those of my replica in all stages, or NULL */
} bq_comm;

/* Start MPI, install the abort hook, tell the log who speaks.  Refuses (BQ_LAUNCH) a world of one rank while
 * Slurm announces more tasks: that is srun without PMIx, and every process would do the whole job. Collective
 * over world. */
int bq_comm_open(bq_comm *comm, int *argc, char ***argv);
/* Finalize MPI.  Collective over world. */
void bq_comm_close(bq_comm *comm);

/* I am alive: called in long work in which a rank neither waits nor steps (a model is hashed), at least every
 * second or so.  Nothing before bq_comm_open.  Local; not from other threads. */
void bq_comm_beat(void);

/* A communicator of the ranks that pass the same color, in the order of their keys: after all have come,
 * since MPI waits here without polling.  The caller frees it.  Collective over world. */
void bq_comm_split(const bq_comm *comm, int color, int key, MPI_Comm *part);

/* Make the grid of nstage x (size / nstage); BQ_LAUNCH when it does not divide.  Collective over world. */
int bq_comm_grid(bq_comm *comm, int nstage);

/* The largest of the values the ranks pass: how a local event becomes everybody's decision.
 * Collective over world. */
int bq_comm_agree(const bq_comm *comm, int mine);

/* Rank 0's bytes for everyone, in pieces that fit MPI's counts.  Collective over world. */
void bq_comm_bcast(const bq_comm *comm, void *data, size_t bytes);

/* values[i] of rank 0 = values[i] of the rank that owns i: rank r passes its share [first, first + count) of
 * a vector of `total` doubles, rank 0 ends with all of it.  Shares as bq_shard_of.  Collective over world. */
void bq_comm_gather(const bq_comm *comm, double *values, int64_t total);

/* The rank of the world that a replica of my stage is.  Local. */
int bq_comm_rank_of(const bq_comm *comm, int replica);

/* The same among the replicas of a stage, and replica 0's bytes for them.  Collective over stage. */
void bq_comm_stage_barrier(const bq_comm *comm);
void bq_comm_stage_bcast(const bq_comm *comm, void *data, int bytes);

/* values[i] = op of everybody's values[i].  Any count.  Collective over stage. */
void bq_comm_reduce(const bq_comm *comm, void *values, int64_t count, MPI_Datatype type, MPI_Op op);

/* Most elements of one call of MPI: what is more goes as a type of several elements, or in several calls.
 * Tests make it small. */
extern int bq_comm_most;

/* Start to send or receive floats between two ranks of the world, in order; the buffer is theirs until
 * bq_comm_wait on the request.  Any count.  Local. */
void bq_comm_send(const bq_comm *comm, int to, const float *data, int64_t count, MPI_Request *request);
void bq_comm_receive(const bq_comm *comm, int from, float *data, int64_t count, MPI_Request *request);

/* `count` floats that lie together as one MPI type, for messages beyond MPI's counts: pieces of `piece`
 * floats, and the rest.  The caller frees it.  Local. */
MPI_Datatype bq_comm_floats(int64_t count, int piece);

/* Wait until all requests are done, by polling: a rank that waits for more than 2 ms uses no core.  Local. */
void bq_comm_wait(const bq_comm *comm, MPI_Request *request, int count);

/* Everyone waits for everyone, by polling.  Collective over world. */
void bq_comm_barrier(const bq_comm *comm);

#endif
