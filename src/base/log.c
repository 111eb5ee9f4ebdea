/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "base/clock.h"
#include "base/open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int my_rank, world = 1;
static bq_level limit = BQ_INFO;
static FILE *file;
static char errors[4096]; /* path for bq_log_errors_to; "": none */
static char about[64];    /* of bq_log_label, with ": " behind it; "": none */
static int drawn;         /* columns of the progress line on the screen; 0: none is drawn */

static void erase(void) {
    if (drawn) fprintf(stderr, "\r%*s\r", drawn, "");
    drawn = 0;
}

void bq_log_identity(int rank, int size) { my_rank = rank, world = size; }
int bq_log_rank(void) { return my_rank; }
void bq_log_label(const char *label) { snprintf(about, sizeof about, "%.60s%s", label, *label ? ": " : ""); }
void bq_log_level(bq_level level) { limit = level; }

static int open_file(const char *path) {
    int fd, err = bq_file_open_own(path, O_WRONLY | O_APPEND | O_CREAT, &fd);
    if (err) return err;
    file = fdopen(fd, "a");
    if (file) return 0;
    err = errno;
    close(fd);
    return err;
}

int bq_log_open(const char *path) {
    bq_log_close();
    int err = open_file(path);
    if (err) return err;
    setvbuf(file, NULL, _IOLBF, 4096);
    return 0;
}

void bq_log_errors_to(const char *path) { snprintf(errors, sizeof errors, "%s", path); }

void bq_log_close(void) {
    errors[0] = 0;
    if (file) fclose(file);
    file = NULL;
}

/* In UTF-8 the control characters 0x80 to 0x9f are two bytes, of which the first is 0xc2.  Elsewhere these
 * bytes are parts of letters. */
void bq_log_clean(char *text, int lines) {
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        if (*c == '\n')
            *c = lines ? '\n' : ' ';
        else if (*c < 0x20 || *c == 0x7f)
            *c = '?';
        else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
            c[0] = c[1] = '?';
    }
}

void bq_vlog(bq_level level, int everyone, const char *fmt, va_list ap) {
    static const char *const prefix[] = {"error: ", "warning: ", "", "debug: "};
    if (level > limit || (!everyone && my_rank != 0)) return;
    char text[2048], who[32] = "";
    vsnprintf(text, sizeof text, fmt, ap);
    bq_log_clean(text, 0);
    if (everyone && world > 1) snprintf(who, sizeof who, "r%d ", my_rank);
    erase();
    fprintf(stderr, "bq: %s%s%s%s\n", about, who, prefix[level], text);
    if (!file && level == BQ_ERROR && errors[0]) open_file(errors);
    if (file) {
        char when[32];
        time_t now = time(NULL);
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime(&now));
        fprintf(file, "%s %s%s%s\n", when, who, prefix[level], text);
    }
}

void bq_log(bq_level level, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    bq_vlog(level, 0, fmt, ap);
    va_end(ap);
}

void bq_log_all(bq_level level, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    bq_vlog(level, 1, fmt, ap);
    va_end(ap);
}

enum { BAR = 24 };
#define LINE_EVERY 60.0 /* seconds between messages where no line can be drawn */

static void put_eta(char *out, size_t n, int64_t done, int64_t total, int64_t first, double seconds) {
    if (done <= first) {
        snprintf(out, n, "--:--");
        return;
    }
    long left = (long)(seconds * (double)(total - done) / (double)(done - first) + 0.5);
    if (left >= 3600)
        snprintf(out, n, "%ld:%02ld:%02ld", left / 3600, left / 60 % 60, left % 60);
    else
        snprintf(out, n, "%02ld:%02ld", left / 60, left % 60);
}

static void draw(double percent, const char *eta, const char *note) {
    char line[160], bar[BAR + 1];
    for (int i = 0; i < BAR; i++) bar[i] = i < (int)(percent * BAR / 100) ? '#' : '.';
    bar[BAR] = 0;
    int n = snprintf(line, sizeof line, "[%s] %5.1f%%  ETA %s  %s", bar, percent, eta, note);
    int pad = drawn > n ? drawn - n : 0;
    fprintf(stderr, "\r%s%*s", line, pad, "");
    drawn = n;
}

static struct {
    bool begun;
    double start, last; /* bq_seconds at the first call, and when the last line was written */
    int64_t first;      /* units done at the first call */
} loop;

void bq_progress(int64_t done, int64_t total, const char *note) {
    double now = bq_seconds();
    if (my_rank != 0 || total <= 0) return;
    if (!loop.begun) loop.begun = true, loop.start = loop.last = now, loop.first = done;
    bool terminal = isatty(STDERR_FILENO);
    if (now - loop.last < (terminal ? 0.1 : LINE_EVERY)) return;
    char eta[32];
    double percent = 100.0 * (double)done / (double)total;
    put_eta(eta, sizeof eta, done, total, loop.first, now - loop.start);
    loop.last = now;
    if (terminal)
        draw(percent, eta, note);
    else
        bq_log(BQ_INFO, "%.1f%%, ETA %s, %s", percent, eta, note);
}

void bq_progress_end(void) {
    erase();
    loop.begun = false;
}
