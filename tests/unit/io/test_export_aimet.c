/* SPDX-License-Identifier: Apache-2.0 */
/* The format aimet: encodings by hand and those of AIMET itself, field by field; the codes that a reader
 * makes of what is written; names and layouts of ONNX; what is refused. */
#include "toy.h"

/* As the format's keys fill them: the version (1.0.0, 0.6.1, 2.0.0), the map of names. */
static struct {
    int version;
    char names[BQ_PATH_MAX];
} keys;

enum { V1_0_0, V0_6_1, V2_0_0 };

static json_t *file_of(const char *dir, const char *name) {
    json_t *file;
    assert_int_equal(bq_json_read(in(dir, name), 1 << 24, &file), BQ_OK);
    return file;
}

/* A tensor's encoding, whatever the version; NULL: there is none. */
static json_t *encoding_of(const json_t *file, const char *name) {
    json_t *list = json_object_get(file, "encodings"), *params = json_object_get(file, "param_encodings"), *e;
    size_t i;
    if (json_is_object(params)) return json_object_get(params, name);
    json_array_foreach(list ? list : params, i, e) {
        if (strcmp(json_string_value(json_object_get(e, "name")), name) == 0) return e;
    }
    return NULL;
}

/* ---- grids that are given ---- */

enum { GIVEN = 8, MOST = 256 };

typedef struct {
    const char *name;
    int bits;
    bool symmetric;
    int64_t group, rows, cols;
    float scale[MOST], zero[MOST];
} given;

typedef struct {
    const given *g;
    int count;
} givens;

static bool given_get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    static int8_t code[1 << 10];
    const givens *all = ctx;
    const given *g = all->g;
    while (g < all->g + all->count && strcmp(g->name, name) != 0) g++;
    if (g == all->g + all->count) return false;
    int64_t groups = g->group ? g->cols / g->group : 1;
    float *scale = (float *)(uintptr_t)g->scale, *zero = (float *)(uintptr_t)g->zero;
    *q = (bq_qtensor){.scheme = {g->bits, g->group ? g->group : -1, g->symmetric, BQ_F32, BQ_GRID_AIMET},
                      .code = bq_mat_host(want_data ? code : NULL, g->rows, g->cols, BQ_I8),
                      .scale = bq_mat_host(want_data ? scale : NULL, g->rows, groups, BQ_F32),
                      .zero =
                          bq_mat_host(want_data ? zero : NULL, g->symmetric ? 0 : g->rows, groups, BQ_F32)};
    return true;
}

/* The encodings file of these grids, with names of torch. */
static json_t *export_given(const givens *all, int version) {
    static const char zeros[1 << 10];
    const char *dir = temp_path("given"), *out = temp_path("given_out");
    bq_weights *w;
    assert_int_equal(bq_dir_make(dir), 0);
    text_in(dir, "config.json", "{}");
    bq_writer *to = bq_writer_plan();
    for (int i = 0; i < all->count; i++)
        bq_writer_add(to, all->g[i].name, "I8", 2, (int64_t[]){all->g[i].rows, all->g[i].cols});
    bq_writer_open(to, in(dir, "model.safetensors"));
    for (int i = 0; i < bq_writer_count(to); i++) bq_writer_put(to, zeros, bq_writer_at(to, i)->bytes);
    bq_writer_close(to);
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    keys.version = version, keys.names[0] = 0, toy_options = &keys;
    bq_qsource source = {.ctx = (void *)(uintptr_t)all, .get = given_get};
    assert_int_equal(export_as("aimet", w, out, source, TOY_SHARD, 1), BQ_OK);
    bq_weights_close(w);
    assert_false(file_there(in(out, "model.encodings")));
    json_t *file = file_of(out, "model_torch.encodings");
    static const char *const numbers[] = {"1.0.0", "0.6.1", "2.0.0"};
    assert_string_equal(json_string_value(json_object_get(file, "version")), numbers[version]);
    return file;
}

