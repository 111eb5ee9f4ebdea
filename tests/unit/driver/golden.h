/* golden.h - golden vector files as model directories.  See tests/vectors/README.md. */
#ifndef BQ_TEST_GOLDEN_H
#define BQ_TEST_GOLDEN_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "io/files.h"
#include "io/weights.h"
#include "io/writer.h"

typedef struct {
    bq_weights *file;
    char dir[256]; /* model directory made from the tensors below init/ */
} golden;

static inline void golden_temp(char *out, size_t n) {
    snprintf(out, n, "%s/bq_golden_XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(out));
}

static inline void golden_remove(const char *dir) {
    char command[400];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* A whole tensor as f32 (or its raw bytes for other types) into new memory. */
static inline void *golden_read(const golden *g, const char *name, int64_t *count) {
    const bq_tensor *t = bq_weights_find(g->file, name);
    if (!t) fail_msg("no tensor '%s' in the golden file", name);
    void *data = malloc(t->bytes + 1);
    assert_non_null(data);
    bq_weights_read_raw(g->file, t, 0, data, t->bytes);
    int64_t n = 1;
    for (int i = 0; i < t->dims; i++) n *= t->shape[i];
    if (count) *count = n;
    return data;
}

/* extra: keys added to the config of the metadata, which are only the model's numbers in AIMET's files. */
static inline void golden_open(golden *g, const char *name, const char *extra) {
    char path[512];
    snprintf(path, sizeof path, BQ_VECTORS "/%s.safetensors", name);
    assert_int_equal(bq_weights_open_file(&g->file, path), 0);
    golden_temp(g->dir, sizeof g->dir);
    bq_writer *w = bq_writer_plan();
    for (int i = 0; i < bq_weights_count(g->file); i++) {
        const bq_tensor *t = bq_weights_at(g->file, i);
        if (strncmp(t->name, "init/", 5) == 0) bq_writer_add(w, t->name + 5, t->dtype, t->dims, t->shape);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", g->dir);
    bq_writer_open(w, path);
    for (int i = 0; i < bq_writer_count(w); i++) {
        char full[256];
        snprintf(full, sizeof full, "init/%s", bq_writer_at(w, i)->name);
        void *data = golden_read(g, full, NULL);
        bq_writer_put(w, data, bq_writer_at(w, i)->bytes);
        free(data);
    }
    bq_writer_close(w);
    const char *config = bq_weights_metadata(g->file, "config");
    assert_non_null(config);
    size_t n = strlen(config) + strlen(extra) + 8;
    char *text = malloc(n);
    snprintf(text, n, "{%s%s", extra, strchr(config, '{') + 1);
    snprintf(path, sizeof path, "%s/config.json", g->dir);
    assert_int_equal(bq_file_write_atomic(path, text, strlen(text)), 0);
    free(text);
}

static inline void golden_close(golden *g) {
    bq_weights_close(g->file);
    golden_remove(g->dir);
}

/* max |a - b| / max |b| */
static inline double golden_error(const float *a, const float *b, int64_t n) {
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = d;
        if (fabs((double)b[i]) > scale) scale = fabs((double)b[i]);
    }
    return worst / scale;
}

#endif
