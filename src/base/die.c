#include "base/die.h"

#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void (*bq_die_hook)(int code);

static void end(int code) __attribute__((noreturn));
static void end(int code) {
    fflush(NULL);
    if (bq_die_hook) bq_die_hook(code);
    _Exit(code);
}

void bq_die(const char *file, int line, const char *fmt, ...) {
    char text[1024], host[64] = "";
    va_list ap;
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
    va_start(ap, fmt);
    bq_vlog(BQ_ERROR, 1, fmt, ap);
    va_end(ap);
    end(code);
}

bool bq_fault(const char *point) {
    static atomic_int seen;
    const char *spec = getenv("BQ_FAULT");
    size_t n = strlen(point);
    int hit = 1, rank = 0;
    if (!spec || strncmp(spec, point, n) || (spec[n] && spec[n] != ':')) return false;
    sscanf(spec + n, ":%d@%d", &hit, &rank);
    return rank == bq_log_rank() && atomic_fetch_add(&seen, 1) + 1 == hit;
}
