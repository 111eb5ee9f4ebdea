/* SPDX-License-Identifier: Apache-2.0 */
/* The format gptq: every word that auto-round itself packed; whole directories, read back field by field;
 * what is refused. */
#include "halves.h"

#include "unpack.h"

#include <dirent.h>

enum { CASES = 8, ROWS = 64, COLS = 96, GROUP = 32, PARTS = COLS / GROUP };

/* The keys of the format. */
static const struct { int version; } first = {1}, second = {2};

/* ---- auto-round's words ---- */

static int bits_of(int i) { return i / 2 == 3 ? 8 : i / 2 + 2; }

static void *peer_load(const bq_weights *w, int i, const char *part, size_t bytes) {
    char key[100];
    const bq_tensor *t;
    snprintf(key, sizeof key, "gptq%d_%s_64x96_g32/%s", bits_of(i), i % 2 ? "asym" : "sym", part);
    void *data = load(w, key, &t);
    assert_int_equal(t->bytes, bytes);
    return data;
}

/* Case i's tensor: the head is case 4, 4 bits and symmetric. */
static const char *name_of(int i) {
    static char name[CASES][100];
    snprintf(name[i], sizeof name[i], i == 4 ? "lm_head.weight" : "model.layers.%d.mlp.up_proj.weight", i);
    return name[i];
}

/* A source of `count` tensors of zeros, named as above: only shapes count. */
static bq_weights *bare_source(const char *dir, int count, int64_t rows, int64_t cols) {
    bq_weights *w;
    char *zeros = calloc((size_t)rows, (size_t)cols);
    assert_non_null(zeros);
    assert_int_equal(bq_dir_make(dir), 0);
    text_in(dir, "config.json", "{}");
    bq_writer *to = bq_writer_plan();
    for (int i = 0; i < count; i++) bq_writer_add(to, name_of(i), "I8", 2, (int64_t[]){rows, cols});
    bq_writer_open(to, in(dir, "model.safetensors"));
    for (int i = 0; i < count; i++) bq_writer_put(to, zeros, (size_t)(rows * cols));
    bq_writer_close(to);
    free(zeros);
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    return w;
}

typedef struct {
    int8_t code[CASES][ROWS * COLS];
    float scale[CASES][ROWS * PARTS], zero[CASES][ROWS * PARTS];
} peer;

/* Codes and scales as the peer had them; and zero points, in version 2. */
static bool peer_get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    peer *p = ctx;
    int i = 0;
    while (i < CASES && strcmp(name, name_of(i)) != 0) i++;
    if (i == CASES) return false;
    bool shifted = toy_options == &second && i % 2;
    *q = (bq_qtensor){
        .scheme = {bits_of(i), GROUP, !shifted, BQ_F16, BQ_GRID_AIMET, 1, 0},
        .code = bq_mat_host(want_data ? p->code[i] : NULL, ROWS, COLS, BQ_I8),
        .scale = bq_mat_host(want_data ? p->scale[i] : NULL, ROWS, PARTS, BQ_F32),
        .zero = bq_mat_host(want_data && shifted ? p->zero[i] : NULL, shifted ? ROWS : 0, PARTS, BQ_F32)};
    return true;
}

static void peer_read(const bq_weights *golden, peer *p) {
    for (int i = 0; i < CASES; i++) {
        int bits = bits_of(i), half = 1 << (bits - 1), words = ROWS * bits / 32;
        uint8_t *q = peer_load(golden, i, "q", ROWS * COLS);
        uint16_t *scales = peer_load(golden, i, "scales", 2 * ROWS * PARTS);
        int32_t *zeros = peer_load(golden, i, "qzeros", (size_t)(4 * PARTS * words));
        for (int k = 0; k < ROWS * COLS; k++) p->code[i][k] = (int8_t)(q[k] - half);
        for (int k = 0; k < ROWS * PARTS; k++) {
            int g = k / ROWS, n = k % ROWS;
            p->scale[i][n * PARTS + g] = bq_from_f16(scales[k]);
            p->zero[i][n * PARTS + g] = (float)(unpack_field(zeros + g * words, 1, bits, n) + 1 - half);
        }
        free(q);
        free(scales);
        free(zeros);
    }
}

