/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints with stacked experts: each expert's tensors, as floats and from MXFP4, any piece of them, what
 * is refused. */
#include "refuse.h"

#include "base/num.h"
#include "io/files.h"
#include "io/in/weights.h"

#include <math.h>

#define CONFIG "{\"model_type\":\"gpt_oss\"}"
#define E(name, dtype, shape, range)                                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"
#define X(name, dtype, shape, range) E("model.layers.0.mlp.experts." name, dtype, shape, range)

static bq_weights *opened(const char *dir) {
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, dir), BQ_OK);
    return w;
}

static int tried(const char *dir) {
    bq_weights *w;
    int rc = bq_weights_open(&w, dir);
    assert_true(rc == BQ_OK || !w);
    bq_weights_close(w);
    return rc;
}

/* All values of a tensor of the first block's experts; it has this shape.  rows 0: one dimension. */
static void values(const bq_weights *w, const char *name, int64_t rows, int64_t cols, float *to) {
    char full[120];
    snprintf(full, sizeof full, "model.layers.0.mlp.experts.%s", name);
    const bq_tensor *t = bq_weights_find(w, full);
    if (!t) fail_msg("%s is not there", full);
    assert_true(t->dims == (rows ? 2 : 1) && t->shape[t->dims - 1] == cols && (!rows || t->shape[0] == rows));
    bq_weights_read(w, t, 0, rows ? rows : 1, bq_mat_host(to, rows ? rows : 1, cols, BQ_F32));
    bq_weights_prefetch(w, t);
}

/* Pieces of any size, from any place, at addresses that are no multiple of 4. */
static void any_piece(const bq_weights *w) {
    for (int i = 0; i < bq_weights_count(w); i++) {
        const bq_tensor *t = bq_weights_at(w, i);
        uint8_t whole[512], piece[513];
        size_t unit = (size_t)bq_dtype_bits(t->dtype) / 8;
        assert_true(t->bytes <= sizeof whole);
        bq_weights_read_raw(w, t, 0, whole, t->bytes);
        for (size_t at = 0; at <= t->bytes; at += unit)
            for (size_t n = 0; n <= t->bytes - at; n += unit) {
                bq_weights_read_raw(w, t, at, piece + n / unit % 2, n);
                assert_memory_equal(piece + n / unit % 2, whole + at, n);
            }
    }
}

/* ---- floats ---- */

/* 2 experts, H = 3, I = 2.  All values differ: number i of a tensor is base + i. */
#define FLOATS                                                                                               \
    "{" E("model.norm.weight", "F32", "[2]", "[0,8]") "," X(                                                 \
        "gate_up_proj", "BF16", "[2,3,4]",                                                                   \
        "[8,56]") "," X("gate_up_proj_bias", "F16", "[2,4]",                                                 \
                        "[56,72]") "," X("down_proj", "F32", "[2,2,3]",                                      \
                                         "[72,120]") "," X("down_proj_bias", "F32", "[2,3]",                 \
                                                           "[120,144]") "," E("x.mlp.experts.other", "U8",   \
                                                                              "[1]", "[144,145]") "}"

static size_t floats(uint8_t *to) {
    uint8_t *at = to;
    for (int i = 0; i < 2; i++, at += 4) memcpy(at, &(float){(float)i}, 4);
    for (int i = 0; i < 24; i++, at += 2) memcpy(at, &(uint16_t){bq_to_bf16((float)i)}, 2);
    for (int i = 0; i < 8; i++, at += 2) memcpy(at, &(uint16_t){bq_to_f16((float)(30 + i))}, 2);
    for (int i = 0; i < 12; i++, at += 4) memcpy(at, &(float){(float)(40 + i)}, 4);
    for (int i = 0; i < 6; i++, at += 4) memcpy(at, &(float){(float)(60 + i)}, 4);
    *at++ = 9;
    return (size_t)(at - to);
}

