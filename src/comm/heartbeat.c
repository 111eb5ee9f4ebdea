#include "comm/heartbeat.h"

#include "base/clock.h"
#include "base/die.h"

enum { BEAT = 99, STOP = 98 }; /* tags */

/* A watcher's time runs only while it looks: a gap between two looks counts as this much. */
#define LONGEST_GAP 1.0
#define BEAT_EVERY  1.0

static double timeout = 600;
static double heard[BQ_WATCHED]; /* when, in the watcher's time */
static double time_now, looked, beat_at;
static MPI_Request beat = MPI_REQUEST_NULL;
static bool stopped;

void bq_heartbeat_timeout(double seconds) { timeout = seconds; }

static void take_beats(const bq_comm *comm) {
    for (int there = 1; there;) {
        MPI_Status from;
        MPI_Iprobe(MPI_ANY_SOURCE, BEAT, comm->world, &there, &from);
        if (!there) return;
        MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, BEAT, comm->world, MPI_STATUS_IGNORE);
        heard[from.MPI_SOURCE] = time_now;
    }
}

static void watch(const bq_comm *comm, double now) {
    double gap = now - looked;
    time_now += gap < LONGEST_GAP ? gap : LONGEST_GAP;
    looked = now;
    take_beats(comm);
    int first = comm->rank == 0 ? 1 : 0, end = comm->rank == 0 ? comm->size : 1;
    for (int r = first; timeout > 0 && r < end; r++)
        BQ_CHECK(time_now - heard[r] <= timeout,
                 "rank %d has not been heard of for %.0f s: it is dead or stopped (--timeout; the same "
                 "command goes on)",
                 r, time_now - heard[r]);
}

/* Small enough to be on its way when the call returns; the last of a run are taken in by close. */
static void tell(const bq_comm *comm, int rank) {
    MPI_Request request;
    MPI_Isend(NULL, 0, MPI_BYTE, rank, STOP, comm->world, &request);
    MPI_Request_free(&request);
}

void bq_heartbeat_stop(const bq_comm *comm) {
    if (stopped) return;
    stopped = true;
    if (comm->rank) tell(comm, 0);
    for (int r = 1; comm->rank == 0 && r < comm->size; r++) tell(comm, r);
}

bool bq_heartbeat_stopped(void) { return stopped; }

static void take_stops(const bq_comm *comm) {
    for (int there = 1; there;) {
        MPI_Status from;
        MPI_Iprobe(MPI_ANY_SOURCE, STOP, comm->world, &there, &from);
        if (!there) return;
        MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, STOP, comm->world, MPI_STATUS_IGNORE);
        if (comm->rank == 0) bq_heartbeat_stop(comm);
        stopped = true;
    }
}

void bq_heartbeat(const bq_comm *comm) {
    if (comm->size == 1) return;
    double now = bq_seconds();
    take_stops(comm);
    if (looked == 0) looked = now;
    int sent;
    MPI_Test(&beat, &sent, MPI_STATUS_IGNORE);
    if (sent && now - beat_at >= BEAT_EVERY) {
        MPI_Isend(NULL, 0, MPI_BYTE, comm->rank == 0 ? 1 : 0, BEAT, comm->world, &beat);
        beat_at = now;
    }
    if (comm->rank <= 1 && now - looked >= 0.05) watch(comm, now);
}

void bq_heartbeat_close(const bq_comm *comm) {
    if (comm->size == 1) return;
    /* Beats to a watcher come before its peers' part in this: messages between two ranks keep their order. */
    bq_comm_barrier(comm);
    for (int done = 0; !done;) {
        take_beats(comm);
        take_stops(comm);
        MPI_Test(&beat, &done, MPI_STATUS_IGNORE);
    }
    MPI_Barrier(comm->world);
    take_beats(comm);
    take_stops(comm);
}
