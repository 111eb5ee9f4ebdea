/* die.h - how a run ends: one place, one line, one code.
 *
 * Three kinds of trouble, three ways out:
 *   environment or bug   memory, MPI, HDF5, disk, a broken invariant    BQ_CHECK / bq_die: the job ends here
 *   bad input            recipe, model, tokens                          bq_refuse: message once, code handed
 * up numerical event      not positive definite, NaN in a sample         a status value, agreed on by all
 * ranks Whoever decides which error it is prints it, with the values; callers only pass the code on. */
#ifndef BQ_DIE_H
#define BQ_DIE_H

#include <stdbool.h>

/* Exit codes of the program; also the return values of functions that check input. */
enum {
    BQ_OK = 0,
    BQ_DIED = 1,     /* environment broke or a bug showed */
    BQ_USAGE = 2,    /* command line or recipe */
    BQ_DATA = 3,     /* model or data files */
    BQ_LAUNCH = 4,   /* started the wrong way (srun without PMIx, unusable rank count) */
    BQ_STOPPED = 75, /* stopped on request with the state written */
};

/* Called once by bq_die and bq_refuse_job after the message is out; must not return.  comm installs
 * MPI_Abort; until then, and in unit tests, NULL means _Exit(code). */
extern void (*bq_die_hook)(int code);

/* Print "bq: r<rank> error: <host> <file>:<line>: <message>" (the rank where there are several) and end the
 * job with code 1: this process within 20 s, whatever the hook or a reader of the line waits for. */
void bq_die(const char *file, int line, const char *fmt, ...) __attribute__((noreturn, format(printf, 3, 4)));

/* Print "bq: error: <message>" (to the log file too) and return code, so that `return bq_refuse(...)` reads
 * well. */
int bq_refuse(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Bad input that one rank alone finds in the midst of its work: print as bq_refuse does, and end the job with
 * that code. */
void bq_refuse_job(int code, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));

#define BQ_DIE(...) bq_die(__FILE__, __LINE__, __VA_ARGS__)
#define BQ_CHECK(cond, ...)                                                                                  \
    do {                                                                                                     \
        if (!(cond)) bq_die(__FILE__, __LINE__, __VA_ARGS__);                                                \
    } while (0)

/* Fault injection: true when the environment says BQ_FAULT=point:hit[@ranks] and this is that hit of that
 * point on one of these ranks (hit counts from 1, "@0,2" names two, no rank means 0).  The caller then
 * behaves as if the guarded call had failed.  docs/architecture.md, "Trouble", lists the points; tests/e2e
 * walks them all. */
bool bq_fault(const char *point);

/* A point where not a call fails, but this process gets a signal. */
void bq_fault_signal(const char *point, int number);

#endif
