/* SPDX-License-Identifier: Apache-2.0 */
/* Layers that compressed-tensors itself has stored, read as models: every bit of every value. */
#include "golden/layer.h"
#include "golden/replay.h"

#include "base/die.h"

#include <stdio.h>
#include <string.h>

/* The library's names of types as files have them. */
static json_t *types_of(const golden *g) {
    json_t *cases = golden_json(g, "cases"), *types = json_incref(json_object_get(cases, "dtypes")), *name;
    const char *key;
    json_object_foreach(types, key, name) {
        BQ_CHECK(strcmp(json_string_value(name), "float8_e4m3fn") == 0, "%s: type of %s", g->path, key);
        json_object_set_new(types, key, json_string("F8_E4M3"));
    }
    json_decref(cases);
    return types;
}

void golden_ct(golden *g, bq_comm *comm, golden_report *r) {
    (void)comm;
    json_t *types = types_of(g);
    for (int i = 0; i < bq_weights_count(g->file); i++) {
        char at[100], prefix[160], key[160];
        const char *tensor = bq_weights_at(g->file, i)->name, *slash = strchr(tensor, '/');
        if (!slash || strcmp(slash, "/dequant") != 0) continue;
        snprintf(at, sizeof at, "%.*s", (int)(slash - tensor), tensor);
        snprintf(prefix, sizeof prefix, "%s/file/lin.", at);
        snprintf(key, sizeof key, "config/%s", at);
        bq_mat want = golden_read(g, BQ_F32, -1, -1, "%s/dequant", at);
        golden_layer l;
        golden_layer_open(&l);
        golden_layer_add_all(&l, g, prefix, types);
        bq_mat have = golden_layer_read(&l, g, golden_text(g, key));
        /* as bits, so that -0 is not 0; but -0 is no integer code, and the library's values come from those
         * before they were stored */
        if (!strstr(at, "int")) have.type = want.type = BQ_I32;
        golden_compare(golden_codes_of(r, "values that differ", 0, 0), GOLDEN_ABSOLUTE, have, want, at);
        static const char *const made_of[] = {"weight", "scale_in", "zp_in", "q"};
        for (int k = 0; k < 4; k++) golden_pass_over(g, "%s/%s", at, made_of[k]);
    }
    golden_ct_cache(g, r);
    json_decref(types);
}