static void experts_apart(void **state) {
    (void)state;
    uint8_t data[200];
    size_t bytes = floats(data);
    bq_weights *w = opened(model_folder(CONFIG, FLOATS, data, bytes));
    assert_int_equal(bq_weights_count(w), 2 + 2 * 6);
    char name[40];
    for (int e = 0; e < 2; e++) {
        float gate[6], up[6], down[6], gate_bias[2], up_bias[2], down_bias[3];
        const struct {
            const char *name;
            int rows, cols;
            float *to;
        } want[] = {{"gate_proj.weight", 2, 3, gate}, {"up_proj.weight", 2, 3, up},
                    {"down_proj.weight", 3, 2, down}, {"gate_proj.bias", 0, 2, gate_bias},
                    {"up_proj.bias", 0, 2, up_bias},  {"down_proj.bias", 0, 3, down_bias}};
        for (int i = 0; i < 6; i++) {
            snprintf(name, sizeof name, "%d.%s", e, want[i].name);
            values(w, name, want[i].rows, want[i].cols, want[i].to);
        }
        for (int r = 0; r < 2; r++) {
            for (int c = 0; c < 3; c++) {
                assert_true(gate[3 * r + c] == (float)(12 * e + 4 * c + 2 * r));
                assert_true(up[3 * r + c] == (float)(12 * e + 4 * c + 2 * r + 1));
                assert_true(down[2 * c + r] == (float)(40 + 6 * e + 3 * r + c));
            }
            assert_true(gate_bias[r] == (float)(30 + 4 * e + 2 * r) && up_bias[r] == gate_bias[r] + 1);
        }
        for (int c = 0; c < 3; c++) assert_true(down_bias[c] == (float)(60 + 3 * e + c));
    }
    assert_null(bq_weights_find(w, "model.layers.0.mlp.experts.gate_up_proj"));
    assert_string_equal(bq_weights_find(w, "model.layers.0.mlp.experts.1.up_proj.weight")->dtype, "BF16");
    assert_string_equal(bq_weights_find(w, "model.layers.0.mlp.experts.1.up_proj.bias")->dtype, "F16");
    assert_string_equal(bq_weights_find(w, "x.mlp.experts.other")->dtype, "U8");
    any_piece(w);
    bq_weights_close(w);
}

/* The family decides: other models' tensors of these names are something else. */
static void whose_experts(void **state) {
    (void)state;
    static const struct {
        const char *config;
        int tensors;
    } want[] = {{CONFIG, 14},
                {"{\"architectures\":[\"GptOssForCausalLM\"]}", 14},
                {"{\"architectures\":[\"GptOssForCausalLM\"],\"model_type\":\"gpt_oss\"}", 14},
                {"{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"gpt_oss\"}", 6},
                {"{\"model_type\":\"llama\"}", 6},
                {"{\"model_type\":7}", 6},
                {"{}", 6}};
    uint8_t data[200];
    size_t bytes = floats(data);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        bq_weights *w = opened(model_folder(want[i].config, FLOATS, data, bytes));
        assert_int_equal(bq_weights_count(w), want[i].tensors);
        bq_weights_close(w);
    }
}

/* Experts that are apart already stay so; both forms of one tensor are refused. */
static void both_forms(void **state) {
    (void)state;
    const char *dir =
        model_folder(CONFIG, "{" X("0.down_proj.weight", "F32", "[3,2]", "[0,24]") "}", (uint8_t[24]){0}, 24);
    bq_weights *w = opened(dir);
    float x[6];
    values(w, "0.down_proj.weight", 3, 2, x);
    bq_weights_close(w);
    assert_refused(tried(model_folder(CONFIG,
                                      "{" X("0.down_proj.weight", "F32", "[3,2]",
                                            "[0,24]") "," X("down_proj", "F32", "[1,2,3]", "[24,48]") "}",
                                      (uint8_t[48]){0}, 48)),
                   "tensor 'model.layers.0.mlp.experts.0.down_proj.weight' is both in");
}