/* Two rows of 128 columns, by hand. */
static void by_hand(void **state) {
    (void)state;
    static const given g[] = {
        {"a.weight", 4, true, 0, 2, 128, {0.1f, 0.05f}, {0}},
        {"b.weight", 4, true, 64, 2, 128, {0.1f, 0.12f, 0.05f, 0.04f}, {0}},
        {"c.weight", 4, true, 64, 2, 128, {13 * 0.0078125f, 16 * 0.0078125f, 16 * 0.25f, 5 * 0.25f}, {0}},
        {"d.weight", 2, false, 0, 2, 128, {0.5f, 1}, {-2, 1}}};
    const givens all = {g, 4};
    json_t *file = export_given(&all, V1_0_0);
    same_json(json_object_get(file, "activation_encodings"), "[]");
    same_json(json_object_get(file, "excluded_layers"), "[]");
    same_json(json_object_get(json_object_get(file, "quantizer_args"), "param_bitwidth"), "4");
    same_json(
        json_object_get(file, "param_encodings"),
        "[{\"name\":\"a.weight\",\"enc_type\":\"PER_CHANNEL\",\"dtype\":\"INT\",\"bw\":4,\"is_sym\":true,"
        "\"scale\":[0.100000001,0.0500000007],\"offset\":[-8,-8]},"
        "{\"name\":\"b.weight\",\"enc_type\":\"PER_BLOCK\",\"dtype\":\"INT\",\"bw\":4,\"is_sym\":true,"
        "\"block_size\":64,\"scale\":[0.100000001,0.119999997,0.0500000007,0.0399999991],"
        "\"offset\":[-8,-8,-8,-8]},"
        "{\"name\":\"c.weight\",\"enc_type\":\"LPBQ\",\"dtype\":\"INT\",\"bw\":8,\"is_sym\":true,"
        "\"compressed_bw\":4,\"block_size\":64,\"scale\":[0.0078125,0.25],\"offset\":[-128,-128],"
        "\"per_block_int_scale\":[13,16,16,5]},"
        "{\"name\":\"d.weight\",\"enc_type\":\"PER_CHANNEL\",\"dtype\":\"INT\",\"bw\":2,\"is_sym\":false,"
        "\"scale\":[0.5,1.0],\"offset\":[0,-3]}]");
    json_decref(file);
    file = export_given(&all, V0_6_1);
    same_json(json_object_get(file, "activation_encodings"), "{}");
    same_json(encoding_of(file, "d.weight"),
              "[{\"bitwidth\":2,\"dtype\":\"int\",\"is_symmetric\":\"False\",\"min\":0.0,\"max\":1.5,"
              "\"offset\":0,\"scale\":0.5},{\"bitwidth\":2,\"dtype\":\"int\",\"is_symmetric\":\"False\","
              "\"min\":-3.0,\"max\":0.0,\"offset\":-3,\"scale\":1.0}]");
    json_decref(file);
    file = export_given(&all, V2_0_0);
    assert_null(json_object_get(file, "quantizer_args"));
    same_json(encoding_of(file, "a.weight"), "{\"name\":\"a.weight\",\"output_dtype\":\"int4\",\"axis\":0,"
                                             "\"y_scale\":[0.100000001,0.0500000007]}");
    same_json(encoding_of(file, "d.weight"), "{\"name\":\"d.weight\",\"output_dtype\":\"uint2\",\"axis\":0,"
                                             "\"y_scale\":[0.5,1.0],\"y_zero_point\":[0,3]}");
    json_decref(file);
}

/* ---- AIMET's own ---- */

/* Equal, reals as floats, an axis from behind as one from the front.  Lists of zero points that are all 0 may
 * be missing. */
static void same_value(const json_t *got, const json_t *want, const char *where) {
    const char *key;
    json_t *value;
    size_t i;
    if (json_is_number(want)) {
        float a = (float)json_number_value(got), b = (float)json_number_value(want);
        if (strcmp(where, "axis") == 0 && b < 0) b += 2;
        if (!json_is_number(got) || a != b) fail_msg("%s: %.9g, not %.9g", where, (double)a, (double)b);
        if (json_is_real(want)) assert_true(json_is_real(got));
    } else if (json_is_object(want)) {
        json_object_foreach((json_t *)(uintptr_t)want, key, value) {
            same_value(json_object_get(got, key), value, key);
        }
        assert_int_equal(json_object_size(got) - (json_object_get(got, "name") != NULL),
                         json_object_size(want));
    } else if (json_is_array(want)) {
        assert_int_equal(json_array_size(got), json_array_size(want));
        json_array_foreach(want, i, value) same_value(json_array_get(got, i), value, where);
    } else if (!json_equal(got, want))
        fail_msg("%s: another value", where);
}

