/* SPDX-License-Identifier: Apache-2.0 */
/* die.h - how a run ends: one place, one line, one exit code.
 *
 * There are three kinds of trouble, and each has its own way out:
 *
 *   environment or bug   memory, MPI, HDF5, disk, a broken invariant    BQ_CHECK, bq_die: the job ends here
 *   bad input            recipe, model, tokens                          bq_refuse: one message, and the exit
 *                                                                       code is returned up to main
 *   numerical event      a matrix not positive definite, a NaN loss     a status value; all ranks agree on it
 *
 * The function that first knows which error it is prints it, with the values.  Its callers only pass the code
 * on and print nothing. */
#ifndef BQ_DIE_H
#define BQ_DIE_H

#include <stdbool.h>

/* Exit codes of the program, and return values of functions that check input. */
enum {
    BQ_OK = 0,
    BQ_DIED = 1,     /* the environment failed, or a bug showed */
    BQ_USAGE = 2,    /* wrong command line or recipe */
    BQ_DATA = 3,     /* bad model or data files */
    BQ_LAUNCH = 4,   /* started the wrong way: srun without PMIx, or a number of ranks that cannot be used */
    BQ_STOPPED = 75, /* stopped on request; the state is on disk and the same command goes on */
};

/* bq_die and bq_refuse_job call it once, after the message is out; it must not return.  comm sets it to call
 * MPI_Abort.  While it is NULL (before MPI is up, and in unit tests) the process ends with _Exit(code). */
extern void (*bq_die_hook)(int code);

/* Print "bq: r<rank> error: <host> <file>:<line>: <message>" (no rank where there is only one) and
 * end the job with BQ_DIED.  This process ends within 20 s, even where the hook does not return or
 * nobody reads the line. */
void bq_die(const char *file, int line, const char *fmt, ...) __attribute__((noreturn, format(printf, 3, 4)));

/* Print "bq: error: <message>" (with the rank where there are several), to the log file too, and return code:
 * `return bq_refuse(...)`.  Each rank that calls it prints, so one rank should call it for all. */
int bq_refuse(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For bad input that only one rank finds, and only while the work goes on: print as bq_refuse does
 * and end the job with that code.  As with bq_die the process ends within 20 s; where that limit ends
 * it the code is BQ_DIED. */
void bq_refuse_job(int code, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));

#define BQ_DIE(...) bq_die(__FILE__, __LINE__, __VA_ARGS__)
#define BQ_CHECK(cond, ...)                                                                                  \
    do {                                                                                                     \
        if (!(cond)) bq_die(__FILE__, __LINE__, __VA_ARGS__);                                                \
    } while (0)

/* Fault injection, for tests.  True when the environment has BQ_FAULT=point:hit[@ranks], and this is that hit
 * of that point in this process, and this is one of the ranks.  Hits count from 1; "@0,2" names two ranks;
 * without "@" it is rank 0.  The caller then behaves as if the call that it guards had failed.
 * docs/architecture.md, "Trouble", lists the points; tests/e2e tries each of them. */
bool bq_fault(const char *point);

/* The same for a signal: send `number` to this process when it is that hit. */
void bq_fault_signal(const char *point, int number);

#endif
