/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/heartbeat.h"

#include "base/clock.h"
#include "base/die.h"
#include "comm/guard.h"

#include <signal.h>
#include <time.h>

enum { STOP = 98 };          /* tag, in world */
enum { BEAT = 1, LAST = 2 }; /* tags, in the ring; LAST: this rank sends no more */

/* A rank counts the silence of another only while it looks itself: a longer time between two looks counts
 * as LONGEST_GAP seconds. */
#define LONGEST_GAP 1.0
#define BEAT_EVERY  1.0
#define LOOK_EVERY  0.05
#define MPI_TAKES   120.0 /* seconds that a call of MPI may take at least, whatever the timeout */

static double timeout = 600;
static bq_comm job = {.size = 1}; /* the ranks of the whole job */
static MPI_Comm ring = MPI_COMM_NULL;
static int before, after, watched; /* my neighbours in the ring; `before` by its rank in world */
static double heard, time_now;     /* when `before` was heard of, and now, on the clock that
                                      runs while I look */
/* bq_seconds: of the last look, and of the last beat sent */
static double looked, beat_at;
static MPI_Request beat = MPI_REQUEST_NULL;
static bool parted;       /* `before` has sent its LAST */
static bool stopped;      /* this rank has been told to stop */
static int stops_to_root; /* stop messages that I have sent to rank 0 */
static int stops_taken;   /* stop messages that I have received */

void bq_heartbeat_timeout(double seconds) { timeout = seconds; }

void bq_heartbeat_within(const char *call) {
    bq_guard_within(call, timeout > 0 && timeout < MPI_TAKES ? MPI_TAKES : timeout);
}

void bq_heartbeat_open(const bq_comm *comm) {
    int place;
    MPI_Group places, ranks;
    job = *comm;
    if (comm->size == 1) return;
    MPI_Comm_split(comm->world, 0, comm->local, &ring);
    MPI_Comm_rank(ring, &place);
    before = (place + comm->size - 1) % comm->size, after = (place + 1) % comm->size;
    MPI_Comm_group(ring, &places);
    MPI_Comm_group(comm->world, &ranks);
    MPI_Group_translate_ranks(places, 1, &before, ranks, &watched);
    MPI_Group_free(&places);
    MPI_Group_free(&ranks);
}

static void take_beats(void) {
    for (int there = 1; there && !parted;) {
        MPI_Status status;
        MPI_Iprobe(before, MPI_ANY_TAG, ring, &there, &status);
        if (!there) return;
        MPI_Recv(NULL, 0, MPI_BYTE, before, status.MPI_TAG, ring, MPI_STATUS_IGNORE);
        heard = time_now;
        parted = status.MPI_TAG == LAST;
    }
}

static void watch(double now) {
    const double gap = now - looked;
    if (looked > 0) time_now += gap < LONGEST_GAP ? gap : LONGEST_GAP;
    looked = now;
    take_beats();
    BQ_CHECK(parted || timeout <= 0 || time_now - heard <= timeout,
             "rank %d has not been heard of for %.0f s: it is dead or stopped (--timeout; the same command "
             "goes on)",
             watched, time_now - heard);
}

/* An empty message has left when the call returns.  close receives those that are still on
 * their way at the end. */
static void tell(int rank) {
    MPI_Request request;
    MPI_Isend(NULL, 0, MPI_BYTE, rank, STOP, job.world, &request);
    MPI_Request_free(&request);
}

void bq_heartbeat_stop(void) {
    if (stopped) return;
    stopped = true;
    if (job.rank) tell(0), stops_to_root++;
    for (int r = 1; job.rank == 0 && r < job.size; r++) tell(r);
}

bool bq_heartbeat_stopped(void) { return stopped; }

static void take_stops(void) {
    for (int there = 1; there; stops_taken += there) {
        MPI_Status from;
        MPI_Iprobe(MPI_ANY_SOURCE, STOP, job.world, &there, &from);
        if (!there) return;
        MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, STOP, job.world, MPI_STATUS_IGNORE);
        if (job.rank == 0) bq_heartbeat_stop();
        stopped = true;
    }
}

void bq_heartbeat_wait(void) {
    if (job.size == 1) return;
    const double now = bq_seconds();
    take_stops();
    int sent;
    MPI_Test(&beat, &sent, MPI_STATUS_IGNORE);
    if (sent && now - beat_at >= BEAT_EVERY) {
        MPI_Isend(NULL, 0, MPI_BYTE, after, BEAT, ring, &beat);
        beat_at = now;
    }
    if (now - looked >= LOOK_EVERY) watch(now);
}

void bq_heartbeat(void) {
    bq_fault_signal("step_kill", SIGKILL);
    bq_fault_signal("step_stop", SIGSTOP);
    bq_fault_signal("step_usr1", SIGUSR1);
    bq_heartbeat_wait();
}

/* All ranks have sent their stop messages: receive those that are on their way to me. */
static void drain_stops(void) {
    MPI_Request request;
    int all = 0, told = 0;
    MPI_Iallreduce(&stops_to_root, &all, 1, MPI_INT, MPI_SUM, job.world, &request);
    bq_comm_wait(&request, 1);
    while (job.rank == 0 && stops_taken < all) bq_heartbeat_wait();
    told = stopped;
    MPI_Ibcast(&told, 1, MPI_INT, 0, job.world, &request);
    bq_comm_wait(&request, 1);
    while (job.rank && stops_taken < told) bq_heartbeat_wait();
}

void bq_heartbeat_close(void) {
    MPI_Request last;
    if (job.size == 1) return;
    drain_stops();
    /* Messages between two ranks keep their order: nothing comes after LAST. */
    bq_comm_wait(&beat, 1);
    MPI_Isend(NULL, 0, MPI_BYTE, after, LAST, ring, &last);
    for (int sent = 0; !sent || !parted;) {
        MPI_Test(&last, &sent, MPI_STATUS_IGNORE);
        watch(bq_seconds());
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    MPI_Comm_free(&ring);
    job = (bq_comm){.size = 1};
}