static void take_case(const json_t *c, const char *name, given *g) {
    bq_json from = bq_json_of(c, name);
    int64_t bits = 0, groups;
    double number[MOST];
    *g = (given){.name = name};
    bq_json_int(&from, "bits", 2, 8, &bits), bq_json_bool(&from, "symmetric", &g->symmetric);
    bq_json_int(&from, "group", 0, 64, &g->group), bq_json_int(&from, "rows", 1, 16, &g->rows);
    bq_json_int(&from, "cols", 1, 64, &g->cols);
    g->bits = (int)bits, groups = g->group ? g->cols / g->group : 1;
    bq_json_reals(&from, "scale", 0, 1e9, g->rows * groups, number);
    for (int64_t i = 0; i < g->rows * groups; i++) g->scale[i] = (float)number[i];
    bq_json_reals(&from, "zero", -128, 127, g->rows * groups, number);
    for (int64_t i = 0; i < g->rows * groups; i++) g->zero[i] = (float)number[i];
    assert_int_equal(from.status, BQ_OK);
}

static void original(void **state) {
    (void)state;
    static const char *const numbers[] = {"1.0.0", "0.6.1", "2.0.0"};
    static given g[GIVEN];
    static char names[GIVEN][64];
    json_t *vectors, *cases, *c;
    const char *key;
    int count = 0;
    assert_int_equal(bq_json_read(BQ_VECTORS "/aimet_encodings.json", 1 << 20, &vectors), BQ_OK);
    cases = json_object_get(vectors, "cases");
    json_object_foreach(cases, key, c) {
        snprintf(names[count], sizeof names[count], "%s.weight", key);
        assert_true(count < GIVEN);
        take_case(c, names[count], &g[count]), count++;
    }
    assert_int_equal(count, GIVEN);
    for (int version = V1_0_0; version <= V2_0_0; version++) {
        json_t *file = export_given(&(givens){g, count}, version);
        for (int i = 0; i < count; i++) {
            c = json_object_getn(cases, names[i], strlen(names[i]) - strlen(".weight"));
            same_value(encoding_of(file, names[i]),
                       json_object_get(json_object_get(c, "encoding"), numbers[version]), names[i]);
        }
        json_decref(file);
    }
    json_decref(vectors);
}

/* ---- models ---- */

static int export_model(const char *out, const toy_rule *rule, int version, const char *names, size_t limit,
                        int parts) {
    bq_weights *w;
    keys.version = version, toy_options = &keys;
    snprintf(keys.names, sizeof keys.names, "%s", names);
    assert_int_equal(bq_weights_open(&w, src_dir), BQ_OK);
    toy t = {.src = w, .rule = rule};
    int rc =
        export_as("aimet", w, out, (bq_qsource){.ctx = &t, .get = toy_get, .dense = toy_dense}, limit, parts);
    toy_free(&t);
    bq_weights_close(w);
    return rc;
}

static double number_at(const json_t *e, const char *key, int64_t i) {
    const json_t *list = json_object_get(e, key);
    assert_true(i < (int64_t)json_array_size(list));
    return json_number_value(json_array_get(list, (size_t)i));
}

/* AIMET's simulation of a weight as it is written: its codes are the result's, and its values what is
 * written. */
static void simulate(const bq_weights *w, const json_t *e, const toy *t, const bq_qtensor *q,
                     const char *name) {
    const bq_tensor *a = bq_weights_find(w, name);
    int64_t rows = q->code.rows, cols = q->code.cols, groups = q->scale.cols, width = cols / groups;
    float *value = malloc(a->bytes), half = -bq_qmin(q->scheme);
    assert_non_null(value);
    assert_string_equal(a->dtype, "F32");
    bq_weights_read_raw(w, a, 0, value, a->bytes);
    assert_int_equal(json_array_size(json_object_get(e, "scale")), rows * groups);
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t g = i / cols * groups + i % cols / width;
        float scale = (float)number_at(e, "scale", g), offset = (float)number_at(e, "offset", g);
        float code = fminf(fmaxf(rintf(value[i] / scale - offset), 0), 2 * half - 1);
        double exact = rint((double)value[i] / number_at(e, "scale", g) - (double)offset);
        assert_true(scale == t->scale[g] && (double)code == exact);
        assert_int_equal((int)(code - half), t->code[i]);
        assert_true((code + offset) * scale == value[i]);
    }
    free(value);
}

