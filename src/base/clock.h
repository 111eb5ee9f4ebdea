/* clock.h - time and memory as the system counts them. */
#ifndef BQ_CLOCK_H
#define BQ_CLOCK_H

#include <stddef.h>

/* Seconds on a monotonic clock; a jump of the wall clock does not show. */
double bq_seconds(void);

/* The process's peak resident bytes so far, and what the machine (or its cgroup) lets one process use. */
size_t bq_peak_rss(void);
size_t bq_memory_available(void);

#endif
