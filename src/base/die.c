/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"

#include "base/log.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void (*bq_die_hook)(int code);

/* How long a process that ends waits for others: for a reader to take its line, for MPI_Abort to return. */
enum { LAST_WORDS = 20 }; /* seconds */

static void end_now(int number) {
    (void)number;
    _exit(BQ_DIED);
}

static void limit_the_end(void) {
    signal(SIGALRM, end_now);
    alarm(LAST_WORDS);
}

static void end(int code) __attribute__((noreturn));
static void end(int code) {
    fflush(NULL);
    if (bq_die_hook) bq_die_hook(code);
    _Exit(code);
}

void bq_die(const char *file, int line, const char *fmt, ...) {
    char text[1024], host[64] = "";
    va_list ap;
    limit_the_end();
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    gethostname(host, sizeof host - 1);
    const char *name = strrchr(file, '/');
    bq_log_all(BQ_ERROR, "%s %s:%d: %s", host, name ? name + 1 : file, line, text);
    end(BQ_DIED);
}

int bq_refuse(int code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    bq_vlog(BQ_ERROR, 1, fmt, ap);
    va_end(ap);
    return code;
}

void bq_refuse_job(int code, const char *fmt, ...) {
    va_list ap;
    limit_the_end();
    va_start(ap, fmt);
    bq_vlog(BQ_ERROR, 1, fmt, ap);
    va_end(ap);
    end(code);
}

/* Is my rank in a list like "0,2"? */
static bool names_me(const char *ranks) {
    for (char *end; *ranks; ranks = end + (*end == ',')) {
        if (strtol(ranks, &end, 10) == bq_log_rank() && end > ranks) return true;
        if (end == ranks) return false;
    }
    return false;
}

bool bq_fault(const char *point) {
    static atomic_int seen;
    const char *spec = getenv("BQ_FAULT");
    if (!spec) return false;
    const size_t n = strlen(point);
    int hit = 1;
    if (strncmp(spec, point, n) || (spec[n] && spec[n] != ':')) return false;
    sscanf(spec + n, ":%d", &hit);
    const char *ranks = strchr(spec, '@');
    return names_me(ranks ? ranks + 1 : "0") && atomic_fetch_add(&seen, 1) + 1 == hit;
}

void bq_fault_signal(const char *point, int number) {
    if (bq_fault(point)) raise(number);
}
