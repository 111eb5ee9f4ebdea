/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a file of encodings, through the job's buffer. */
#include "io/out/aimet.h"

#include "base/die.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void bq_aimet_open(bq_aimet_text *t, bq_export_job *job) {
    t->job = job, t->filled = 0;
    bq_path_join(t->path, sizeof t->path, job->out_dir,
                 job->own ? "model.encodings" : "model_torch.encodings");
    bq_temp_name(t->temp, sizeof t->temp, t->path);
    int err = bq_file_create(t->temp, &t->fd);
    BQ_CHECK(!err, "cannot create '%s': %s", t->temp, bq_file_why(err));
}

static void flush(bq_aimet_text *t, bool last) {
    int err = bq_fault("file_write") ? ENOSPC : bq_file_put(t->fd, t->job->buffer, (size_t)t->filled);
    if (last && close(t->fd) && !err) err = errno;
    if (last && !err) err = bq_file_rename(t->temp, t->path);
    if (err) unlink(t->temp);
    BQ_CHECK(!err, "write of '%s' failed: %s", t->path, strerror(err));
    t->filled = 0;
}

void bq_aimet_put(bq_aimet_text *t, const char *fmt, ...) {
    va_list ap;
    if (t->filled + 1024 > (int)BQ_EXPORT_BUFFER) flush(t, false);
    va_start(ap, fmt);
    t->filled += vsnprintf(t->job->buffer + t->filled, 1024, fmt, ap);
    va_end(ap);
}

void bq_aimet_name(bq_aimet_text *t, const char *name) {
    json_t *value = json_string(name);
    char *quoted = json_dumps(value, JSON_ENCODE_ANY);
    BQ_CHECK(quoted, "no memory for a name");
    for (size_t i = 0; i < strlen(quoted); i += 512) bq_aimet_put(t, "%.512s", quoted + i);
    free(quoted);
    json_decref(value);
}

void bq_aimet_real(bq_aimet_text *t, double x) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.9g", x);
    bq_aimet_put(t, "%s%s", digits, strpbrk(digits, ".e") ? "" : ".0");
}

void bq_aimet_close(bq_aimet_text *t) { flush(t, true); }
