/* SPDX-License-Identifier: Apache-2.0 */
/* halves.h - what the tests of formats with scales of F16 share: results with such scales, tensors of an
 * output. */
#ifndef HALVES_H
#define HALVES_H

#include "toy.h"

/* A tensor's bytes, the caller's to free. */
static inline void *load(const bq_weights *w, const char *key, const bq_tensor **t) {
    *t = bq_weights_find(w, key);
    if (!*t) fail_msg("no %s", key);
    void *data = malloc((*t)->bytes);
    assert_non_null(data);
    bq_weights_read_raw(w, *t, 0, data, (*t)->bytes);
    return data;
}

/* The tensor <stem of name>.<part> of that type and shape (cols 0: a vector). */
static inline void *part_of(const bq_weights *w, const char *name, const char *part, const char *dtype,
                            int64_t rows, int64_t cols) {
    char key[300];
    const bq_tensor *t;
    snprintf(key, sizeof key, "%.*s.%s", (int)strlen(name) - 7, name, part);
    void *data = load(w, key, &t);
    assert_string_equal(t->dtype, dtype);
    assert_true(t->dims == (cols ? 2 : 1) && t->shape[0] == rows && (!cols || t->shape[1] == cols));
    return data;
}

/* The toy's results, their scales rounded to F16. */
static inline bool half_get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    toy *t = ctx;
    if (!toy_get(ctx, name, want_data, q)) return false;
    q->scheme.scale = BQ_F16;
    for (int64_t i = 0; want_data && i < q->scale.rows * q->scale.cols; i++)
        t->scale[i] = bq_from_f16(bq_to_f16(t->scale[i]));
    return true;
}

static inline int export_half(const char *format, const char *out, const toy_rule *rule, size_t limit,
                              int parts, int *gets) {
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, src_dir), BQ_OK);
    toy t = {.src = w, .rule = rule};
    int rc =
        export_as(format, w, out, (bq_qsource){.ctx = &t, .get = half_get, .dense = toy_dense}, limit, parts);
    if (gets) *gets = t.gets;
    toy_free(&t);
    bq_weights_close(w);
    return rc;
}

#endif
