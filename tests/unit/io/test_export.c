/* SPDX-License-Identifier: Apache-2.0 */
#include "toy.h"

#include <dirent.h>

static void check_dense(const char *out, const toy_rule *rule) {
    bq_weights *w, *from;
    assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
    assert_int_equal(bq_weights_open(&w, out), BQ_OK);
    toy t = {.src = from, .rule = rule};
    int changed = 0;
    for (int i = 0; i < bq_weights_count(w); i++) {
        const bq_tensor *a = bq_weights_at(w, i), *b = bq_weights_find(from, a->name);
        bq_qtensor q = {0};
        bool is = toy_get(&t, a->name, true, &q);
        int64_t rows = a->dims == 2 ? a->shape[0] : 1, cols = a->shape[a->dims - 1];
        float *got = malloc(a->bytes), *want = malloc(a->bytes);
        assert_true(got && want);
        assert_string_equal(a->dtype, "F32");
        if (b) bq_weights_read(from, b, 0, rows, bq_mat_host(want, rows, cols, BQ_F32));
        bq_weights_read(w, a, 0, rows, bq_mat_host(got, rows, cols, BQ_F32));
        if (is) memcpy(want, t.dense, a->bytes), changed++;
        if (!is && toy_dense(&t, a->name, 0, bq_mat_host(want, rows, cols, BQ_F32))) changed++;
        assert_memory_equal(got, want, a->bytes);
        free(got);
        free(want);
    }
    assert_true(changed > 10);
    toy_free(&t);
    bq_weights_close(w);
    bq_weights_close(from);
}

static void dense_is_exact(void **state) {
    (void)state;
    static const char *const copied[] = {"tokenizer.json",
                                         "tokenizer_config.json",
                                         "generation_config.json",
                                         "chat_template.jinja",
                                         "merges.txt",
                                         "vocab.json",
                                         "tokenizer.model"};
    char out[512], twin[512];
    snprintf(out, sizeof out, "%s", temp_path("dense/deep/er"));
    snprintf(twin, sizeof twin, "%s", temp_path("dense2"));
    static const toy_rule *const rules[] = {a4g4, a8, kept, w4g4, mixed};
    for (int i = 0; i < 5; i++) {
        make_source("model_llama_default", i % 2 ? "BF16" : "F32");
        int gets;
        assert_int_equal(export_to(out, rules[i], false, 0, &gets), BQ_OK);
        assert_int_equal(gets, 14);
        check_dense(out, rules[i]);
    }
    for (int i = 0; i < 7; i++) assert_same_file(in(src_dir, copied[i]), in(out, copied[i]));
    assert_false(file_there(in(out, "pytorch_model.bin")) || file_there(in(out, "README.md")));
    json_t *a = config_of(src_dir), *b = config_of(out);
    json_object_set_new(a, "dtype", json_string("float32"));
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    assert_int_equal(export_to(twin, mixed, false, (size_t)1 << 30, NULL),
                     BQ_OK); /* dense given, not multiplied */
    assert_same_file(in(out, "model.safetensors"), in(twin, "model.safetensors"));
    assert_same_file(in(out, "config.json"), in(twin, "config.json"));
}

/* Nothing quantized: the source itself, byte for byte where it was float32. */
static void dense_can_be_plain(void **state) {
    (void)state;
    static const toy_rule none[] = {{NULL, 0, 0}};
    make_source("model_llama_bias", "F32");
    assert_int_equal(export_to(temp_path("plain"), none, false, 0, NULL), BQ_OK);
    assert_same_file(in(src_dir, "model.safetensors"), temp_path("plain/model.safetensors"));
}

