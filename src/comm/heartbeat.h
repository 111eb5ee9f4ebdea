/* heartbeat.h - slow is legal, dead is not.
 *
 * The ranks stand in a ring, ordered by their number on their node and then by node: neighbours are on
 * different nodes wherever nodes have equally many ranks.  Every rank sends a beat to the next one with every
 * step of its work, at most once a second, and watches the one before: when that has not been heard of for
 * the timeout, the job ends with one line that names it.  In whatever set of ranks that fall silent together,
 * short of all, one stands before a rank that is alive: that one is noticed.  A watcher's own long steps do
 * not count against the other, since beats wait for it meanwhile.
 *
 * A rank costs a message a second, however many there are.  Where MPI itself waits no beat is looked at:
 * guard.h. */
#ifndef BQ_HEARTBEAT_H
#define BQ_HEARTBEAT_H

#include "comm/comm.h"

/* Seconds of silence that mean death; 0: never.  Before the first call 600.  Local. */
void bq_heartbeat_timeout(double seconds);

/* MPI is about to wait in `call`, by itself, for ranks that are all on their way there: the process ends
 * where that takes longer than the timeout, or than two minutes if that is more (a busy machine takes half of
 * one to load MPI).  NULL: it is back.  Local.
 */
void bq_heartbeat_within(const char *call);

/* Make the ring.  Collective over world. */
void bq_heartbeat_open(const bq_comm *comm);

/* I am alive; and is the one I watch?  Called at every step; cheap.  Local. */
void bq_heartbeat(const bq_comm *comm);

/* The same for waits, which call it any number of times: faults are counted in steps alone (die.h).  Local.
 */
void bq_heartbeat_wait(const bq_comm *comm);

/* A rank that was told to stop tells the others, through rank 0; true on a rank that has been told.  Local:
 * every rank sees it at a heartbeat of its own. */
void bq_heartbeat_stop(const bq_comm *comm);
bool bq_heartbeat_stopped(void);

/* Take in what is still on its way, so that MPI can be finalized, and free the ring.  Collective over world.
 */
void bq_heartbeat_close(const bq_comm *comm);

#endif
