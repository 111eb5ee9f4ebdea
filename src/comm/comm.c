/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/comm.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "base/meter.h"
#include "base/shard.h"
#include "comm/guard.h"
#include "comm/heartbeat.h"
#include "comm/nccl.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void abort_job(int code) {
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size > 1) sleep(1); /* gives the error line time to leave the node before the job is torn down */
    MPI_Abort(MPI_COMM_WORLD, code);
}

/* Called while a device is waited for: such a wait, too, must send and watch heartbeats. */
static const bq_comm *opened;

static void waiting(void) {
    bq_heartbeat_wait();
    bq_nccl_poll(opened->nccl);
    bq_nccl_poll(opened->depth);
}

void bq_comm_beat(void) {
    if (opened) waiting();
}

int bq_comm_open(bq_comm *comm, int *argc, char ***argv) {
    int provided;
    bq_guard_open();
    /* For a run without mpirun, two settings of Open MPI: start no daemon, which takes longer than a
     * small run; and make no session directory in /tmp, which all such processes of a user share and
     * delete for each other. */
    if (!bq_guard_launched()) {
        setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
        setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
    }
    bq_heartbeat_within("MPI_Init");
    bq_fault_signal("open_stop", SIGSTOP);
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
    BQ_CHECK(provided >= MPI_THREAD_FUNNELED, "MPI offers thread level %d, MPI_THREAD_FUNNELED is needed",
             provided);
    bq_die_hook = abort_job;
    opened = comm, bq_dev_waiting = waiting;
    *comm = (bq_comm){.world = MPI_COMM_WORLD, .stage = MPI_COMM_NULL, .nstage = 1, .nreplica = 1};
    MPI_Comm_rank(comm->world, &comm->rank);
    MPI_Comm_size(comm->world, &comm->size);
    bq_log_identity(comm->rank, comm->size);
    MPI_Comm node;
    MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    MPI_Comm_rank(node, &comm->local);
    MPI_Comm_size(node, &comm->locals);
    MPI_Comm_free(&node);
    bq_heartbeat_open(comm);
    bq_heartbeat_within(NULL);
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    if (comm->size == 1 && tasks && atoi(tasks) > 1 && !getenv("OMPI_COMM_WORLD_SIZE"))
        return bq_refuse(BQ_LAUNCH,
                         "Slurm started %s tasks but MPI sees one rank: use `srun --mpi=pmix` or mpirun",
                         tasks);
    return bq_comm_grid(comm, 1);
}

void bq_comm_close(bq_comm *comm) {
    bq_heartbeat_close();
    bq_heartbeat_within("MPI_Finalize");
    bq_fault_signal("close_stop", SIGSTOP);
    if (comm->stage != MPI_COMM_NULL) MPI_Comm_free(&comm->stage);
    bq_die_hook = NULL, bq_dev_waiting = NULL, opened = NULL;
    MPI_Finalize();
    bq_heartbeat_within(NULL);
}

