/* heartbeat.h - slow is legal, dead is not.
 *
 * Every rank sends a beat with every step of its work, at most once a second: to rank 0, and rank 0 to
 * rank 1.  These two watch: a rank that has not been heard of for the timeout ends the job, with one line
 * that names it.  A watcher's own long steps do not count against the others, since beats wait for it
 * meanwhile. */
#ifndef BQ_HEARTBEAT_H
#define BQ_HEARTBEAT_H

#include "comm/comm.h"

#define BQ_WATCHED 65536 /* most ranks of the world */

/* Seconds of silence that mean death; 0: never.  Before the first call 600.  Local. */
void bq_heartbeat_timeout(double seconds);

/* I am alive; and, on a watcher, are the others?  Called at every step and by every wait; cheap.  Local. */
void bq_heartbeat(const bq_comm *comm);

/* A rank that was told to stop tells the others, through rank 0; true on a rank that has been told.  Local:
 * every rank sees it at a heartbeat of its own. */
void bq_heartbeat_stop(const bq_comm *comm);
bool bq_heartbeat_stopped(void);

/* Take in what is still on its way, so that MPI can be finalized.  Collective over world. */
void bq_heartbeat_close(const bq_comm *comm);

#endif
