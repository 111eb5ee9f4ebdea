/* SPDX-License-Identifier: Apache-2.0 */
/* meter.h - what a thread has spent on waiting and on moving data, since the start.  The values only grow;
 * run.csv has differences of the main thread's.
 *
 * comm adds the seconds of every wait for other ranks to `peers`.  io adds the seconds of every read, write
 * and sync of a large file, and of every wait for a thread that reads ahead, to `files`.  Bytes of messages
 * are counted as what this rank gives to others and gets from them, whatever way MPI sends them: a root that
 * broadcasts n bytes to r other ranks has sent n r. */
#ifndef BQ_METER_H
#define BQ_METER_H

#include <stdint.h>

typedef struct {
    double peers, files;    /* seconds */
    int64_t sent, received; /* bytes of messages */
    int64_t read, written;  /* bytes of files */
} bq_meter;

extern _Thread_local bq_meter bq_spent;

#endif
