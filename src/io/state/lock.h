/* SPDX-License-Identifier: Apache-2.0 */
/* lock.h - one job at a time in a run directory.
 *
 * <run_dir>/ckpt/lock has the host and process of the last holder.  What counts is the lock on the file
 * (fcntl, of the open file), which the kernel releases however the holder ends.  The file is never removed:
 * a second job could then lock a new one.  All calls are local. */
#ifndef BQ_LOCK_H
#define BQ_LOCK_H

#include <stdbool.h>

typedef struct {
    int fd;
    bool held;
} bq_lock;

/* Take the lock, by one process of a job; <run_dir>/ckpt must exist.  BQ_OK; also, after one warning, where
 * the file system has no locks.  BQ_USAGE after one message: another run holds it (the message says which),
 * or the file cannot be opened.  Fault point lock_take. */
int bq_lock_take(bq_lock *lock, const char *run_dir);

/* The same of <dir>/<file>, which is made; option: gives another dir, for the message.  try: says nothing
 * where another process holds it, and then returns false; true, too, where the file system has no locks. */
int bq_lock_take_at(bq_lock *lock, const char *dir, const char *file, const char *option);
bool bq_lock_try(bq_lock *lock, const char *dir, const char *file);

/* Does somebody hold it?  Writes nothing, takes no lock.  who: the last holder, or "".  A lock file that is
 * absent or cannot be opened is free. */
typedef enum { BQ_LOCK_FREE, BQ_LOCK_HELD, BQ_LOCK_UNKNOWN } bq_lock_state;
bq_lock_state bq_lock_look(const char *run_dir, char who[128]);

void bq_lock_release(bq_lock *lock); /* a zeroed struct is fine */

#endif