/* Case i's tensors are the peer's, byte by byte, but for zero points: those of version 2 are one more. */
static void peer_compare(const bq_weights *w, const bq_weights *golden, int i) {
    int bits = bits_of(i), words = ROWS * bits / 32;
    const struct {
        const char *part, *dtype;
        int rows, cols;
    } parts[] = {{"qweight", "I32", COLS * bits / 32, ROWS},
                 {"scales", "F16", PARTS, ROWS},
                 {"g_idx", "I32", COLS, 0},
                 {"qzeros", "I32", PARTS, words}};
    for (int k = 0; k < 4; k++) {
        size_t bytes = (size_t)(parts[k].rows * (parts[k].cols ? parts[k].cols : 1) * (k == 1 ? 2 : 4));
        char *got = part_of(w, name_of(i), parts[k].part, parts[k].dtype, parts[k].rows, parts[k].cols);
        char *want = peer_load(golden, i, parts[k].part, bytes);
        if (k < 3 || (toy_options == &first && i % 2 == 0)) assert_memory_equal(got, want, bytes);
        for (int z = 0; z < PARTS * ROWS && k == 3 && toy_options == &second; z++) {
            size_t row = (size_t)(z / ROWS * words) * 4;
            assert_int_equal(unpack_field(got + row, 1, bits, z % ROWS),
                             unpack_field(want + row, 1, bits, z % ROWS) + 1);
        }
        free(got);
        free(want);
    }
}

static void peer_words(void **state) {
    (void)state;
    static peer p;
    bq_weights *golden, *from = bare_source(temp_path("peer"), CASES, ROWS, COLS), *w;
    char out[512];
    snprintf(out, sizeof out, "%s", temp_path("peer_gptq"));
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_pack.safetensors"), BQ_OK);
    peer_read(golden, &p);
    for (int version = 1; version <= 2; version++) {
        toy_options = version == 1 ? &first : &second;
        assert_int_equal(export_as("gptq", from, out, (bq_qsource){.ctx = &p, .get = peer_get}, TOY_SHARD, 1),
                         BQ_OK);
        assert_int_equal(stored_open(&w, out), BQ_OK);
        for (int i = 0; i < CASES; i++) peer_compare(w, golden, i);
        json_t *config = config_of(out), *q = json_object_get(config, "quantization_config");
        assert_true(json_is_true(json_object_get(q, "lm_head")));
        if (version == 1) same_json(json_object_get(q, "bits"), "4"); /* the head's: the first of as many */
        json_decref(config);
        bq_weights_close(w);
    }
    toy_options = &first;
    bq_weights_close(from);
    bq_weights_close(golden);
}

/* ---- directories ---- */

static void check_linear(const bq_weights *w, const char *name, const toy *t, const bq_qtensor *q) {
    int64_t rows = q->code.rows, cols = q->code.cols, groups = q->scale.cols;
    int bits = bq_code_bits(q->scheme), half = 1 << (bits - 1);
    int32_t *code = part_of(w, name, "qweight", "I32", cols * bits / 32, rows);
    int32_t *zero = part_of(w, name, "qzeros", "I32", groups, rows * bits / 32);
    int32_t *group = part_of(w, name, "g_idx", "I32", cols, 0);
    uint16_t *scale = part_of(w, name, "scales", "F16", groups, rows);
    for (int64_t n = 0; n < rows; n++) {
        for (int64_t k = 0; k < cols; k++)
            assert_int_equal(unpack_field(code + n, rows, bits, k) - half, t->code[n * cols + k]);
        for (int64_t g = 0; g < groups; g++) {
            assert_int_equal(unpack_field(zero + g * (rows * bits / 32), 1, bits, n) - half,
                             (int)t->zero[n * groups + g] - (toy_options == &first));
            assert_true(bq_from_f16(scale[g * rows + n]) == t->scale[n * groups + g]);
        }
    }
    for (int64_t k = 0; k < cols; k++)
        assert_int_equal(group[k], q->scheme.group > 0 ? k / q->scheme.group : 0);
    free(code);
    free(zero);
    free(group);
    free(scale);
}

