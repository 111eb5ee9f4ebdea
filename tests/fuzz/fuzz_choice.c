/* SPDX-License-Identifier: Apache-2.0 */
/* Files of questions of any bytes: refused, or every sequence has ids of the vocabulary and fits.  Run with
 * -close_fd_mask=2: every refusal is a line. */
#include "driver/eval/eval.h"
#include "base/die.h"
#include "io/state/raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check(const bq_eval *e) {
    int32_t ids[64];
    int64_t from;
    if (e->items < 1 || e->sequences < 2 * e->items || e->ctx < 2 || e->ctx > 64) abort();
    for (int64_t i = 0; i < e->sequences; i++) {
        int64_t n = e->kind->sequence(e, i, ids, &from);
        if (from < 1 || from >= n || n > e->ctx) abort();
        for (int64_t t = 0; t < n; t++)
            if (ids[t] < 0 || ids[t] >= e->tokens.vocab) abort();
    }
}

/* The first byte is the limit. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct {
        char items[BQ_PATH_MAX];
        int64_t ctx, limit;
        int normalize;
    } options;
    bq_evals set = {0};
    int kind = 0, fd = memfd_create("questions", 0);
    while (strcmp(bq_eval_kind_at(kind)->name, "choice")) kind++;
    if (fd < 0 || (bytes && !bq_raw_write(fd, data + 1, bytes - 1, 0))) abort();
    options.ctx = 64, options.limit = bytes ? data[0] % 4 : 0;
    snprintf(options.items, sizeof options.items, "/proc/self/fd/%d", fd);
    if (bq_evals_add(&set, bq_eval_kind_at(kind), &options) == BQ_OK) check(set.eval);
    bq_evals_close(&set);
    close(fd);
    return 0;
}
