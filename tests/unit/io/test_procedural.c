/* SPDX-License-Identifier: Apache-2.0 */
/* Procedural weights: a value depends on seed, tensor and place alone; their size; their fingerprint. */
#include "refuse.h"

#include "base/num.h"
#include "io/in/procedural.h"

#include <math.h>

enum { ROWS = 37, COLS = 301, COUNT = ROWS * COLS };
static uint16_t whole[COUNT], part[COUNT];
static const bq_tensor matrix = {.name = "a.weight", .dtype = "BF16", .dims = 2, .shape = {ROWS, COLS}};

static void any_piece_is_the_same(void **state) {
    (void)state;
    bq_procedural_make(5, &matrix, 0, whole, sizeof whole);
    for (size_t size = 1; size < COUNT; size = 3 * size + 1) {
        for (size_t at = 0, n; at < COUNT; at += n) {
            n = COUNT - at < size ? COUNT - at : size;
            bq_procedural_make(5, &matrix, 2 * at, part + at, 2 * n);
        }
        assert_memory_equal(part, whole, sizeof whole);
    }
    for (int other = 0; other < 2; other++) {
        bq_tensor named = matrix;
        if (other) named.name = "b.weight";
        bq_procedural_make(other ? 5 : 6, &named, 0, part, sizeof part);
        int equal = 0;
        for (int i = 0; i < COUNT; i++) equal += part[i] == whole[i];
        assert_true(equal < COUNT / 20);
    }
}

static void sizes_keep_a_stream_finite(void **state) {
    (void)state;
    double sum = 0, squares = 0, most = 0, n = COUNT;
    bq_procedural_make(0, &matrix, 0, whole, sizeof whole);
    for (int i = 0; i < COUNT; i++) {
        double x = (double)bq_from_bf16(whole[i]) * sqrt(COLS);
        sum += x, squares += x * x, most = fmax(most, fabs(x));
    }
    assert_true(fabs(sum / n) < 4 / sqrt(n));
    assert_true(fabs(squares / n - 1) < 6 / sqrt(n));
    assert_true(most > 2.5 && most <= 3.5);
    bq_tensor norm = {.name = "norm.weight", .dtype = "BF16", .dims = 1, .shape = {COLS}}, bias = norm;
    bias.name = "q_proj.bias";
    bq_procedural_make(0, &norm, 0, part, 2 * COLS);
    bq_procedural_make(0, &bias, 0, whole, 2 * COLS);
    for (int i = 0; i < COLS; i++) assert_true(bq_from_bf16(part[i]) == 1 && whole[i] == 0);
}

/* The rule is part of fingerprints: these bits only change together with BQ_PROCEDURAL_VERSION. */
static void the_rule_stays(void **state) {
    (void)state;
    static const uint16_t first[4] = {0x3d06, 0x3d50, 0x3deb, 0xbacc};
    bq_procedural_make(1, &matrix, 2 * 1000, part, 8);
    for (int i = 0; i < 4; i++)
        if (part[i] != first[i]) fail_msg("element %d is %#x", 1000 + i, part[i]);
}

static bq_weights *open_seed(const char *seed, const bq_tensor *list, int count) {
    char config[64];
    bq_weights *w;
    snprintf(config, sizeof config, "{\"blockq_procedural\": %s}", seed);
    text_save(temp_path("config.json"), config);
    if (bq_weights_open(&w, temp_dir)) return NULL;
    assert_true(bq_weights_count(w) == 0 && bq_weights_files(w) == 0 && bq_weights_synthetic(w));
    assert_int_equal(bq_weights_expect(w, list, count), 0);
    assert_int_equal(bq_weights_count(w), count);
    return w;
}

static uint64_t fingerprint(const char *seed, const bq_tensor *list) {
    bq_weights *w = open_seed(seed, list, 2);
    uint64_t hash;
    assert_int_equal(bq_weights_fingerprint(w, NULL, &hash), 0);
    bq_weights_close(w);
    return hash;
}

static void as_a_model(void **state) {
    (void)state;
    static const bq_tensor list[] = {{.name = "a", .dims = 1, .shape = {4}},
                                     {.name = "b", .dims = 2, .shape = {2, 4}}};
    static const bq_tensor other[] = {{.name = "a", .dims = 1, .shape = {4}},
                                      {.name = "b", .dims = 3, .shape = {2, 4, 1}}};
    const uint64_t known = 0x6a46cc4c7863e133;
    assert_true(fingerprint("1", list) == known);
    assert_true(fingerprint("2", list) != known);
    assert_true(fingerprint("1", other) != known);
    bq_weights *w = open_seed("1", list, 2);
    float row[4];
    const char *path;
    bq_weights_read(w, bq_weights_find(w, "b"), 1, 1, bq_mat_host(row, 1, 4, BQ_F32));
    assert_true(isfinite(row[3]) && row[3] != row[2]);
    bq_weights_prefetch(w, bq_weights_find(w, "b"));
    assert_int_equal(json_object_size(bq_weights_config(w, &path)),
                     0); /* an export has its weights in files */
    bq_weights_close(w);
    assert_refused(open_seed("-1", list, 2) ? 0 : BQ_DATA, "blockq_procedural");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_piece_is_the_same),
                                       cmocka_unit_test(sizes_keep_a_stream_finite),
                                       cmocka_unit_test(the_rule_stays), cmocka_unit_test(as_a_model)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