/* Everything in out is as the rules say; how many tensors are not quantized. */
static int check_gptq(const char *out, const toy_rule *rule) {
    bq_weights *w, *from;
    assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
    assert_int_equal(stored_open(&w, out), BQ_OK);
    toy t = {.src = from, .rule = rule};
    int plain = 0, linears = 0;
    for (int i = 0; i < bq_weights_count(from); i++) {
        const bq_tensor *b = bq_weights_at(from, i), *a = bq_weights_find(w, b->name);
        static char got[100000], want[100000];
        bq_qtensor q;
        assert_true(b->bytes <= sizeof want / 2);
        if (half_get(&t, b->name, true, &q)) {
            assert_null(a);
            check_linear(w, b->name, &t, &q);
            linears++;
            continue;
        }
        bq_mat to = bq_mat_host(want, b->dims == 2 ? b->shape[0] : 1, b->shape[b->dims - 1], BQ_F32);
        bool is = toy_dense(&t, b->name, 0, to);
        if (!is) bq_weights_read_raw(from, b, 0, want, b->bytes);
        assert_non_null(a);
        bq_weights_read_raw(w, a, 0, got, a->bytes);
        assert_string_equal(a->dtype, is ? "F32" : b->dtype);
        assert_memory_equal(got, want, a->bytes);
        plain++;
    }
    assert_int_equal(plain + 4 * linears, bq_weights_count(w));
    toy_free(&t);
    bq_weights_close(w);
    bq_weights_close(from);
    return plain;
}

/* config.json is the source's, and this quantization_config. */
static void check_config(const char *out, const char *bits, const char *group, bool sym, const char *more) {
    char want[3000];
    const char *format = toy_options == &first ? "gptq" : "gptq_v2";
    json_t *config = config_of(out), *from = config_of(src_dir);
    snprintf(
        want, sizeof want,
        "{\"bits\":%s,\"group_size\":%s,\"desc_act\":false,\"sym\":%s,\"lm_head\":false,"
        "\"quant_method\":\"gptq\",\"method\":\"gptq\",\"checkpoint_format\":\"%s\",\"format\":\"%s\","
        "\"pack_dtype\":\"int32\",\"true_sequential\":true,\"static_groups\":false,\"damp_percent\":0.01,"
        "\"meta\":{\"quantizer\":[\"blockq:0.1\"]}%s}",
        bits, group, sym ? "true" : "false", format, format, more);
    same_json(json_object_get(config, "quantization_config"), want);
    json_object_del(config, "quantization_config");
    assert_true(json_equal(config, from));
    json_decref(config);
    json_decref(from);
}

static const toy_rule w2g16[] = {{"lm_head", 0, 0}, {"_proj.weight", 2, 16}, {NULL, 0, 0}};
static const toy_rule w4g8[] = {{"lm_head", 0, 0}, {"_proj.weight", 4, 8}, {NULL, 0, 0}};

static void directories(void **state) {
    (void)state;
    static const toy_rule *const rules[] = {w2g16, w4, w4g8, w8g4};
    static const char *const bits[] = {"2", "4", "4", "8"}, *const group[] = {"16", "-1", "8", "4"};
    char one[512], many[512];
    snprintf(one, sizeof one, "%s", temp_path("one"));
    snprintf(many, sizeof many, "%s", temp_path("many"));
    make_source("model_llama_llama3", "BF16");
    for (int i = 0; i < 4; i++) {
        int gets, files = 0;
        assert_int_equal(export_half("gptq", one, rules[i], TOY_SHARD, 1, &gets), BQ_OK);
        assert_int_equal(gets, 28); /* codes; behind all that is wider, scales */
        assert_int_equal(check_gptq(one, rules[i]), 6);
        check_config(one, bits[i], group[i], true, "");
        DIR *dir = opendir(one);
        for (struct dirent *e; (e = readdir(dir));) files += e->d_name[0] != '.';
        closedir(dir);
        assert_int_equal(files, 9); /* seven copies, config.json, model.safetensors */
        for (int parts = 1; parts <= 4; parts += 3) {
            assert_int_equal(export_half("gptq", many, rules[i], 12000, parts, NULL), BQ_OK);
            assert_int_equal(check_gptq(many, rules[i]), 6);
            assert_same_file(in(one, "config.json"), in(many, "config.json"));
            assert_true(file_there(in(many, "model.safetensors.index.json")));
            assert_false(file_there(in(many, "model.safetensors")));
        }
    }
    assert_int_equal(export_half("gptq", many, w8g4, TOY_SHARD, 1, NULL), BQ_OK);
    assert_same_file(in(one, "model.safetensors"), in(many, "model.safetensors"));
    make_source("model_phi3_short", "F32"); /* its head stays as it is, and is no exception */
    assert_int_equal(export_half("gptq", one, w4g8, TOY_SHARD, 1, NULL), BQ_OK);
    assert_int_equal(check_gptq(one, w4g8), 7);
    check_config(one, "4", "8", true, "");
}

