/* SPDX-License-Identifier: Apache-2.0 */
/* How values are quantized by the rules of GGUF's types: blocks of the Python package gguf and of ggml, bit
 * for bit. */
#include "halves.h"

#include "io/out/gguf.h"

static void *bytes_of(const bq_weights *w, const char *key, size_t *bytes) {
    const bq_tensor *t;
    void *data = load(w, key, &t);
    *bytes = t->bytes;
    return data;
}

/* The rules of the types: the package's rows of values give its blocks. */
static void encoders(void **state) {
    (void)state;
    static const char *const types[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}, *const from[] = {"small",
                                                                                                  "big"};
    bq_weights *golden;
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_gguf.safetensors"), BQ_OK);
    bq_gguf_loss loss = {0, 0};
    int compared = 0;
    for (int k = 0; k < 10; k++) {
        const bq_gguf_type *type = bq_gguf_type_named(types[k / 2]);
        char key[32], in_key[32];
        uint8_t block[40];
        size_t n, bytes;
        snprintf(key, sizeof key, "%s/from_%s", type->name, from[k % 2]);
        snprintf(in_key, sizeof in_key, "in/%s", from[k % 2]);
        if (!bq_weights_find(golden, key)) continue;
        uint8_t *want = bytes_of(golden, key, &bytes);
        float *x = bytes_of(golden, in_key, &n);
        assert_int_equal(n / 128 * (size_t)type->bytes, bytes);
        for (size_t b = 0; b < n / 128; b++, compared++) {
            bq_gguf_encode(type, x + 32 * b, 32, block, &loss);
            assert_memory_equal(block, want + b * (size_t)type->bytes, (size_t)type->bytes);
        }
        free(want);
        free(x);
    }
    assert_true(compared >= 5 * 24);
    bq_weights_close(golden);
}

/* ggml's own blocks. */
static void sixes(void **state) {
    (void)state;
    bq_weights *golden;
    size_t n, bytes;
    const bq_gguf_type *type = bq_gguf_type_named("Q6_K");
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_q6k.safetensors"), BQ_OK);
    float *x = bytes_of(golden, "in", &n), *back = bytes_of(golden, "Q6_K/to_float", &n), value[256];
    uint8_t *want = bytes_of(golden, "Q6_K/from", &bytes), block[210];
    bq_gguf_loss loss = {0, 0};
    assert_int_equal(n / 1024 * 210, bytes);
    for (size_t b = 0; b < n / 1024; b++) {
        bq_gguf_encode(type, x + 256 * b, 256, block, &loss);
        assert_memory_equal(block, want + 210 * b, 210);
        type->decode(block, 1, value);
        assert_memory_equal(value, back + 256 * b, sizeof value);
    }
    assert_true(loss.error > 0 && loss.error < 1e-3 * loss.power);
    free(x);
    free(back);
    free(want);
    bq_weights_close(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(encoders), cmocka_unit_test(sixes)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
