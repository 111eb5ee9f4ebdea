/* SPDX-License-Identifier: Apache-2.0 */
/* guard.h - a thread that ends this process when nothing else can.
 *
 * The heartbeat (heartbeat.h) is made of MPI messages that our own waits look at.  There are two cases it
 * cannot see: a call in which MPI itself waits for all ranks (start, end, a new communicator), and a launcher
 * that is gone.  This thread sees both.  It calls no MPI and asks no other rank: it prints one line, and this
 * process ends with BQ_DIED. */
#ifndef BQ_GUARD_H
#define BQ_GUARD_H

#include <stdbool.h>

/* Start the thread.  Where a launcher has started this process (bq_guard_launched), the process ends when its
 * parent does.  A process started by hand may outlive its shell.  Local. */
void bq_guard_open(void);

/* Has a launcher started this process?  True when its environment has OMPI_COMM_WORLD_SIZE,
 * PMIX_RANK or PMI_RANK.  Local. */
bool bq_guard_launched(void);

/* Say that this process enters a call of MPI (its name is for the message), or with NULL that it has left it.
 * The process ends when the call takes longer than `seconds`; 0: no limit.  Only time in which the thread
 * runs counts, so a process that was stopped for a while is not late.  One call at a time.  Local. */
void bq_guard_within(const char *call, double seconds);

#endif