/* Version 2, with zero points and without; and both in one model. */
static void versions(void **state) {
    (void)state;
    static const toy_rule rules[][4] = {
        {{"lm_head", 0, 0}, {"_proj.weight", -4, 8}, {NULL, 0, 0}},
        {{"lm_head", 0, 0}, {"_proj.weight", -8, 0}, {NULL, 0, 0}},
        {{"lm_head", 0, 0}, {"_proj.weight", -2, 16}, {NULL, 0, 0}},
        {{"lm_head", 0, 0}, {"_proj.weight", 4, 8}, {NULL, 0, 0}},
        {{"lm_head", 0, 0}, {"1.mlp.up_proj", 4, 8}, {"_proj.weight", -4, 8}, {NULL, 0, 0}}};
    static const char *const bits[] = {"4", "8", "2", "4", "4"}, *const group[] = {"8", "-1", "16", "8", "8"};
    char out[512];
    snprintf(out, sizeof out, "%s", temp_path("v2"));
    make_source("model_llama_llama3", "BF16");
    toy_options = &second;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(export_half("gptq", out, rules[i], i ? TOY_SHARD : 12000, 1, NULL), BQ_OK);
        assert_int_equal(check_gptq(out, rules[i]), 6);
        check_config(out, bits[i], group[i], i == 3,
                     i == 4 ? ",\"dynamic\":{\"+:^model\\\\.layers\\\\.1\\\\.mlp\\\\.up_proj$\":"
                              "{\"bits\":4,\"group_size\":8,\"sym\":true}}"
                            : "");
    }
    toy_options = &first;
}

/* Most linears give the scheme; the others, and those that stay floats, are named. */
static void exceptions(void **state) {
    (void)state;
    static const toy_rule rules[] = {{"lm_head", 0, 0},
                                     {"model.norm", 1, 0},
                                     {"1.mlp.down_proj", 8, 16},
                                     {"k_proj", 0, 0},
                                     {"0.self_attn.o_proj", 1, 0},
                                     {"v_proj", 4, 0},
                                     {"_proj.weight", 4, 8},
                                     {NULL, 0, 0}};
    make_source("model_llama_llama3", "F32");
    assert_int_equal(export_half("gptq", temp_path("mixed"), rules, 20000, 2, NULL), BQ_OK);
    assert_int_equal(check_gptq(temp_path("mixed"), rules), 9);
    check_config(temp_path("mixed"), "4", "8", true,
                 ",\"dynamic\":{\"-:^model\\\\.layers\\\\.0\\\\.self_attn\\\\.k_proj$\":{},"
                 "\"-:^model\\\\.layers\\\\.0\\\\.self_attn\\\\.o_proj$\":{},"
                 "\"+:^model\\\\.layers\\\\.0\\\\.self_attn\\\\.v_proj$\":{\"bits\":4,\"group_size\":-1},"
                 "\"+:^model\\\\.layers\\\\.1\\\\.mlp\\\\.down_proj$\":{\"bits\":8,\"group_size\":16},"
                 "\"-:^model\\\\.layers\\\\.1\\\\.self_attn\\\\.k_proj$\":{},"
                 "\"+:^model\\\\.layers\\\\.1\\\\.self_attn\\\\.v_proj$\":{\"bits\":4,\"group_size\":-1}}");
}

enum { TALL = 70000, WIDE = 120 };

static bool tall_get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    static float scale[TALL];
    (void)name, (void)want_data;
    *q = (bq_qtensor){.scheme = {4, -1, true, BQ_F16, BQ_GRID_AIMET, 1, 0},
                      .code = bq_mat_host(ctx, TALL, WIDE, BQ_I8),
                      .scale = bq_mat_host(scale, TALL, 1, BQ_F32),
                      .zero = bq_mat_host(NULL, 0, 1, BQ_F32)};
    return true;
}

