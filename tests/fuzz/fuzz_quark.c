/* SPDX-License-Identifier: Apache-2.0 */
/* A file of Quark's of any bytes is refused, or gives names that are short, printable and closed.  Run with
 * -close_fd_mask=2: every refusal is a line. */
#include "base/die.h"
#include "io/quark.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds) {
    if (!holds) abort();
}

static void check_name(const char *name, bool empty) {
    must(memchr(name, 0, BQ_QUARK_NAME) != NULL && (*name || empty));
    for (const char *c = name; *c; c++) must(isalnum((unsigned char)*c) || *c == '_' || *c == '.');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static bq_quark q;
    int rc = bq_quark_parse("fuzz.json", (const char *)data, bytes, &q);
    must(rc == BQ_OK || rc == BQ_DATA);
    if (rc) return 0;
    must(q.entries >= 1 && q.entries <= BQ_QUARK_ENTRIES);
    must(!strcmp(q.loss, "MAE") || !strcmp(q.loss, "MSE") || !strcmp(q.loss, "RMSE"));
    for (int i = 0; i < q.entries; i++) {
        const bq_quark_entry *e = &q.entry[i];
        must(e->layers >= 1 && e->layers <= BQ_QUARK_LAYERS);
        check_name(e->prev_op, false), check_name(e->inp, false), check_name(e->module, true);
        for (int k = 0; k < e->layers; k++) check_name(e->layer[k], false);
    }
    return 0;
}