/* A tensor of more rows than are held at once, one with a single row, and one that fills the buffer. */
static void replaced_in_pieces(void **state) {
    (void)state;
    static const toy_rule twice[] = {{"", 1, 0}, {NULL, 0, 0}};
    static const int64_t shape[3][2] = {{2500, 1000}, {1, 7}, {2, (int64_t)(BQ_EXPORT_BUFFER / 4)}};
    static const char *const name[3] = {"a.weight", "b.weight", "c.weight"};
    char out[512];
    snprintf(src_dir, sizeof src_dir, "%s", temp_path("tall"));
    snprintf(out, sizeof out, "%s", temp_path("tall2"));
    for (int bad = 0; bad < 2; bad++) {
        assert_int_equal(bq_dir_make(src_dir), 0);
        text_in(src_dir, "config.json", "{}");
        bq_writer *w = bq_writer_plan();
        for (int i = 0; i < 3; i++)
            bq_writer_add(w, name[i], "F32", 2, (int64_t[]){shape[i][0], shape[i][1] + bad});
        bq_writer_open(w, in(src_dir, "model.safetensors"));
        for (int i = 0; i < 3; i++)
            for (int64_t k = 0; k < shape[i][0] * (shape[i][1] + bad); k++)
                bq_writer_put(w, (float[]){(float)(i + k % 977)}, 4);
        bq_writer_close(w);
        if (bad)
            assert_refused(export_to(out, twice, false, 0, NULL), "'c.weight' cannot be replaced");
        else {
            int gets;
            assert_int_equal(export_to(out, twice, false, 0, &gets), BQ_OK);
            assert_int_equal(gets, 3);
        }
    }
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, out), BQ_OK);
    for (int i = 0; i < 3; i++) {
        const bq_tensor *t = bq_weights_find(w, name[i]);
        float *x = malloc(t->bytes);
        assert_non_null(x);
        bq_weights_read_raw(w, t, 0, x, t->bytes);
        for (int64_t k = 0; k < shape[i][0] * shape[i][1]; k++)
            if (x[k] != (float)(2 * (i + k % 977))) fail_msg("%s: value %ld is %g", name[i], (long)k, x[k]);
        free(x);
    }
    bq_weights_close(w);
}

/* Old and new spelling of the type, and neither. */
static void dense_says_float32(void **state) {
    (void)state;
    static const char *const key[] = {"torch_dtype", "dtype", NULL};
    make_source("model_llama_default", "BF16");
    json_t *config = config_of(src_dir);
    for (int i = 0; i < 3; i++) {
        json_object_del(config, "torch_dtype");
        json_object_del(config, "dtype");
        if (key[i]) json_object_set_new(config, key[i], json_string("bfloat16"));
        assert_int_equal(json_dump_file(config, in(src_dir, "config.json"), 0), 0);
        assert_int_equal(export_to(temp_path("f32"), w4, false, 0, NULL), BQ_OK);
        json_t *out = config_of(temp_path("f32"));
        assert_string_equal(json_string_value(json_object_get(out, key[i] ? key[i] : "torch_dtype")),
                            "float32");
        assert_true(json_object_size(out) == json_object_size(config) + !key[i]);
        json_decref(out);
    }
    json_decref(config);
}

static void shards_are_cut(void **state) {
    (void)state;
    char out[512], whole[512];
    enum { LIMIT = 30000 };
    snprintf(out, sizeof out, "%s", temp_path("cut"));
    snprintf(whole, sizeof whole, "%s", temp_path("cut1"));
    make_source("model_llama_default", "F32");
    assert_int_equal(export_to(out, w4, false, LIMIT, NULL), BQ_OK);
    check_dense(out, w4);
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, out), BQ_OK);
    int files = bq_weights_files(w);
    assert_true(files > 5);
    size_t all = 0;
    int last = 0;
    for (int i = 0; i < files; i++) {
        char name[64];
        size_t bytes, data = 0;
        int tensors = 0;
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", i + 1, files);
        assert_string_equal(bq_weights_file(w, i, &bytes), name);
        for (int k = 0; k < bq_weights_count(w); k++) {
            if (bq_weights_at(w, k)->file == i) data += bq_weights_at(w, k)->bytes, tensors++;
        }
        assert_true(tensors == 1 || data <= LIMIT);
        all += data;
    }
    for (int b = 0; b < 2; b++) { /* neighbours stay together */
        const bq_tensor *t = bq_weights_find(w, b ? "model.layers.1.input_layernorm.weight"
                                                  : "model.layers.0.mlp.down_proj.weight");
        assert_true(t->file >= last);
        last = t->file;
    }
    bq_weights_close(w);
    json_t *index;
    assert_int_equal(bq_json_read(in(out, "model.safetensors.index.json"), 1 << 20, &index), BQ_OK);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")),
                     all);
    json_decref(index);

    /* Over an older export of ours: what it had more is gone, and nothing says that it was there. */
    assert_int_equal(export_to(out, w4, false, 0, NULL), BQ_OK);
    assert_int_equal(export_to(whole, w4, false, 0, NULL), BQ_OK);
    assert_same_file(in(out, "model.safetensors"), in(whole, "model.safetensors"));
    assert_false(file_there(in(out, "model.safetensors.index.json")));
    for (int i = 0; i < files; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", i + 1, files);
        assert_false(file_there(in(out, name)));
    }
    assert_int_equal(bq_weights_open(&w, out), BQ_OK);
    assert_int_equal(bq_weights_files(w), 1);
    bq_weights_close(w);
}