static void codes_come_back(void **state) {
    (void)state;
    static const toy_rule *const rules[] = {w4, w8g4, a4g4, a8, mixed};
    char out[512], many[512];
    snprintf(out, sizeof out, "%s", temp_path("model"));
    snprintf(many, sizeof many, "%s", temp_path("many"));
    for (int i = 0; i < 5; i++) {
        bq_weights *w, *from;
        make_source("model_llama_llama3", i % 2 ? "BF16" : "F32");
        assert_int_equal(export_model(out, rules[i], V1_0_0, "", TOY_SHARD, 1), BQ_OK);
        assert_int_equal(bq_weights_open(&w, out), BQ_OK);
        assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
        toy t = {.src = from, .rule = rules[i]};
        json_t *file = file_of(out, "model_torch.encodings");
        size_t listed = json_array_size(json_object_get(file, "param_encodings")), quantized = 0;
        for (int k = 0; k < bq_weights_count(w); k++) {
            const char *name = bq_weights_at(w, k)->name;
            bq_qtensor q;
            if (!toy_get(&t, name, true, &q)) continue;
            simulate(w, encoding_of(file, name), &t, &q, name);
            quantized++;
        }
        assert_true(quantized > 9);
        assert_int_equal(listed, quantized);
        json_decref(file);
        toy_free(&t);
        bq_weights_close(w);
        bq_weights_close(from);
        assert_int_equal(export_model(many, rules[i], V1_0_0, "", 12000, 3), BQ_OK);
        assert_same_file(in(out, "model_torch.encodings"), in(many, "model_torch.encodings"));
        assert_same_file(in(out, "config.json"), in(many, "config.json"));
    }
    char plain[512];
    snprintf(plain, sizeof plain, "%s", temp_path("plain"));
    assert_int_equal(export_to(plain, mixed, false, 0, NULL), BQ_OK);
    assert_same_file(in(out, "model.safetensors"), in(plain, "model.safetensors"));
    assert_same_file(in(out, "config.json"), in(plain, "config.json"));
    assert_int_equal(export_to(out, mixed, false, 0, NULL), BQ_OK);
    assert_false(file_there(in(out, "model_torch.encodings"))); /* of the export before */
}

/* ---- ONNX ---- */

static void names_of_onnx(void **state) {
    (void)state;
    static const toy_rule rules[] = {{"0.mlp.up_proj", -4, 8}, {"0.mlp.down_proj", 4, 0}, {NULL, 0, 0}};
    static const char up[] = "model.layers.0.mlp.up_proj.weight";
    char out[512], map[512];
    snprintf(out, sizeof out, "%s", temp_path("onnx"));
    snprintf(map, sizeof map, "%s", temp_path("names.json"));
    make_source("model_llama_llama3", "F32"); /* up_proj is (112, 48) */
    text_save(map, "{\"model.layers.0.mlp.up_proj.weight\": {\"name\": \"val \\\"1\\\"\", \"transposed\": "
                   "true}, \"model.layers.0.mlp.down_proj.weight\": \"down\", \"other\": \"x\"}");
    assert_int_equal(export_model(out, rules, V2_0_0, "", TOY_SHARD, 1), BQ_OK);
    json_t *torch = file_of(out, "model_torch.encodings");
    assert_int_equal(export_model(out, rules, V2_0_0, map, TOY_SHARD, 1), BQ_OK);
    assert_false(file_there(in(out, "model_torch.encodings")));
    json_t *onnx = file_of(out, "model.encodings");
    json_t *a = encoding_of(torch, up), *b = encoding_of(onnx, "val \"1\"");
    same_json(json_object_get(a, "axis"), "1");
    same_json(json_object_get(b, "axis"), "0");
    for (size_t i = 0; i < 2; i++) {
        const char *key = i ? "y_zero_point" : "y_scale";
        assert_int_equal(json_array_size(json_object_get(b, key)), 6);
        for (size_t r = 0; r < 112; r++)
            for (size_t g = 0; g < 6; g++)
                assert_true(json_equal(json_array_get(json_array_get(json_object_get(a, key), r), g),
                                       json_array_get(json_array_get(json_object_get(b, key), g), r)));
    }
    same_json(json_object_get(encoding_of(onnx, "down"), "axis"), "0");
    json_decref(torch);
    json_decref(onnx);
    assert_refused(export_model(out, rules, V0_6_1, map, 1, 1),
                   "which encodings 0.6.1 of an ONNX model cannot");
    assert_refused(export_model(out, w4, V1_0_0, map, 1, 1), "gate_proj.weight' has no name in ");
    text_save(map, "[]");
    assert_refused(export_model(out, rules, V1_0_0, map, 1, 1), "names.json");
    text_save(map, "{\"model.layers.0.mlp.down_proj.weight\": {\"transposed\": true}}");
    assert_refused(export_model(out, rules, V1_0_0, map, 1, 1), "down_proj.weight' has no name in ");
    assert_refused(export_model(out, rules, V1_0_0, "/nowhere", 1, 1), "/nowhere");
}

