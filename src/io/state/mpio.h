/* mpio.h - the samples of an activation file through HDF5's MPI-IO driver: one file that all replicas of a
 * stage hold open together.
 *
 * The structure of the file is there before (acts.h makes it) and stays as it is: only raw data of a dataset
 * (samples, tokens, hidden) f32 is moved, by hyperslabs, each rank its own samples in its own time
 * (independent transfers).  Open, sync and close are collective over stage: ranks meet by polling first, so
 * that nobody waits inside MPI-IO for one that comes late.  One thread per process, the one that talks MPI.
 *
 * The driver takes no locks of HDF5; what a network file system needs for writes of several nodes is MPI's
 * affair.  A build without parallel HDF5 (BQ_PHDF5) has stubs, of which only bq_mpio_built may be called.  A
 * broken disk ends the job. */
#ifndef BQ_MPIO_H
#define BQ_MPIO_H

#include "comm/comm.h"

typedef struct bq_mpio bq_mpio;

bool bq_mpio_built(void);

/* Dataset `name` of a file that the caller has made, or has read by io/h5.h and found in order: the HDF5
 * library is not made for bytes that somebody chose.  Collective over stage; the caller closes. */
bq_mpio *bq_mpio_open(const bq_comm *comm, const char *path, const char *name);

/* The first `tokens` tokens of a sample.  read: false when it fails.  Fault point mpio.  Local. */
void bq_mpio_write(bq_mpio *m, int64_t sample, int64_t tokens, const float *data);
bool bq_mpio_read(bq_mpio *m, int64_t sample, int64_t tokens, float *data);

/* What all ranks wrote is on disk, and the others' reads see it.  Collective over stage, as is close. */
void bq_mpio_sync(bq_mpio *m);
void bq_mpio_close(bq_mpio *m);

#endif
