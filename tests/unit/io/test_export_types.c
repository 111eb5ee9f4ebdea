/* SPDX-License-Identifier: Apache-2.0 */
/* The key `type` of the format safetensors: all floats in BF16 or F16, and what the log says of it. */
#include "toy.h"

enum { F32, BF16, F16 };
static const char *const dtypes[] = {"F32", "BF16", "F16"}, *const names[] = {"float32", "bfloat16",
                                                                              "float16"};
static int type; /* as the format's key fills it */

static int export_type(const char *out, const toy_rule *rule, int of, size_t limit) {
    type = of, toy_options = &type;
    return export_to(out, rule, false, limit, NULL);
}

static float rounded(float x, int of) {
    return of == F16 ? bq_from_f16(bq_to_f16(x)) : of == BF16 ? bq_from_bf16(bq_to_bf16(x)) : x;
}

/* All of out is what F32 has, rounded.  Returns the largest relative error of a tensor, and its name; how
 * many are not in the source with that type. */
static double check_rounded(const char *f32, const char *out, int of, const char **worst, int *count) {
    static char name[200];
    bq_weights *a, *b, *from;
    double most = -1;
    *count = 0, *worst = name;
    assert_int_equal(bq_weights_open(&a, f32), BQ_OK);
    assert_int_equal(bq_weights_open(&b, out), BQ_OK);
    assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
    assert_int_equal(bq_weights_count(a), bq_weights_count(b));
    for (int i = 0; i < bq_weights_count(a); i++) {
        const bq_tensor *x = bq_weights_at(a, i), *y = bq_weights_find(b, x->name);
        int64_t rows = x->dims == 2 ? x->shape[0] : 1, cols = x->shape[x->dims - 1];
        float *want = malloc(x->bytes), *got = malloc(x->bytes);
        double error = 0, power = 0;
        assert_true(want && got && y);
        assert_string_equal(y->dtype, dtypes[of]);
        bq_weights_read(a, x, 0, rows, bq_mat_host(want, rows, cols, BQ_F32));
        bq_weights_read(b, y, 0, rows, bq_mat_host(got, rows, cols, BQ_F32));
        for (int64_t k = 0; k < rows * cols; k++) {
            assert_true(got[k] == rounded(want[k], of));
            error += pow((double)got[k] - (double)want[k], 2), power += pow((double)want[k], 2);
        }
        const bq_tensor *source = bq_weights_find(from, x->name);
        if (!source || strcmp(source->dtype, dtypes[of]) != 0 || error > 0) ++*count;
        if (power > 0 && sqrt(error / power) > most)
            most = sqrt(error / power), snprintf(name, sizeof name, "%s", x->name);
        free(want);
        free(got);
    }
    bq_weights_close(a);
    bq_weights_close(b);
    bq_weights_close(from);
    return most;
}

/* Results with zero points, with factors of inputs, as products or given as a whole; replaced tensors. */
static void types(void **state) {
    (void)state;
    static const toy_rule *const rules[] = {a4g4, kept, mixed, turned};
    static const char *const golden[] = {"model_llama_default", "model_phi3_partial"};
    char f32[512], out[512], log[4096], want[400];
    snprintf(f32, sizeof f32, "%s", temp_path("f32"));
    snprintf(out, sizeof out, "%s", temp_path("half"));
    for (int i = 0; i < 16; i++) {
        int of = i % 2 ? F16 : BF16, count;
        const toy_rule *rule = rules[i / 2 % 4];
        const char *worst;
        if (rule == mixed && i / 8) continue; /* its lm_head is a tensor of its own */
        make_source(golden[rule == mixed ? 0 : i / 8], i % 3 ? "BF16" : "F32");
        assert_int_equal(export_type(f32, rule, F32, 0), BQ_OK);
        int fd = captured_fd(0), rc = export_type(out, rule, of, i % 4 ? 0 : TOY_SHARD);
        captured_text(fd, log, sizeof log);
        assert_int_equal(rc, BQ_OK);
        double most = check_rounded(f32, out, of, &worst, &count);
        snprintf(want, sizeof want,
                 "tensors were rounded to %s, the worst, '%s', by %.2g of its values (RMS)", dtypes[of],
                 worst, most);
        assert_one_line(log, want);
        assert_true(atoi(strstr(log, "safetensors: ") + strlen("safetensors: ")) >= count && count >= 8);
        json_t *config = config_of(out), *old = json_object_get(config, "torch_dtype");
        assert_string_equal(json_string_value(old ? old : json_object_get(config, "dtype")), names[of]);
        json_decref(config);
    }
}

/* Nothing is rounded: bytes as they are in the source, and no line. */
static void as_it_is(void **state) {
    (void)state;
    static const toy_rule none[] = {{NULL, 0, 0}};
    char log[4096];
    make_source("model_llama_bias", "BF16");
    int fd = captured_fd(0), rc = export_type(temp_path("plain"), none, BF16, 0);
    captured_text(fd, log, sizeof log);
    assert_int_equal(rc, BQ_OK);
    assert_string_equal(log, "");
    assert_same_file(in(src_dir, "model.safetensors"), temp_path("plain/model.safetensors"));
}

static int write_one(const char *dir) {
    static const toy_rule none[] = {{NULL, 0, 0}};
    char out[600];
    snprintf(src_dir, sizeof src_dir, "%s", dir);
    snprintf(out, sizeof out, "%s_out", dir);
    return export_type(out, none, F16, 0);
}

static void too_large(void **state) {
    (void)state;
    char dir[512], err[4096];
    snprintf(dir, sizeof dir, "%s", temp_path("large"));
    for (int bad = 0; bad < 2; bad++) {
        float value[2] = {1, bad ? 65520 : 65519.996f};
        assert_int_equal(bq_dir_make(dir), 0);
        text_in(dir, "config.json", "{}");
        bq_writer *w = bq_writer_plan();
        bq_writer_add(w, "a.weight", "F32", 1, (int64_t[]){2});
        bq_writer_open(w, in(dir, "model.safetensors"));
        bq_writer_put(w, value, sizeof value);
        bq_writer_close(w);
        assert_int_equal(child_run("write", dir, NULL, err, sizeof err), bad ? BQ_DATA : BQ_OK);
    }
    assert_one_line(err, "'a.weight' has 65520, too large for F16: set the output's type to bf16");
}

int main(int argc, char **argv) {
    if (argc == 3) return write_one(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types),
        cmocka_unit_test(as_it_is),
        cmocka_unit_test(too_large),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