/* ---- parts ---- */

/* Everything in two directories is equal; how many files there are. */
static int same_directories(const char *a, const char *b) {
    struct dirent **of_a, **of_b;
    int n = scandir(a, &of_a, NULL, alphasort), m = scandir(b, &of_b, NULL, alphasort), files = 0;
    assert_int_equal(n, m);
    for (int i = 0; i < n; i++) {
        const char *name = of_a[i]->d_name;
        assert_string_equal(name, of_b[i]->d_name);
        if (*name != '.') assert_same_file(in(a, name), in(b, name)), files++;
        free(of_a[i]);
        free(of_b[i]);
    }
    free(of_a);
    free(of_b);
    return files;
}

static void parts_are_the_whole(void **state) {
    (void)state;
    static const size_t limit[] = {TOY_SHARD, 40000, 1};
    char one[512], many[512];
    snprintf(one, sizeof one, "%s", temp_path("part1"));
    make_source("model_llama_llama3", "BF16");
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, src_dir), BQ_OK);
    for (int i = 0; i < 6; i++) {
        toy t = {.src = w, .rule = untie};
        bq_qsource q = {.ctx = &t, .get = toy_get, .dense = toy_dense};
        assert_int_equal(export_parts(w, one, q, i % 2, limit[i / 2], 1), BQ_OK);
        int asked = t.gets;
        for (int parts = 2; parts <= 8; parts += 1 + 4 * (parts == 3)) { /* 8: more than shards, mostly */
            t.gets = 0;
            snprintf(many, sizeof many, "%s", temp_path("parts"));
            assert_int_equal(export_parts(w, many, q, i % 2, limit[i / 2], parts), BQ_OK);
            assert_int_equal(same_directories(one, many) == 9, limit[i / 2] == TOY_SHARD);
            assert_int_equal(t.gets, asked); /* nobody asks for what another one writes */
        }
        toy_free(&t);
    }
    bq_weights_close(w);
}

/* Each step touches what it says and no more. */
static void steps_are_apart(void **state) {
    (void)state;
    char out[512], old[512];
    snprintf(out, sizeof out, "%s", temp_path("steps"));
    make_source("model_llama_default", "F32");
    assert_int_equal(export_to(out, w4, true, 30000, NULL), BQ_OK);
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, src_dir), BQ_OK);
    toy t = {.src = w, .rule = w4};
    bq_export_job *job;
    assert_int_equal(bq_export_open(&job, w, out, (bq_qsource){.ctx = &t, .get = toy_get, .dense = toy_dense},
                                    bq_format_at(bq_format_find("compressed-tensors")), toy_options, 20000),
                     BQ_OK);
    assert_true(file_there(in(out, "config.json")) && t.gets == 0);
    assert_int_equal(bq_export_claim(job), BQ_OK);
    assert_false(file_there(in(out, "config.json")) || file_there(in(out, "model.safetensors.index.json")));
    int shards = bq_export_shards(job);
    assert_true(shards > 3);
    for (int i = 0; i < shards; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", i + 1, shards);
        assert_false(file_there(in(out, name)));
        bq_export_write(job, i, shards);
        assert_true(file_there(in(out, name)));
    }
    bq_export_write(job, shards, shards + 1); /* no shard is left for this one */
    assert_false(file_there(in(out, "config.json")) || file_there(in(out, "model.safetensors.index.json")));
    assert_int_equal(bq_export_finish(job), BQ_OK);
    bq_export_close(job);
    bq_export_close(NULL);
    toy_free(&t);
    bq_weights_close(w);
    snprintf(old, sizeof old, "%s", temp_path("steps_old"));
    assert_int_equal(export_to(old, w4, true, 20000, NULL), BQ_OK);
    same_directories(out, old);
}

/* ---- directories ---- */

static void directories_are_guarded(void **state) {
    (void)state;
    char other[512], link[512];
    make_source("model_llama_default", "F32");
    assert_refused(export_to(src_dir, w4, false, 0, NULL), "is the source model itself");
    snprintf(link, sizeof link, "%s", temp_path("link"));
    assert_int_equal(symlink(src_dir, link), 0);
    assert_refused(export_to(link, w4, true, 0, NULL), "is the source model itself");
    snprintf(other, sizeof other, "%s", temp_path("other"));
    assert_int_equal(bq_dir_make(other), 0);
    text_in(other, "config.json", "{}");
    assert_refused(export_to(other, w4, false, 0, NULL), "not from blockq");
    assert_true(file_there(in(other, "config.json")));
    assert_int_equal(unlink(in(other, "config.json")), 0);
    st_save(in(other, "adapter.safetensors"), "{}", 0);
    assert_refused(export_to(other, w4, false, 0, NULL), "adapter.safetensors' is not from blockq");
    text_in(other, "adapter.safetensors", "junk that is longer than a header's length");
    assert_refused(export_to(other, w4, false, 0, NULL), "adapter.safetensors");
    assert_true(file_there(in(other, "adapter.safetensors")));
    assert_false(file_there(in(src_dir, "new")));
    assert_refused(export_to("/dev/null/x", w4, false, 0, NULL), "cannot create");
}

