/* SPDX-License-Identifier: Apache-2.0 */
/* read_all.h - all bytes of every tensor of a model, and the last ones apart: what the fuzzers of readers
 * share. */
#ifndef READ_ALL_H
#define READ_ALL_H

#include "io/in/weights_reader.h"

#include <stdlib.h>
#include <string.h>

static void must(bool holds) {
    if (!holds) abort();
}

static void read_all(const bq_weights *w) {
    for (int i = 0; i < bq_weights_count(w); i++) {
        const bq_tensor *t = bq_weights_at(w, i);
        size_t unit = (size_t)bq_dtype_bits(t->dtype) / 8, last = unit < t->bytes ? unit : t->bytes;
        uint8_t *all = malloc(t->bytes + 1), part[8];
        must(all && bq_weights_find(w, t->name) == t);
        bq_weights_read_raw(w, t, 0, all, t->bytes);
        bq_weights_read_raw(w, t, t->bytes - last, part, last);
        must(memcmp(all + t->bytes - last, part, last) == 0);
        bq_weights_prefetch(w, t);
        free(all);
    }
}

#endif
