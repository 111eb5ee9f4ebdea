/* lock.h - one job at a time in a run directory.
 *
 * <run_dir>/ckpt/lock holds "host pid" of the last holder; what counts is the lock on it (fcntl, by open
 * file), which the kernel drops however the holder ends.  The file stays: to remove it would let two in. */
#ifndef BQ_LOCK_H
#define BQ_LOCK_H

#include <stdbool.h>

typedef struct {
    int fd;
    bool held;
} bq_lock;

/* One process of a job takes it, after <run_dir>/ckpt is there.  BQ_OK, also, after one warning, where the
 * file system has no locks; or BQ_USAGE with one message that names the holder. */
int bq_lock_take(bq_lock *lock, const char *run_dir);

/* Does somebody hold it?  Nothing is written, and nobody waits or is kept out.  who: of the last holder, ""
 * where nothing is known. */
typedef enum { BQ_LOCK_FREE, BQ_LOCK_HELD, BQ_LOCK_UNKNOWN } bq_lock_state;
bq_lock_state bq_lock_look(const char *run_dir, char who[128]);

void bq_lock_release(bq_lock *lock); /* a zeroed struct is fine */

#endif
