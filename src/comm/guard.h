/* guard.h - a thread that ends this process where nothing else can: it looks while the others are inside MPI.
 *
 * The heartbeat (heartbeat.h) is MPI's messages, looked at in our own waits.  Two things it cannot see: a
 * call in which MPI itself waits for all ranks (its start and end, new communicators), and a launcher that is
 * gone. The thread calls no MPI and asks nobody: one line, and this process ends with BQ_DIED. */
#ifndef BQ_GUARD_H
#define BQ_GUARD_H

#include <stdbool.h>

/* Start it.  Where a launcher's environment shows that one has started this process (OMPI_COMM_WORLD_SIZE,
 * PMIX_RANK, PMI_RANK), the process ends when its parent does; started by hand it outlives its shell. Local.
 */
void bq_guard_open(void);

/* Has a launcher started this process?  Local. */
bool bq_guard_launched(void);

/* From now on `call` must be over within `seconds` of the time in which the thread runs (a process that was
 * stopped meanwhile is not late); 0: never.  NULL ends that.  One at a time.  Local. */
void bq_guard_within(const char *call, double seconds);

#endif
