/* SPDX-License-Identifier: Apache-2.0 */
/* FP8 weights with scales of tiles: the values of all codes, tiles at edges, what is refused. */
#include "refuse.h"

#include "base/num.h"
#include "io/files.h"
#include "io/in/fp8.h"
#include "io/out/writer.h"

#include <math.h>

#define CONFIG "{\"quantization_config\":{\"quant_method\":\"fp8\"}}"

/* A model of one matrix `w` and its scales, or what stands in their place. */
typedef struct {
    const char *dtype, *name, *scales; /* of w; the scales' name and dtype, NULL: there are none */
    int dims;
    int64_t shape[2], tiles[2];
    const char *config;
} model;

static int8_t code_of(int64_t i) { return (int8_t)(i * 37 % 127 - (i % 3 ? 0 : 128)); } /* no NaN */
static float scale_of(int64_t i) { return ldexpf((float)(i % 7 + 1), (int)(i % 11) - 5); }

static bq_weights *make(const model *m, const uint8_t *codes) {
    static char dir[512];
    char path[600];
    bq_weights *w;
    bq_writer *to = bq_writer_plan();
    snprintf(dir, sizeof dir, "%s", temp_path("fp8"));
    assert_int_equal(bq_dir_make(dir), 0);
    snprintf(path, sizeof path, "%s/config.json", dir);
    text_save(path, m->config);
    bq_writer_add(to, "w", m->dtype, m->dims, m->shape);
    if (m->scales) bq_writer_add(to, m->name, m->scales, 2, m->tiles);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    bq_writer_open(to, path);
    for (int k = 0; k < bq_writer_count(to); k++) {
        const bq_tensor *t = bq_writer_at(to, k);
        bool scales = strcmp(t->name, "w");
        size_t size = (size_t)bq_dtype_bits(t->dtype) / 8;
        for (int64_t i = 0; i < bq_tensor_count(t); i++) {
            float s = scale_of(i);
            uint8_t code[8] = {codes ? codes[i] : (uint8_t)code_of(i)};
            bq_writer_put(to, scales && size == 4 ? (const void *)&s : code, size);
        }
    }
    bq_writer_close(to);
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    return w;
}

/* By the definition: the exponent has 4 bits and a bias of 7, the mantissa 3 bits. */
static float by_hand(int code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    double x = exponent ? ldexp(1 + mantissa / 8.0, exponent - 7) : ldexp(mantissa / 8.0, -6);
    return (float)(code & 128 ? -x : x);
}

static void codes(void **state) {
    (void)state;
    for (int i = 0; i < 256; i++) {
        float x = bq_from_e4m3((uint8_t)i);
        if (i == 0x7f || i == 0xff)
            assert_true(isnan(x));
        else
            assert_true(bq_bits(x) == bq_bits(by_hand(i)));
    }
    assert_true(bq_from_e4m3(0x7e) == 448 && bq_from_e4m3(1) == 0x1p-9f && bq_from_e4m3(0x38) == 1);
}

static int expect(bq_weights *w, const model *m) {
    bq_tensor t = {.name = "w", .dims = m->dims, .shape = {m->shape[0], m->shape[1]}};
    return bq_weights_expect(w, &t, 1);
}