void bq_comm_library(char text[BQ_LIBRARY]) {
    char whole[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(whole, &length);
    snprintf(text, BQ_LIBRARY, "%.*s", (int)strcspn(whole, ",\n"), whole);
}

void bq_comm_split(const bq_comm *comm, int color, int key, MPI_Comm *part) {
    bq_comm_barrier(comm);
    bq_heartbeat_within("MPI_Comm_split");
    MPI_Comm_split(comm->world, color, key, part);
    bq_heartbeat_within(NULL);
}

int bq_comm_grid(bq_comm *comm, int nstage) {
    if (nstage < 1 || comm->size % nstage)
        return bq_refuse(BQ_LAUNCH, "%d ranks cannot be cut into %d equal stages", comm->size, nstage);
    if (comm->stage != MPI_COMM_NULL) MPI_Comm_free(&comm->stage);
    comm->nstage = nstage;
    comm->nreplica = comm->size / nstage;
    comm->istage = comm->rank / comm->nreplica;
    comm->replica = comm->rank % comm->nreplica;
    bq_comm_split(comm, comm->istage, comm->replica, &comm->stage);
    return BQ_OK;
}

void bq_comm_group(const bq_comm *job, int count, bq_comm *group) {
    const int size = job->size / count;
    BQ_CHECK(count >= 1 && size * count == job->size, "%d groups of %d ranks", count, job->size);
    *group = (bq_comm){.rank = job->rank % size,
                       .size = size,
                       .stage = MPI_COMM_NULL,
                       .local = job->local,
                       .locals = job->locals};
    bq_comm_split(job, job->rank / size, group->rank, &group->world);
    bq_log_identity(group->rank, size);
    opened = group;
    bq_comm_grid(group, 1);
}

void bq_comm_group_close(const bq_comm *job, bq_comm *group) {
    if (group->stage != MPI_COMM_NULL) MPI_Comm_free(&group->stage);
    MPI_Comm_free(&group->world);
    bq_log_identity(job->rank, job->size);
    opened = job;
}

/* Spin first, since most messages are nearly there; then yield the core; after SLEEPLESS sleep between
 * looks.  A large message moves only while somebody looks: sleeping at once took three times as long for
 * 4 MB (perf/bench_comm). */
#define SLEEPLESS 2e-3 /* seconds */
void bq_comm_wait(MPI_Request *request, int count) {
    double start = bq_seconds();
    for (int done = count == 0, tries = 0; !done; tries++) {
        MPI_Testall(count, request, &done, MPI_STATUSES_IGNORE);
        if (done || tries < 1000) continue;
        if (bq_seconds() - start < SLEEPLESS) {
            sched_yield();
            continue;
        }
        bq_heartbeat_wait();
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    bq_spent.peers += bq_seconds() - start;
}

int bq_comm_agree(const bq_comm *comm, int mine) {
    int all = mine;
    MPI_Request request;
    MPI_Iallreduce(&mine, &all, 1, MPI_INT, MPI_MAX, comm->world, &request);
    bq_comm_wait(&request, 1);
    return all;
}

int bq_comm_most = 1 << 30;

/* How many of `left` elements the next call of MPI gets. */
static int piece_of(int64_t left) { return left < bq_comm_most ? (int)left : bq_comm_most; }

/* From rank 0 of a communicator, which has sent the bytes to every other rank. */
static void bcast(MPI_Comm of, int rank, int size, void *data, size_t bytes) {
    *(rank ? &bq_spent.received : &bq_spent.sent) += (int64_t)bytes * (rank ? 1 : size - 1);
    for (size_t at = 0; at < bytes;) {
        int piece = piece_of((int64_t)(bytes - at));
        MPI_Request request;
        MPI_Ibcast((char *)data + at, piece, MPI_BYTE, 0, of, &request);
        bq_comm_wait(&request, 1);
        at += (size_t)piece;
    }
}

void bq_comm_bcast(const bq_comm *comm, void *data, size_t bytes) {
    bcast(comm->world, comm->rank, comm->size, data, bytes);
}

void bq_comm_stage_bcast(const bq_comm *comm, void *data, int bytes) {
    bcast(comm->stage, comm->replica, comm->nreplica, data, (size_t)bytes);
}

/* Move values [at, end) of rank r to rank 0; these two ranks call it. */
static void gather_share(const bq_comm *comm, double *values, int64_t at, int64_t end, int r) {
    for (int piece; at < end; at += piece) {
        MPI_Request request;
        piece = piece_of(end - at);
        if (comm->rank)
            MPI_Isend(values + at, piece, MPI_DOUBLE, 0, 1, comm->world, &request);
        else
            MPI_Irecv(values + at, piece, MPI_DOUBLE, r, 1, comm->world, &request);
        *(comm->rank ? &bq_spent.sent : &bq_spent.received) += piece * (int64_t)sizeof *values;
        bq_comm_wait(&request, 1);
    }
}

void bq_comm_gather(const bq_comm *comm, double *values, int64_t total) {
    for (int r = 1; r < comm->size; r++) {
        bq_shard share = bq_shard_of(total, r, comm->size);
        if (comm->rank == r || comm->rank == 0)
            gather_share(comm, values, share.first, share.first + share.count, r);
    }
}

static void barrier(MPI_Comm of) {
    MPI_Request request;
    MPI_Ibarrier(of, &request);
    bq_comm_wait(&request, 1);
}

void bq_comm_barrier(const bq_comm *comm) { barrier(comm->world); }
void bq_comm_stage_barrier(const bq_comm *comm) { barrier(comm->stage); }

/* A reduction is counted as if each value were sent once and received once. */
void bq_comm_reduce(const bq_comm *comm, void *values, int64_t count, MPI_Datatype type, MPI_Op op) {
    int size;
    MPI_Type_size(type, &size);
    bq_spent.sent += count * size, bq_spent.received += count * size;
    for (int64_t at = 0; at < count; at += bq_comm_most) {
        MPI_Request request;
        MPI_Iallreduce(MPI_IN_PLACE, (char *)values + at * size, piece_of(count - at), type, op, comm->stage,
                       &request);
        bq_comm_wait(&request, 1);
    }
}

int bq_comm_rank_of(const bq_comm *comm, int replica) { return comm->istage * comm->nreplica + replica; }

enum { FLOW = 7 /* tag */, PIECE = 1 << 20 };

MPI_Datatype bq_comm_floats(int64_t count, int piece) {
    MPI_Datatype one, all, part[2];
    int64_t pieces = count / piece;
    BQ_CHECK(pieces <= INT_MAX, "a message of %ld floats", (long)count);
    MPI_Type_contiguous(piece, MPI_FLOAT, &one);
    MPI_Type_contiguous((int)pieces, one, &part[0]);
    MPI_Type_contiguous((int)(count % piece), MPI_FLOAT, &part[1]);
    const MPI_Aint at[2] = {0, (MPI_Aint)(pieces * piece) * (MPI_Aint)sizeof(float)};
    MPI_Type_create_struct(2, (const int[2]){1, 1}, at, part, &all);
    MPI_Type_commit(&all);
    MPI_Type_free(&one);
    MPI_Type_free(&part[0]);
    MPI_Type_free(&part[1]);
    return all;
}

/* The type of a message, and how many of it: floats, or one of a type that stands for all of them. */
static int message(int64_t count, MPI_Datatype *type) {
    *type = count <= bq_comm_most ? MPI_FLOAT : bq_comm_floats(count, piece_of(PIECE));
    return *type == MPI_FLOAT ? (int)count : 1;
}

void bq_comm_send(const bq_comm *comm, int to, const float *data, int64_t count, MPI_Request *request) {
    MPI_Datatype type;
    int n = message(count, &type);
    bq_spent.sent += count * (int64_t)sizeof(float);
    MPI_Isend(data, n, type, to, FLOW, comm->world, request);
    if (type != MPI_FLOAT) MPI_Type_free(&type);
}

void bq_comm_receive(const bq_comm *comm, int from, float *data, int64_t count, MPI_Request *request) {
    MPI_Datatype type;
    int n = message(count, &type);
    bq_spent.received += count * (int64_t)sizeof(float);
    MPI_Irecv(data, n, type, from, FLOW, comm->world, request);
    if (type != MPI_FLOAT) MPI_Type_free(&type);
}