/* ---- refusals ---- */

static void refusals(void **state) {
    (void)state;
    make_source("model_llama_llama3", "F32"); /* down_proj is (48, 112) */
    bq_mat code = bq_mat_host(NULL, 48, 112, BQ_I8), one = bq_mat_host(NULL, 48, 1, BQ_F32),
           pre = bq_mat_host(NULL, 1, 112, BQ_F32);
    toy_options = toy_no_options;
    assert_refused(
        export_wrong(
            "aimet",
            (bq_qtensor){.code = code, .scale = one, W(8, -1, true), .inputs = bq_rounding_of_tokens(8)}),
        "aimet has integers with one measured scale for a linear");
    assert_refused(
        export_wrong("aimet", (bq_qtensor){.code = code, .scale = one, W(4, -1, true), .pre = pre}),
        "aimet has no place for these");
    assert_refused(
        export_wrong("aimet",
                     (bq_qtensor){.code = code, .scale = bq_mat_host(NULL, 48, 3, BQ_F32), W(4, 40, true)}),
        "groups of 40 do not divide its 112 columns");
    assert_refused(export_wrong("aimet", (bq_qtensor){.code = code, .scale = one, W(BQ_E4M3, -1, true)}),
                   "has codes of e4m3, aimet is written with integers");
    static const toy_rule none[] = {{NULL, 0, 0}}, embedding[] = {{"embed_tokens", 8, 0}, {NULL, 0, 0}};
    assert_refused(export_model(temp_path("wrong"), none, V1_0_0, "", 1, 1), "nothing is quantized");
    assert_refused(export_model(temp_path("wrong"), embedding, V1_0_0, "", 1, 1),
                   "not the weight of a linear");
    assert_false(file_there(temp_path("wrong")));
}

/* A full disk: one line, and nothing that loads or that is half a file. */
static int write_one(const char *out) {
    snprintf(src_dir, sizeof src_dir, "%.*s/src", (int)(strrchr(out, '/') - out), out);
    return export_model(out, w4, V0_6_1, "", TOY_SHARD, 1);
}

static void full_disk(void **state) {
    (void)state;
    char err[4096], out[512];
    snprintf(out, sizeof out, "%s", temp_path("full"));
    make_source("model_llama_llama3", "F32");
    assert_int_equal(child_run("write", out, "BQ_FAULT=file_write:1", err, sizeof err), BQ_DIED);
    assert_one_line(err, "model_torch.encodings' failed: No space left on device");
    assert_true(file_there(in(out, "model.safetensors")));
    assert_false(file_there(in(out, "config.json")) || file_there(in(out, "model_torch.encodings")) ||
                 temporary_there(in(out, "model_torch.encodings")));
    assert_int_equal(child_run("write", out, NULL, err, sizeof err), BQ_OK);
    assert_true(file_there(in(out, "config.json")) && file_there(in(out, "model_torch.encodings")));
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "write") == 0) return write_one(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),       cmocka_unit_test(original), cmocka_unit_test(codes_come_back),
        cmocka_unit_test(names_of_onnx), cmocka_unit_test(refusals), cmocka_unit_test(full_disk),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
