/* SPDX-License-Identifier: Apache-2.0 */
/* What the names in a Quark file stand for, and recipes that name one. */
#include "captured.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/die.h"
#include "driver/recipe/quark_map.h"
#include "driver/recipe/recipe.h"
#include "io/files.h"

#define LLAMA BQ_VECTORS "/../../configs/quark/llama.json"
#define PHI3  BQ_VECTORS "/../../configs/quark/phi3.json"

static char dir[256], path[300];

static void save(const char *text) { assert_int_equal(bq_file_write_atomic(path, text, strlen(text)), 0); }

static void standard(void **state) {
    (void)state;
    const char *files[] = {LLAMA, PHI3};
    for (int k = 0; k < 2; k++) {
        bq_autosmooth_options o = {.loss = BQ_DISTANCE_MSE, .gqa = BQ_GQA_LATE};
        assert_int_equal(bq_quark_map(files[k], &o), BQ_OK);
        assert_true(o.loss == BQ_DISTANCE_MAE && o.gqa == BQ_GQA_LATE);
        assert_true(o.inspect[BQ_QKV] == BQ_INSPECT_MODULE && o.inspect[BQ_GATE_UP] == BQ_INSPECT_MODULE);
        assert_true(o.inspect[BQ_O] == BQ_INSPECT_SELF && o.inspect[BQ_DOWN] == BQ_INSPECT_SELF);
    }
}

#define ONE(prev, layers, inp, more)                                                                         \
    "{\"compute_scale_loss\": \"RMSE\", \"scaling_layers\": [{\"prev_op\": \"" prev                          \
    "\", \"layers\": [" layers "], \"inp\": \"" inp "\"" more "}]}"
#define QKV "\"self_attn.q_proj\", \"self_attn.k_proj\", \"self_attn.v_proj\""
#define UP  "\"mlp.gate_proj\", \"mlp.up_proj\""

static void others(void **state) {
    (void)state;
    bq_autosmooth_options o;
    save(ONE("input_layernorm", QKV, "self_attn.k_proj", ", \"module2inspect\": \"\""));
    assert_int_equal(bq_quark_map(path, &o), BQ_OK);
    assert_true(o.loss == BQ_DISTANCE_RMSE && o.inspect[BQ_QKV] == BQ_INSPECT_BLOCK);
    for (int m = BQ_O; m < BQ_ROLES; m++) assert_true(o.inspect[m] == BQ_INSPECT_OFF);
    save(ONE("mlp.up_proj", "\"mlp.down_proj\"", "mlp.down_proj", ", \"module2inspect\": \"mlp\""));
    assert_int_equal(bq_quark_map(path, &o), BQ_OK);
    assert_true(o.inspect[BQ_DOWN] == BQ_INSPECT_MODULE && o.inspect[BQ_QKV] == BQ_INSPECT_OFF);
    save(ONE("mlp.up_proj", "\"mlp.down_proj\"", "mlp.down_proj", ", \"module2inspect\": \"mlp.down_proj\""));
    assert_int_equal(bq_quark_map(path, &o), BQ_OK);
    assert_true(o.inspect[BQ_DOWN] == BQ_INSPECT_SELF);
    save(ONE("input_layernorm", "\"self_attn.qkv_proj\"", "self_attn.qkv_proj", ""));
    assert_int_equal(bq_quark_map(path, &o), BQ_OK);
    assert_true(o.inspect[BQ_QKV] == BQ_INSPECT_SELF);
}

static void refused(const char *text, const char *words) {
    static captured c;
    bq_autosmooth_options o;
    save(text);
    capture_begin(&c, stderr);
    int rc = bq_quark_map(path, &o);
    const char *said = capture_end(&c);
    if (rc != BQ_DATA || !strstr(said, words)) fail_msg("%d, not '%s': %s", rc, words, said);
}

