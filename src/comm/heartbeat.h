/* SPDX-License-Identifier: Apache-2.0 */
/* heartbeat.h - how ranks find out that another rank is dead.  A slow rank is no error.
 *
 * The ranks form a ring, ordered by their number on their node, then by node: so neighbours are on different
 * nodes if all nodes have equally many ranks.  With its steps, but at most once a second, each rank sends a
 * beat (an empty message) to the next one, and watches the one before it.  When that has been silent for the
 * timeout, the job ends with one line that names it.
 *
 * Unless all ranks fall silent at once, one of those that do is before a rank that is alive, which notices
 * it. A rank that is busy for long does not blame the other: beats wait until it looks, and its watch runs
 * only while it looks.  While MPI itself waits, nobody looks at beats: see guard.h. */
#ifndef BQ_HEARTBEAT_H
#define BQ_HEARTBEAT_H

#include "comm/comm.h"

/* Set the seconds of silence after which a rank counts as dead; 0: never.  600 at the start.  Local. */
void bq_heartbeat_timeout(double seconds);

/* Say that MPI is about to wait, inside `call`, for ranks that are all on their way there; NULL: it has
 * returned.  The process ends when the call takes longer than the timeout, or than two minutes if that is
 * more: a busy machine may need half a minute to load MPI.  Local. */
void bq_heartbeat_within(const char *call);

/* Make the ring of the whole job, whose ranks these are.  It stays while they work in groups (comm.h).
 * Collective over world. */
void bq_heartbeat_open(const bq_comm *comm);

/* Send a beat if one is due, and look at the rank before: at every step of work; it is cheap.  wait: the same
 * in loops that wait, any number of times, without the fault points of steps (die.h).  Local. */
void bq_heartbeat(void);
void bq_heartbeat_wait(void);

/* stop: this rank was told to stop (a signal); it tells rank 0, which tells all others.  stopped: has this
 * rank been told, by a signal or by another rank?  Other ranks learn it at their next heartbeat.  Local. */
void bq_heartbeat_stop(void);
bool bq_heartbeat_stopped(void);

/* Receive the messages that are still on their way, so that MPI can be finalized, and free the ring.
 * Collective over world. */
void bq_heartbeat_close(void);

#endif
