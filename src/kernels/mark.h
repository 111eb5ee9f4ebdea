/* mark.h - named ranges of time for a profiler of GPUs (NVTX), nested as they are opened: a timeline that
 * reads like the program.  Nothing happens without a profiler, or in a build without CUDA. */
#ifndef BQ_MARK_H
#define BQ_MARK_H

/* At most 63 bytes of the name are kept. */
void bq_mark_open(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void bq_mark_close(void);

#endif