/* ---- MXFP4 ---- */

/* 2 experts, H = 64, I = 2: (2, 4, 2, 16) and (2, 4, 2).  down: (2, 1, 1, 16). */
#define BLOCKS                                                                                               \
    "{" X("gate_up_proj_blocks", "U8", "[2,4,2,16]", "[0,256]") "," X(                                       \
        "gate_up_proj_scales", "U8", "[2,4,2]",                                                              \
        "[256,272]") "," X("down_proj_blocks", "U8", "[2,1,1,16]",                                           \
                           "[272,304]") "," X("down_proj_scales", "U8", "[2,1,1]", "[304,306]") "}"
enum { BYTES = 306, SCALES = 256 };

static const double e2m1[16] = {0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6};

/* The code of value v of row r of expert e: each code in each place. */
static int code(int e, int r, int v) { return (v + 3 * r + 5 * e) % 16; }

/* Scales 0 and 127, and the ones around the ends of the range. */
static int scale(int e, int r, int g) {
    static const int all[16] = {0, 127, 1, 126, 2, 128, 3, 100, 252, 150, 0, 127, 251, 90, 10, 254};
    return all[8 * e + 2 * r + g];
}

static void blocks(uint8_t data[BYTES]) {
    for (int e = 0; e < 2; e++)
        for (int r = 0; r < 4; r++)
            for (int v = 0; v < 64; v += 2)
                data[(e * 4 + r) * 32 + v / 2] = (uint8_t)(code(e, r, v) | code(e, r, v + 1) << 4);
    for (int i = 0; i < 16; i++) data[SCALES + i] = (uint8_t)scale(i / 8, i / 2 % 4, i % 2);
    for (int i = 0; i < 32; i++) data[272 + i] = (uint8_t)(17 * (i % 16)); /* both values of a byte alike */
    data[304] = 127, data[305] = 129;
}

static void mxfp4(void **state) {
    (void)state;
    uint8_t data[BYTES];
    blocks(data);
    bq_weights *w = opened(model_folder(CONFIG, BLOCKS, data, BYTES));
    assert_int_equal(bq_weights_count(w), 6);
    for (int e = 0; e < 2; e++)
        for (int up = 0; up < 2; up++) {
            char name[40];
            float x[128];
            snprintf(name, sizeof name, "%d.%s_proj.weight", e, up ? "up" : "gate");
            values(w, name, 2, 64, x);
            for (int i = 0; i < 128; i++) {
                int r = 2 * (i / 64) + up, v = i % 64, s = scale(e, r, v / 32);
                float want = (float)ldexp(e2m1[code(e, r, v)], s - 127); /* 2^128 and more: inf */
                if (bq_bits(x[i]) != bq_bits(want))
                    fail_msg("%s: value %d with scale %d is %g, not %g", name, i, s, (double)x[i],
                             (double)want);
            }
        }
    float down[32];
    values(w, "1.down_proj.weight", 1, 32, down);
    for (int i = 0; i < 32; i++) assert_true(down[i] == 4 * (float)e2m1[i / 2]);
    any_piece(w);
    bq_weights_close(w);
}

/* A value that is infinite is refused where all values are checked; each byte of the files is hashed. */
static void fingerprints(void **state) {
    (void)state;
    uint8_t data[BYTES];
    uint64_t hash[2];
    blocks(data);
    bq_weights *w = opened(model_folder(CONFIG, BLOCKS, data, BYTES));
    assert_refused(bq_weights_fingerprint(w, NULL, hash),
                   "tensor 'model.layers.0.mlp.experts.1.up_proj.weight' has -inf at row 1, column 32");
    bq_weights_close(w);
    for (int i = 0; i < 2; i++) {
        data[SCALES + 15] = (uint8_t)(i + 3);
        w = opened(model_folder(CONFIG, BLOCKS, data, BYTES));
        assert_int_equal(bq_weights_fingerprint(w, NULL, &hash[i]), BQ_OK);
        bq_weights_close(w);
    }
    assert_true(hash[0] != hash[1]);
}

