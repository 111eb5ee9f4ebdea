/* SPDX-License-Identifier: Apache-2.0 */
/* golden.h - golden files of tests/vectors in cmocka tests: tests/golden has the reader and the
 * comparisons. */
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

#include "golden/replay.h"

static inline void golden_vector(golden *g, const char *name) {
    char path[512];
    snprintf(path, sizeof path, BQ_VECTORS "/%s.safetensors", name);
    assert_int_equal(golden_open(g, path), 0);
}

/* The same, with the model directory made from it in g->dir. */
static inline void golden_vector_model(golden *g, const char *name) {
    golden_vector(g, name);
    golden_model(g, NULL);
}

/* Run the file again: all that it has is compared, and within the limits. */
static inline golden_report golden_check(const char *name, bq_comm *comm) {
    golden g;
    golden_report r = {.rows = 0};
    golden_vector(&g, name);
    golden_kind kind = golden_kind_of(g.path);
    assert_non_null(kind.run);
    kind.run(&g, comm, &r);
    golden_unread(&r, &g);
    golden_close(&g);
    printf("%s: ", name);
    golden_print(&r, stdout);
    printf("\n");
    for (int i = 0; i < r.rows; i++)
        if (!golden_row_fits(&r.row[i])) fail_msg("%s: %s", r.row[i].what, r.row[i].at);
    assert_true(golden_fits(&r));
    return r;
}

/* How many deviations of this quantity there are; 0 when there is no such row. */
static inline int64_t golden_compared(const golden_report *r, const char *what) {
    for (int i = 0; i < r->rows; i++)
        if (strcmp(r->row[i].what, what) == 0) return r->row[i].compared;
    return 0;
}

#endif
