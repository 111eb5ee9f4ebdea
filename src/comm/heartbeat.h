/* heartbeat.h - how ranks find out that another rank is dead.  A slow rank is no error.
 *
 * The ranks form a ring.  They are ordered by their number on their node, then by node: so neighbours in the
 * ring are on different nodes, provided that all nodes have equally many ranks.  Each rank sends a beat (an
 * empty message) to the next one with every step of its work, but at most once a second.  Each rank watches
 * the one before it.  When that has been silent for the timeout, the job ends with one line that names it.
 *
 * Whatever ranks fall silent at the same time, unless it is all of them, one of them stands just before a
 * rank that is alive, so it is noticed.  A rank that is itself busy for long does not blame the other: the
 * beats wait until it looks, and its watch runs only while it looks.
 *
 * Each rank sends one message a second, however many ranks there are.  While MPI itself waits, nobody looks
 * at beats: see guard.h. */
#ifndef BQ_HEARTBEAT_H
#define BQ_HEARTBEAT_H

#include "comm/comm.h"

/* Set the seconds of silence after which a rank counts as dead; 0: never.  600 at the start.  Local. */
void bq_heartbeat_timeout(double seconds);

/* Say that MPI is about to wait, inside `call`, for ranks that are all on their way there; NULL: it has
 * returned.  The process ends when the call takes longer than the timeout, or than two minutes if that is
 * more: a busy machine may need half a minute to load MPI.  Local. */
void bq_heartbeat_within(const char *call);

/* Make the ring.  Collective over world. */
void bq_heartbeat_open(const bq_comm *comm);

/* Send a beat if one is due, and look at the rank before.  Call it at every step of
 * work; it is cheap.  Local. */
void bq_heartbeat(const bq_comm *comm);

/* The same for loops that wait: it may be called any number of times.  The fault points of steps (die.h) are
 * not counted here.  Local. */
void bq_heartbeat_wait(const bq_comm *comm);

/* stop: this rank was told to stop (a signal); it tells rank 0, which tells all others.  stopped: has this
 * rank been told, by a signal or by another rank?  Other ranks learn it at their next heartbeat.  Local. */
void bq_heartbeat_stop(const bq_comm *comm);
bool bq_heartbeat_stopped(void);

/* Receive the messages that are still on their way, so that MPI can be finalized, and free the ring.
 * Collective over world. */
void bq_heartbeat_close(const bq_comm *comm);

#endif