/* Read what is in a folder, in a process of its own. */
static int read_all(const char *dir) {
    bq_weights *w = opened(dir);
    for (int i = 0; i < bq_weights_count(w); i++) {
        const bq_tensor *t = bq_weights_at(w, i);
        uint8_t x[512];
        bq_weights_read_raw(w, t, 0, x, t->bytes);
    }
    bq_weights_close(w);
    return 0;
}

static void a_scale_that_is_nan(void **state) {
    (void)state;
    uint8_t data[BYTES];
    char err[600];
    blocks(data);
    const char *dir = model_folder(CONFIG, BLOCKS, data, BYTES);
    assert_int_equal(child_run("read", dir, NULL, err, sizeof err), 0);
    data[SCALES + 13] = 255;
    assert_int_equal(child_run("read", model_folder(CONFIG, BLOCKS, data, BYTES), NULL, err, sizeof err),
                     BQ_DATA);
    assert_one_line(err, "tensor 'model.layers.0.mlp.experts.gate_up_proj_scales' has a NaN at expert 1, "
                         "row 2, block 1");
}

/* The key of released checkpoints goes, others stay for config.c to refuse. */
static void quantization(void **state) {
    (void)state;
    static const char *const config[] = {
        "{\"model_type\":\"gpt_oss\",\"quantization_config\":{\"quant_method\":\"mxfp4\"}}",
        "{\"model_type\":\"gpt_oss\",\"quantization_config\":{\"quant_method\":\"fp8\"}}",
        "{\"model_type\":\"gpt_oss\",\"quantization_config\":7}"};
    uint8_t data[BYTES];
    const char *path;
    blocks(data);
    for (int i = 0; i < 3; i++) {
        bq_weights *w = opened(model_folder(config[i], BLOCKS, data, BYTES));
        assert_true(!json_object_get(bq_weights_config(w, &path), "quantization_config") == !i);
        bq_weights_close(w);
    }
}

/* Blocks in one shard, their scales in another. */
static void shards(void **state) {
    (void)state;
    uint8_t data[BYTES];
    const char *dir = temp_path("shards");
    assert_int_equal(bq_dir_make(dir), 0);
    blocks(data);
    text_save(temp_path("shards/config.json"), CONFIG);
    text_save(temp_path("shards/model.safetensors.index.json"),
              "{\"weight_map\":{\"model.layers.0.mlp.experts.down_proj_blocks\":\"a.safetensors\","
              "\"model.layers.0.mlp.experts.down_proj_scales\":\"b.safetensors\"}}");
    static const char *const header[] = {"{" X("down_proj_blocks", "U8", "[2,1,1,16]", "[0,32]") "}",
                                         "{" X("down_proj_scales", "U8", "[2,1,1]", "[0,2]") "}"};
    for (int i = 0; i < 2; i++) {
        uint8_t file[400];
        uint64_t n = strlen(header[i]);
        memcpy(file, &n, 8);
        memcpy(file + 8, header[i], n);
        memcpy(file + 8 + n, data + (i ? 304 : 272), i ? 2 : 32);
        file_save(temp_path(i ? "shards/b.safetensors" : "shards/a.safetensors"), file, 8 + n + (i ? 2 : 32));
    }
    bq_weights *w = opened(dir);
    float down[32];
    values(w, "1.down_proj.weight", 1, 32, down);
    for (int i = 0; i < 32; i++) assert_true(down[i] == 4 * (float)e2m1[i / 2]);
    bq_weights_close(w);
}