static void broken(void **state) {
    (void)state;
    refused(ONE("norm", QKV, "self_attn.q_proj", ""), "'norm' and these layers are no fusion");
    refused(ONE("input_layernorm", "\"self_attn.q_proj\"", "self_attn.q_proj", ""),
            "are no fusion"); /* k and v, too */
    refused(ONE("input_layernorm", QKV ", \"mlp.up_proj\"", "self_attn.q_proj", ""), "are no fusion");
    refused(ONE("input_layernorm", UP, "mlp.up_proj", ""), "are no fusion");
    refused(ONE("mlp.gate_proj", "\"mlp.down_proj\"", "mlp.down_proj", ""),
            "are no fusion"); /* through silu */
    refused(ONE("input_layernorm", "\"self_attn.q_proj\", \"self_attn.q_proj\", \"self_attn.q_proj\"",
                "self_attn.q_proj", ""),
            "are no fusion");
    refused(ONE("input_layernorm", QKV, "self_attn.o_proj", ", \"module2inspect\": \"self_attn\""),
            "is not one of the layers");
    refused(ONE("input_layernorm", QKV, "self_attn.q_proj", ""), "is a second layer");
    refused(ONE("input_layernorm", QKV, "self_attn.q_proj", ", \"module2inspect\": \"mlp\""),
            "does not hold the layers");
    refused("{\"scaling_layers\": [{\"prev_op\": \"mlp.up_proj\", \"layers\": [\"mlp.down_proj\"], \"inp\": "
            "\"mlp.down_proj\"},"
            "{\"prev_op\": \"mlp.up_proj\", \"layers\": [\"mlp.down_proj\"], \"inp\": \"mlp.down_proj\"}]}",
            "scaling_layers.1.prev_op: 'mlp.up_proj' is there twice");
}

static const char recipe_text[] =
    "{\"model\": \"m\", \"calibration\": {\"tokens\": \"t.h5\"}, \"phases\": [{\"passes\": [{\"pass\": "
    "\"autosmoothquant\", \"map\": \"q.json\", \"search\": \"halving\"}, {\"pass\": \"rtn\"}]}]}";

static int parse(const char *text, bq_recipe *r) {
    return bq_recipe_parse(text, strlen(text), "r.json", dir, 0, NULL, r);
}

/* The file's content is part of the result's fingerprint, its place is not; the resolved recipe reads back.
 */
static void recipes(void **state) {
    (void)state;
    static bq_recipe a, b;
    bq_part pa[BQ_PARTS], pb[BQ_PARTS];
    char *text;
    size_t bytes;
    save(ONE("mlp.up_proj", "\"mlp.down_proj\"", "mlp.down_proj", ""));
    assert_int_equal(parse(recipe_text, &a), BQ_OK);
    const bq_autosmooth_options *o = (const void *)a.phase[0].pass[0].options;
    assert_true(o->inspect[BQ_QKV] == BQ_INSPECT_OFF);
    assert_true(o->loss == BQ_DISTANCE_RMSE);
    assert_true(o->search == BQ_SEARCH_HALVING);
    FILE *f = open_memstream(&text, &bytes);
    bq_recipe_write(&a, f);
    fclose(f);
    assert_null(strstr(text, "q.json"));
    assert_int_equal(bq_file_write_atomic(path, "{}", 2), 0); /* not needed any more */
    assert_int_equal(parse(text, &b), BQ_OK);
    assert_memory_equal(&a, &b, sizeof a);
    free(text);
    static captured c;
    capture_begin(&c, stderr);
    int rc = parse(recipe_text, &b);
    assert_non_null(strstr(capture_end(&c), "scaling_layers: is missing"));
    assert_int_equal(rc, BQ_DATA);
    save(ONE("mlp.up_proj", "\"mlp.down_proj\"", "mlp.down_proj", ", \"module2inspect\": \"\""));
    assert_int_equal(parse(recipe_text, &b), BQ_OK);
    int n = bq_recipe_parts(&a, pa), differ = 0;
    assert_int_equal(bq_recipe_parts(&b, pb), n);
    for (int i = 0; i < n; i++) differ += pa[i].hash != pb[i].hash;
    assert_int_equal(differ, 1);
    const bq_key *map = bq_pass_kind_at(b.phase[0].pass[0].kind)->scope.key;
    while (strcmp(map->name, "map")) map++;
    strcpy(b.phase[0].pass[0].options + map->at, "/elsewhere.json");
    bq_recipe_parts(&b, pa);
    for (int i = 0; i < n; i++) assert_true(pa[i].hash == pb[i].hash);
}

static int open_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "%s/bq_quark_XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/q.json", dir);
    return 0;
}

static int close_dir(void **state) {
    (void)state;
    remove(path);
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(standard), cmocka_unit_test(others),
                                       cmocka_unit_test(broken), cmocka_unit_test(recipes)};
    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
