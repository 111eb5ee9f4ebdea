/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - messages for people: on standard error, and in the run's log file.
 *
 * A message is one line.  It goes to standard error ("bq: ...") and, while a log file is open, with
 * a time stamp to that file.  Two things do not come here: numbers for programs go to run.csv,
 * results to standard output. */
#ifndef BQ_LOG_H
#define BQ_LOG_H

#include <stdarg.h>
#include <stdint.h>

typedef enum { BQ_ERROR, BQ_WARN, BQ_INFO, BQ_DEBUG } bq_level;

/* Make a text safe to print, in place: control bytes become '?', and line ends become a blank (lines: they
 * stay).  Names in files may come from strangers; they must not draw on a terminal, nor look like log lines
 * of their own.  bq_vlog does this itself. */
void bq_log_clean(char *text, int lines);

/* Set this process's rank and the number of ranks; before that 0 of 1. */
void bq_log_identity(int rank, int size);
int bq_log_rank(void);

/* What follows is about this: on standard error the text stands before each message.  "" ends it. */
void bq_log_label(const char *label);

/* Messages above this level are dropped.  At the start it is BQ_INFO. */
void bq_log_level(bq_level level);

/* Append all messages to this file, too, an own file in the sense of base/open.h.  For rank 0.  Returns 0, or
 * the reason why it cannot be opened (bq_file_why). */
int bq_log_open(const char *path);
/* For the other ranks: append only errors to this file.  It is opened when the first error comes. */
void bq_log_errors_to(const char *path);
void bq_log_close(void);

/* A message of rank 0: on other ranks nothing happens. */
void bq_log(bq_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A message of any rank; the line starts with the rank. */
void bq_log_all(bq_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same two with a va_list; everyone: as bq_log_all. */
void bq_vlog(bq_level level, int everyone, const char *fmt, va_list ap);

/* Show the progress of a long loop: done of total, both in units of equal cost, and a note, which may be "".
 * On a terminal one line is drawn again and again:
 *   [####....]  42.0%  ETA 04:12  block 3/30 loss ...
 * Where standard error is no terminal (a file, a pipe, mpirun) one message a minute is logged.  The first
 * call starts the loop's clock.  Rank 0 only. */
void bq_progress(int64_t done, int64_t total, const char *note);
/* The loop is over: remove the drawn line.  The next bq_progress starts a new loop. */
void bq_progress_end(void);

#endif
