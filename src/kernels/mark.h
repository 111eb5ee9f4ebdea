/* SPDX-License-Identifier: Apache-2.0 */
/* mark.h - named ranges of time for a GPU profiler (NVTX), which may be nested.  Without a profiler, or in a
 * build without CUDA, nothing happens. */
#ifndef BQ_MARK_H
#define BQ_MARK_H

/* Only the first 63 bytes of the name are used. */
void bq_mark_open(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void bq_mark_close(void);

#endif