/* Dying anywhere leaves no directory that loads; the next export mends it. */
static void half_written_never_loads(void **state) {
    (void)state;
    char out[512], good[512], err[600];
    static const char *const faults[] = {"BQ_FAULT=writer_write:2", "BQ_FAULT=writer_write:9",
                                         "BQ_FAULT=writer_close:2", "BQ_FAULT=file_rename:1",
                                         "BQ_FAULT=file_rename:3",  "BQ_FAULT=file_write:1"};
    snprintf(out, sizeof out, "%s", temp_path("half"));
    snprintf(good, sizeof good, "%s", temp_path("good"));
    make_source("model_llama_default", "F32");
    assert_int_equal(export_to(good, w4, true, 20000, NULL), BQ_OK);
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, good), BQ_OK);
    int shards = bq_weights_files(w);
    bq_weights_close(w);
    assert_true(shards > 1);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(export_to(out, w4, false, 0, NULL),
                         BQ_OK); /* an older whole one must not shine through */
        setenv("BQ_SOURCE", src_dir, 1);
        assert_int_equal(child_run("ct", out, faults[i], err, sizeof err), BQ_DIED);
        assert_one_line(err, "failed");
        assert_false(file_there(in(out, "config.json")));
        assert_int_equal(child_run("ct", out, NULL, err, sizeof err), BQ_OK);
        for (int k = 0; k < shards; k++) {
            char name[64];
            snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", k + 1, shards);
            assert_same_file(in(out, name), in(good, name));
        }
        assert_same_file(in(out, "config.json"), in(good, "config.json"));
        assert_same_file(in(out, "model.safetensors.index.json"), in(good, "model.safetensors.index.json"));
    }
}

/* With arguments: `make DIR` writes models for tools/check_export.py and people; `ct DIR` is a child of the
 * tests. */
static int program(const char *what, const char *dir) {
    if (strcmp(what, "ct") == 0) {
        snprintf(src_dir, sizeof src_dir, "%s", getenv("BQ_SOURCE"));
        return export_to(dir, w4, true, 20000, NULL);
    }
    static const struct {
        const char *name, *golden;
        const toy_rule *rule;
    } models[] = {{"w4", "model_llama_default", w4},       {"w4g4", "model_llama_default", w4g4},
                  {"w8g4", "model_llama_default", w8g4},   {"mixed", "model_llama_default", mixed},
                  {"bias", "model_llama_bias", w4},        {"tied", "model_llama_llama3", w4},
                  {"untied", "model_llama_llama3", untie}, {"turned", "model_llama_llama3", turned},
                  {"a4g4", "model_llama_default", a4g4},   {"a8", "model_phi3_partial", a8},
                  {"w8a8", "model_llama_default", w8a8},   {"part8", "model_llama_default", part8},
                  {"phi3", "model_phi3_partial", w4}};
    int rc = 0;
    for (int i = 0; i < (int)(sizeof models / sizeof *models) && !rc; i++) {
        char out[600];
        snprintf(src_dir, sizeof src_dir, "%s/%s/src", dir, models[i].name);
        toy_model(src_dir, models[i].golden, "F32");
        for (int ct = 0; ct < 2 && !rc; ct++) {
            snprintf(out, sizeof out, "%s/%s/%s", dir, models[i].name, ct ? "ct" : "dense");
            rc = export_to(out, models[i].rule, ct, i % 2 ? 30000 : 0, NULL);
        }
    }
    return rc;
}

int main(int argc, char **argv) {
    if (argc == 3) return program(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_is_exact),           cmocka_unit_test(dense_can_be_plain),
        cmocka_unit_test(dense_says_float32),       cmocka_unit_test(replaced_in_pieces),
        cmocka_unit_test(shards_are_cut),           cmocka_unit_test(parts_are_the_whole),
        cmocka_unit_test(steps_are_apart),          cmocka_unit_test(directories_are_guarded),
        cmocka_unit_test(half_written_never_loads),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
