/* meter.h - what the main thread has spent beside computing; only grows.  Differences of two looks are rows
 * of run.csv.
 *
 * Every wait for other ranks is in comm and adds its seconds to `peers`; every read, write and sync of a
 * large file is in io and adds its seconds to `files`, and so do waits for a thread that reads ahead.  Bytes
 * of messages count as a rank's share of them: what it gives each other rank, what it gets from each. */
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
