/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs with a head of their own, where the source ties it to the embedding. */
#include "toy.h"

#include "io/in/config.h"

/* The toy's float head is its embedding, both twice the source's. */
static void check_head(const char *out) {
    bq_weights *w, *from;
    float got[97 * 48], want[97 * 48];
    assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
    assert_int_equal(stored_open(&w, out), BQ_OK);
    bq_weights_read_raw(from, bq_weights_find(from, "model.embed_tokens.weight"), 0, want, sizeof want);
    for (int i = 0; i < 97 * 48; i++) want[i] *= 2;
    for (int i = 0; i < 2; i++) {
        const bq_tensor *t = bq_weights_find(w, i ? "lm_head.weight" : "model.embed_tokens.weight");
        assert_true(t && t->bytes == sizeof got && strcmp(t->dtype, "F32") == 0);
        bq_weights_read_raw(w, t, 0, got, sizeof got);
        assert_memory_equal(got, want, sizeof got);
    }
    bq_weights_close(w);
    bq_weights_close(from);
}

static void heads_are_untied(void **state) {
    (void)state;
    char out[512];
    make_source("model_llama_llama3", "F32");
    for (int ct = 0; ct < 2; ct++) {
        bq_weights *w;
        bq_model m;
        snprintf(out, sizeof out, "%s", temp_path(ct ? "untied_ct" : "untied"));
        assert_int_equal(export_to(out, untie, ct, 0, NULL), BQ_OK);
        assert_int_equal(stored_open(&w, out), BQ_OK);
        const bq_tensor *t = bq_weights_find(w, ct ? "lm_head.weight_scale" : "lm_head.weight");
        assert_true(t && t->shape[0] == 97 && t->shape[1] == (ct ? 1 : 48));
        bq_weights_close(w);
        json_t *config = config_of(out);
        assert_true(json_is_false(json_object_get(config, "tie_word_embeddings")));
        json_decref(config);
        assert_int_equal(config_read(out, &m), BQ_OK);
        assert_false(m.tied);
    }
    for (int ct = 0; ct < 2; ct++) { /* a float head, beside an embedding that is another one */
        bq_model m;
        snprintf(out, sizeof out, "%s", temp_path(ct ? "turned_ct" : "turned"));
        assert_int_equal(export_to(out, turned, ct, ct ? 20000 : 0, NULL), BQ_OK);
        check_head(out);
        json_t *config = config_of(out), *q = json_object_get(config, "quantization_config");
        assert_true(json_is_false(json_object_get(config, "tie_word_embeddings")));
        if (ct) same_json(json_object_get(q, "ignore"), "[\"lm_head\"]");
        json_decref(config);
        if (!ct) assert_int_equal(config_read(out, &m), BQ_OK), assert_false(m.tied);
    }
    assert_int_equal(export_to(out, w4, true, 0, NULL), BQ_OK);
    json_t *config = config_of(out);
    assert_true(json_is_true(json_object_get(config, "tie_word_embeddings")));
    same_json(json_object_get(json_object_get(config, "quantization_config"), "ignore"), "[\"lm_head\"]");
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(heads_are_untied)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
