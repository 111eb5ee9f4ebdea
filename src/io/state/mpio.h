/* SPDX-License-Identifier: Apache-2.0 */
/* mpio.h - the samples of an activation file by HDF5's MPI-IO driver: all replicas of a stage hold one file
 * open together.
 *
 * acts.h makes the file; its structure stays as it is.  Only values of a dataset (samples, tokens, hidden)
 * f32 are moved, by hyperslabs.  Each rank moves its own samples when it likes (independent transfers).
 * Open, sync and close are collective over stage: ranks first meet in a barrier that polls, so nobody waits
 * inside MPI-IO for a late one.  Only the thread that calls MPI may call these functions.
 *
 * The driver does not use HDF5's locks; what a network file system needs for writes from several nodes is
 * up to MPI.  A build without parallel HDF5 (BQ_PHDF5) has stubs, of which only bq_mpio_built may be
 * called.  A failing disk ends the job. */
#ifndef BQ_MPIO_H
#define BQ_MPIO_H

#include "comm/comm.h"

typedef struct bq_mpio bq_mpio;

bool bq_mpio_built(void);

/* Open dataset `name` of a file that the caller has made, or has checked by h5.h: the HDF5 library is not
 * made for hostile bytes.  The caller closes.  Collective over stage. */
bq_mpio *bq_mpio_open(const bq_comm *comm, const char *path, const char *name);

/* Write or read the first `tokens` tokens of a sample.  read: false when it fails; a failing write ends the
 * job.  Fault point mpio.  Local. */
void bq_mpio_write(bq_mpio *m, int64_t sample, int64_t tokens, const float *data);
bool bq_mpio_read(bq_mpio *m, int64_t sample, int64_t tokens, float *data);

/* What all ranks have written is on disk, and every rank's reads see it.  Both are collective over stage. */
void bq_mpio_sync(bq_mpio *m);
void bq_mpio_close(bq_mpio *m);

#endif
