/* SPDX-License-Identifier: Apache-2.0 */
/* A config.json of any bytes is refused, or describes a model whose sizes divide and whose numbers are
 * finite; and what is JSON reads the same after it was written.  Run with -close_fd_mask=2: every refusal is
 * a line. */
#include "base/die.h"
#include "base/family.h"
#include "io/in/config.h"
#include "io/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds) {
    if (!holds) abort();
}

static void check(const bq_model *m) {
    const bq_rope *r = &m->rope;
    must(bq_family_at(m->family) && m->hidden > 0 && m->vocab > 0 && m->blocks > 0);
    must(m->inter > 0 || (m->experts > 0 && m->expert_inter > 0)); /* gpt-oss has no other MLP */
    must(m->heads > 0 && m->kv_heads > 0 && m->heads % m->kv_heads == 0 && m->head_dim % 2 == 0);
    must(m->heads * m->head_dim <= BQ_SIZE_MAX && m->hidden <= BQ_SIZE_MAX && m->inter <= BQ_SIZE_MAX);
    must(m->eps > 0 && isfinite(m->eps) && m->window >= 0 && m->max_position > 0);
    must(r->dim >= 2 && r->dim % 2 == 0 && r->dim <= m->head_dim && r->dim / 2 <= BQ_ROPE_MAX);
    must(r->theta >= 1 && isfinite(r->theta) && r->factor > 0 && isfinite(r->factor));
    must(r->original >= 1 || r->kind == BQ_ROPE_DEFAULT || r->kind == BQ_ROPE_LINEAR);
    must(r->attention > 0 && isfinite(r->attention));
    must(r->kind != BQ_ROPE_LLAMA3 || r->low < r->high);
    for (int64_t i = 0; i < r->dim / 2 && r->kind == BQ_ROPE_LONG; i++) {
        must(r->short_factor[i] > 0 && r->long_factor[i] > 0);
        must(isfinite(r->short_factor[i]) && isfinite(r->long_factor[i]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    bq_model m;
    json_t *first, *again;
    int rc = bq_config_parse("fuzz.json", (const char *)data, bytes, &m);
    must(rc == BQ_OK || rc == BQ_DATA);
    if (rc == BQ_OK) check(&m);
    if (bq_json_parse("fuzz.json", (const char *)data, bytes, &first)) return 0;
    size_t n;
    char *text = bq_json_text_of(first, &n);
    must(strlen(text) == n && bq_json_parse("written.json", text, n, &again) == BQ_OK);
    must(json_equal(first, again));
    json_decref(first);
    json_decref(again);
    free(text);
    return 0;
}