/* ---- refusals ---- */

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t bytes;
        const char *needle;
    } all[] = {
        {X("gate_up_proj", "F32", "[2,6]", "[0,48]"), 48, "another number of dimensions"},
        {X("gate_up_proj", "F32", "[]", "[0,4]"), 4, "another number of dimensions"},
        {X("gate_up_proj", "F32", "[1,2,3]", "[0,24]"), 24, "gate_up_proj': gate and up are not alike"},
        {X("gate_up_proj_bias", "F32", "[1,3]", "[0,12]"), 12, "gate_up_proj_bias': gate and up are not"},
        {X("gate_up_proj", "U8", "[1,2,2]", "[0,4]"), 4, "F32, F16 or BF16 is needed"},
        {X("down_proj", "F4", "[1,2,2]", "[0,2]"), 2, "F32, F16 or BF16 is needed"},
        {X("down_proj", "F64", "[1,1,1]", "[0,8]"), 8, "F32, F16 or BF16 is needed"},
        {X("down_proj", "F16", "[0,1,1]", "[0,0]"), 0, "its shape is out of range"},
        {X("down_proj", "F16", "[1,0,4611686018427387904]", "[0,0]"), 0, "its shape is out of range"},
        {X("down_proj_bias", "BF16", "[1,16777217]", "[0,33554434]"), 33554434, "its shape is out of range"},
        {X("down_proj", "F16", "[257,1,1]", "[0,514]"), 514, "it has too many experts"},
        {X("down_proj_blocks", "U8", "[1,1,1,16]", "[0,16]"), 16, "down_proj_blocks': its scales are not"},
        {X("down_proj_scales", "U8", "[1,1,1]", "[0,1]"), 1, "down_proj_scales': its blocks are not"},
        {X("down_proj_blocks", "U8", "[1,1,16]", "[0,16]"), 16, "another number of dimensions"},
        {X("down_proj_blocks", "U8", "[1,1,1,0]", "[0,0]"), 0, "its shape is out of range"},
        {X("down_proj_blocks", "U8", "[1,1,1,15]", "[0,15]") "," X("down_proj_scales", "U8", "[1,1,1]",
                                                                   "[15,16]"),
         16, "its blocks are not of 16 bytes"},
        {X("down_proj_blocks", "I8", "[1,1,1,16]", "[0,16]") "," X("down_proj_scales", "U8", "[1,1,1]",
                                                                   "[16,17]"),
         17, "blocks and scales must be U8"},
        {X("down_proj_blocks", "U8", "[1,1,1,16]", "[0,16]") "," X("down_proj_scales", "F8_E8M0", "[1,1,1]",
                                                                   "[16,17]"),
         17, "blocks and scales must be U8"},
        {X("down_proj_blocks", "U8", "[1,2,1,16]", "[0,32]") "," X("down_proj_scales", "U8", "[1,1,1]",
                                                                   "[32,33]"),
         33, "its scales have another shape"},
        {X("down_proj_blocks", "U8", "[1,1,1,16]", "[0,16]") "," X("down_proj_scales", "U8", "[1,1]",
                                                                   "[16,17]"),
         17, "its scales have another shape"},
        {X("gate_up_proj_blocks", "U8", "[1,3,1,16]", "[0,48]") "," X("gate_up_proj_scales", "U8", "[1,3,1]",
                                                                      "[48,51]"),
         51, "gate and up are not alike"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char header[600], *data = calloc(1, all[i].bytes + 1);
        assert_non_null(data);
        snprintf(header, sizeof header, "{%s}", all[i].header);
        assert_refused(tried(model_folder(CONFIG, header, data, all[i].bytes)), all[i].needle);
        free(data);
    }
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "read") == 0) return read_all(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_apart), cmocka_unit_test(whose_experts),
        cmocka_unit_test(both_forms),    cmocka_unit_test(mxfp4),
        cmocka_unit_test(fingerprints),  cmocka_unit_test(a_scale_that_is_nan),
        cmocka_unit_test(quantization),  cmocka_unit_test(shards),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