/* More rows than fit the buffer 16 times. */
static void tall(void **state) {
    (void)state;
    static int8_t code[TALL * WIDE];
    char out[512];
    bq_weights *w = bare_source(temp_path("tall"), 1, TALL, WIDE);
    snprintf(out, sizeof out, "%s", temp_path("tall_gptq"));
    for (int64_t i = 0; i < TALL * WIDE; i++) code[i] = (int8_t)((i / WIDE * 7 + i % WIDE) % 16 - 8);
    assert_int_equal(export_as("gptq", w, out, (bq_qsource){.ctx = code, .get = tall_get}, TOY_SHARD, 1),
                     BQ_OK);
    bq_weights_close(w);
    assert_int_equal(stored_open(&w, out), BQ_OK);
    int32_t *word = part_of(w, name_of(0), "qweight", "I32", WIDE / 8, TALL);
    for (int64_t i = 0; i < TALL * WIDE; i++)
        if (unpack_field(word + i / WIDE, TALL, 4, i % WIDE) - 8 != code[i]) fail_msg("code %ld", (long)i);
    free(word);
    bq_weights_close(w);
}

/* ---- refusals ---- */

static int wrong(bq_qtensor q) {
    q.scheme.scale = BQ_F16;
    return export_wrong("gptq", q);
}

static void refusals(void **state) {
    (void)state;
    make_source("model_llama_llama3", "F32"); /* down_proj is (48, 112) */
    bq_mat code = bq_mat_host(NULL, 48, 112, BQ_I8), one = bq_mat_host(NULL, 48, 1, BQ_F32),
           pre = bq_mat_host(NULL, 1, 112, BQ_F32);
    for (int bits = 5; bits <= 7; bits++) {
        char text[100];
        snprintf(text, sizeof text, "down_proj.weight' is of int%d, gptq has integers of 2, 3, 4 and 8 bits",
                 bits);
        assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(bits, -1, true)}), text);
    }
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(3, -1, true)}),
                   "is (48, 112): gptq packs 3 bits in multiples of 32");
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, .zero = one, W(4, -1, false)}),
                   "set the output's version=2, or bits.decoder.symmetric=true");
    assert_refused(export_wrong("gptq", (bq_qtensor){.code = code, .scale = one, W(4, -1, true)}),
                   "set bits.decoder.scale=f16");
    assert_refused(
        wrong((bq_qtensor){.code = code, .scale = one, W(8, -1, true), .inputs = bq_rounding_of_tokens(8)}),
        "rounded to int8, which gptq cannot say");
    assert_refused(wrong((bq_qtensor){
                       .code = code, .scale = one, W(8, -1, true), .inputs = bq_rounding_of_tokens(BQ_E4M3)}),
                   "rounded to e4m3, which gptq cannot say");
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(BQ_E4M3, -1, true)}),
                   "is of e4m3, gptq has integers");
    assert_refused(wrong((bq_qtensor){.code = code, .scale = one, W(4, -1, true), .pre = pre}),
                   "has no place for these");
    assert_refused(
        wrong((bq_qtensor){.code = code, .scale = bq_mat_host(NULL, 48, 3, BQ_F32), W(4, 40, true)}),
        "groups of 40 do not divide its 112 columns");
    static const toy_rule embedding[] = {{"embed_tokens", 8, 0}, {NULL, 0, 0}},
                          norm[] = {{"model.norm", 8, 0}, {NULL, 0, 0}},
                          none[] = {{"_proj.weight", 1, 0}, {NULL, 0, 0}},
                          head[] = {{"lm_head", 4, 0}, {NULL, 0, 0}};
    assert_refused(export_half("gptq", temp_path("wrong"), embedding, 1, 1, NULL),
                   "not the weight of a linear");
    assert_refused(export_half("gptq", temp_path("wrong"), norm, 1, 1, NULL), "not the weight of a linear");
    assert_refused(export_half("gptq", temp_path("wrong"), none, 1, 1, NULL), "nothing is quantized");
    assert_refused(export_half("gptq", temp_path("wrong"), head, 1, 1, NULL),
                   "is (97, 48): gptq packs 4 bits in "
                   "multiples of 8");
    assert_false(file_there(temp_path("wrong"))); /* all of it before anything is written */
}

int main(void) {
    toy_options = &first;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peer_words), cmocka_unit_test(directories), cmocka_unit_test(exceptions),
        cmocka_unit_test(versions),   cmocka_unit_test(tall),        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