/* All rows, rows across the edge of a tile, and rows with room behind. */
static void tiles(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1},     {3, 127},   {128, 128},   {129, 128},
                                        {130, 300}, {257, 129}, {2, 1100000}, {300, 7000}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t n = shapes[i][0], k = shapes[i][1], across = (k + 127) / 128;
        model m = {"F8_E4M3", "w_scale_inv", "F32", 2, {n, k}, {(n + 127) / 128, across}, CONFIG};
        bq_weights *w = make(&m, NULL);
        assert_int_equal(expect(w, &m), BQ_OK);
        assert_true(bq_fp8_tensor(w, bq_weights_find(w, "w")));
        assert_true(bq_fp8_scales(w, bq_weights_find(w, "w_scale_inv")));
        assert_false(bq_fp8_scales(w, bq_weights_find(w, "w")));
        const int64_t parts[][2] = {
            {0, n}, {n / 2, n - n / 2}, {n - 1, 1}, {n > 120 ? 120 : 0, n > 140 ? 20 : 1}};
        for (int part = 0; part < 4; part++) {
            int64_t first = parts[part][0], rows = parts[part][1], ld = k + part % 2 * 3;
            float *x = calloc((size_t)(rows * ld), sizeof *x);
            assert_non_null(x);
            bq_mat to = bq_mat_host(x, rows, k, BQ_F32);
            to.ld = ld;
            bq_weights_read(w, bq_weights_find(w, "w"), first, rows, to);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < ld; c++) {
                    int64_t row = first + r;
                    float scale = scale_of(row / 128 * across + c / 128);
                    float want = c < k ? by_hand((uint8_t)code_of(row * k + c)) * scale : 0;
                    if (bq_bits(x[r * ld + c]) != bq_bits(want))
                        fail_msg("row %ld, column %ld", (long)row, (long)c);
                }
            free(x);
        }
        bq_weights_close(w);
    }
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        model m;
        const char *needle;
    } refused[] = {
        {{"F8_E4M3", "w_scale_inv", "F32", 2, {130, 9}, {2, 1}, "{}"},
         "config.json has no quantization_config"},
        {{"F8_E4M3", "w", NULL, 2, {130, 9}, {0, 0}, CONFIG}, "it has no scales"},
        {{"F8_E4M3", "w_scale", "F32", 2, {130, 9}, {2, 1}, CONFIG}, "it has no scales"},
        {{"F8_E4M3", "w_scale_inv", "BF16", 2, {130, 9}, {2, 1}, CONFIG}, "its scales are not F32"},
        {{"F8_E4M3", "w_scale_inv", "F32", 2, {130, 9}, {1, 1}, CONFIG}, "not one for each tile"},
        {{"F8_E4M3", "w_scale_inv", "F32", 2, {130, 9}, {2, 2}, CONFIG}, "not one for each tile"},
        {{"F8_E4M3", "w_scale_inv", "F32", 2, {128, 9}, {2, 1}, CONFIG}, "not one for each tile"},
        {{"F8_E4M3", "w_scale_inv", "F32", 1, {130, 0}, {2, 1}, CONFIG}, "it is not a matrix"},
        {{"F8_E5M2", "w_scale_inv", "F32", 2, {130, 9}, {2, 1}, CONFIG}, "has type F8_E5M2"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        bq_weights *w = make(&refused[i].m, NULL);
        assert_refused(expect(w, &refused[i].m), refused[i].needle);
        bq_weights_close(w);
    }
    model m = {"F8_E4M3", "w_scale_inv", "F32", 2, {130, 9}, {2, 1}, CONFIG}, other = m;
    bq_weights *w = make(&m, NULL);
    other.shape[0] = 129; /* the model's */
    assert_refused(expect(w, &other), "has another shape than config.json says (129 x 9)");
    bq_weights_close(w);
}

static void not_a_number(void **state) {
    (void)state;
    model m = {"F8_E4M3", "w_scale_inv", "F32", 2, {130, 9}, {2, 1}, CONFIG};
    static uint8_t codes[130 * 9];
    uint64_t hash;
    for (int sign = 0; sign <= 128; sign += 128) {
        codes[7 * 9 + 4] = (uint8_t)(0x7f | sign);
        bq_weights *w = make(&m, codes);
        assert_refused(bq_weights_fingerprint(w, NULL, &hash), "tensor 'w' has a NaN at row 7, column 4");
        bq_weights_close(w);
        codes[7 * 9 + 4] = (uint8_t)(0x7e | sign);
        w = make(&m, codes);
        assert_int_equal(bq_weights_fingerprint(w, NULL, &hash), BQ_OK);
        bq_weights_close(w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes), cmocka_unit_test(tiles),
                                       cmocka_unit_test(refusals), cmocka_unit_test(not_a_number)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
