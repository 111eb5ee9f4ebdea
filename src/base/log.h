/* log.h - words for people: standard error, and the run's log file.
 *
 * Lines go to standard error ("bq: ...") and, while a log file is open, with a time stamp to that file.
 * Numbers for machines go to run.csv, results to standard output; neither comes here. */
#ifndef BQ_LOG_H
#define BQ_LOG_H

#include <stdarg.h>
#include <stdint.h>

typedef enum { BQ_ERROR, BQ_WARN, BQ_INFO, BQ_DEBUG } bq_level;

/* Control bytes in a text become '?', line ends a blank (with lines: they stay): names out of files end up on
 * terminals and in logs, where they must neither draw nor forge lines.  bq_vlog does it by itself. */
void bq_log_clean(char *text, int lines);

/* Who speaks: rank in world and world size; before the call 0 of 1. */
void bq_log_identity(int rank, int size);
int bq_log_rank(void);

/* Lines above this level are dropped; BQ_INFO at start. */
void bq_log_level(bq_level level);

/* Append to this file of blockq's own, too (rank 0).  0, or why it cannot be opened (bq_file_why). */
int bq_log_open(const char *path);
/* On a rank that does not log there: add errors alone, opened when the first one comes. */
void bq_log_errors_to(const char *path);
void bq_log_close(void);

/* Rank 0 only. */
void bq_log(bq_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Any rank; the line starts with the rank. */
void bq_log_all(bq_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bq_vlog(bq_level level, int everyone, const char *fmt, va_list ap);

/* Progress of a long loop.  On a terminal one line is redrawn ("[####....]  42.0%  ETA 04:12  block 3/30 loss
 * ..."); where nothing can be drawn (a file, a pipe, under mpirun) a line is logged every minute.  Rank 0
 * only. done, total   in units of equal cost; note is appended, may be "".  The first call starts the loop's
 * clock. */
void bq_progress(int64_t done, int64_t total, const char *note);
/* The loop is over: the drawn line is removed, and the next call is of another loop. */
void bq_progress_end(void);

#endif
