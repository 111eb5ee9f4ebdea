/* SPDX-License-Identifier: Apache-2.0 */
/* clock.h - time and memory, as the operating system counts them. */
#ifndef BQ_CLOCK_H
#define BQ_CLOCK_H

#include <stddef.h>

/* Seconds on a monotonic clock: setting the computer's clock does not change it.  The zero is arbitrary. */
double bq_seconds(void);

/* The largest resident memory of this process so far, in bytes; 0 where the system does not tell.  forget:
 * from now on, where the system can. */
size_t bq_peak_rss(void);
void bq_peak_forget(void);
/* Bytes that one process may use: the machine's memory, or the limit of its control groups (cgroup
 * v2) where that is less. */
size_t bq_memory_available(void);

#endif
