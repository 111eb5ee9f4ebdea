/* SPDX-License-Identifier: Apache-2.0 */
/* A GGUF file as a model: names, types, any piece of values, the fingerprint, what is refused; and written
 * as a directory. */
#include "gguf_file.h"

#include "base/num.h"
#include "io/in/weights.h"
#include "io/json.h"
#include "io/out/import.h"

#include <math.h>

/* A model of hidden size 4 with one head: rows 0, 1, 2, 3 of q and k are stored as 0, 2, 1, 3. */
#define KEYS                                                                                                 \
    ALIGN(4)                                                                                                 \
    "'general.architecture' w8 'llama' 'llama.block_count' w4 w1 'llama.context_length' w4 w8 "              \
    "'llama.embedding_length' w4 w4 'llama.feed_forward_length' w4 w32 'llama.attention.head_count' w4 w1 "  \
    "'llama.attention.layer_norm_rms_epsilon' w6 f1e-5 "
#define EMBED TENSOR2("token_embd.weight", 4, 3, 1, 0)
#define Q     TENSOR2("blk.0.attn_q.weight", 4, 4, 0, 24)
#define K     TENSOR2("blk.0.attn_k.weight", 4, 4, 30, 88)
#define DOWN  TENSOR2("blk.0.ffn_down.weight", 32, 2, 8, 120)
#define NORM  TENSOR1("blk.0.attn_norm.weight", 4, 1, 188)
#define GATES "'blk.0.ffn_gate_exps.weight' w3 q4 q2 q3 w0 q196 "
#define LIST  EMBED Q K DOWN NORM GATES "'blk.0.attn_rot_embd.weight' w1 q1 w0 q292 "
#define DATA                                                                                                 \
    "|4 h0x3c00 h0x4000 h0x4200 h0x4400 h0x4500 h0x4600 h0x4700 h0x4800 h1 h0x8000 h0x7bff h0xbc00 "         \
    "f0.1 f0.2 f0.3 f0.4 f20 f21 f22 f23 f10 f11 f12 f13 f30 f31 f32 f33 "                                   \
    "h0x3f80 h0x3f80 h0x3f80 h0x3f80 h0x4040 h0x4040 h0x4040 h0x4040 h0x4000 h0x4000 h0x4000 h0x4000 "       \
    "h0x4080 h0x4080 h0x4080 h0x4080 h0x3800 !abcdefghijklmnopqrstuvwxyz012345 h0x2c01 "                     \
    "!ABCDEFGHIJKLMNOPQRSTUVWXYZ678901 h0x3c00 h0x3800 h0x3c00 h0x3c00 "                                     \
    "f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f7 "
#define MODEL HEAD(7, 8) KEYS LIST DATA

enum { TENSORS = 8, MOST = 64 };
static const struct {
    const char *name, *dtype;
    int64_t rows, cols; /* rows 0: one dimension */
} wanted[TENSORS] = {
    {"model.embed_tokens.weight", "F16", 3, 4},
    {"model.layers.0.self_attn.q_proj.weight", "F32", 4, 4},
    {"model.layers.0.self_attn.k_proj.weight", "BF16", 4, 4},
    {"model.layers.0.mlp.down_proj.weight", "F32", 2, 32},
    {"model.layers.0.input_layernorm.weight", "F32", 0, 4},
    {"model.layers.0.block_sparse_moe.experts.0.w1.weight", "F32", 2, 4},
    {"model.layers.0.block_sparse_moe.experts.1.w1.weight", "F32", 2, 4},
    {"model.layers.0.block_sparse_moe.experts.2.w1.weight", "F32", 2, 4},
};

static bq_weights *opened(const char *line) {
    bq_weights *w;
    assert_int_equal(bq_weights_open(&w, gguf_save("m.gguf", line)), BQ_OK);
    return w;
}

static int refused(const char *line) {
    bq_weights *w;
    int rc = bq_weights_open(&w, gguf_save("m.gguf", line));
    assert_true(rc == BQ_OK || !w);
    bq_weights_close(w);
    return rc;
}

/* All values as f32. */
static int64_t values(const bq_weights *w, const char *name, float to[MOST]) {
    const bq_tensor *t = bq_weights_find(w, name);
    assert_non_null(t);
    int64_t rows = t->dims == 2 ? t->shape[0] : 1, cols = t->shape[t->dims - 1];
    bq_weights_read(w, t, 0, rows, bq_mat_host(to, rows, cols, BQ_F32));
    return rows * cols;
}

static void what_is_there(void **state) {
    (void)state;
    text_save(temp_path("config.json"), "{\"hidden_size\": 7}"); /* the file's own metadata count */
    bq_weights *w = opened(MODEL);
    const char *path;
    float x[MOST];
    size_t bytes;
    assert_int_equal(bq_weights_count(w), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        const bq_tensor *t = bq_weights_at(w, i);
        assert_string_equal(t->name, wanted[i].name);
        assert_string_equal(t->dtype, wanted[i].dtype);
        assert_true(t->dims == (wanted[i].rows ? 2 : 1) && t->shape[t->dims - 1] == wanted[i].cols);
        assert_true(!wanted[i].rows || t->shape[0] == wanted[i].rows);
        bq_weights_prefetch(w, t);
    }
    assert_int_equal(json_integer_value(json_object_get(bq_weights_config(w, &path), "hidden_size")), 4);
    assert_non_null(strstr(path, "m.gguf"));
    assert_true(bq_weights_files(w) == 1 && strcmp(bq_weights_file(w, 0, &bytes), "m.gguf") == 0);
    assert_false(bq_weights_synthetic(w));
    values(w, wanted[0].name, x);
    assert_true(x[0] == 1 && x[7] == 8 && x[8] == 0x1p-24f && x[9] == 0 && x[10] == 65504 && x[11] == -1);
    values(w, wanted[1].name, x);
    assert_true(x[0] == 0.1f && x[4] == 10 && x[8] == 20 && x[12] == 30 && x[15] == 33);
    values(w, wanted[2].name, x);
    assert_true(x[0] == 1 && x[4] == 2 && x[8] == 3 && x[15] == 4);
    values(w, wanted[3].name, x);
    assert_true(x[0] == 0.5f * 'a' && x[31] == 0.5f * '5' && x[32] == bq_from_f16(0x2c01) * 'A');
    values(w, wanted[4].name, x);
    assert_true(x[0] == 1 && x[1] == 0.5f);
    values(w, wanted[6].name, x);
    assert_true(x[0] == 8 && x[7] == 15);
    bq_weights_close(w);
    assert_int_equal(remove(temp_path("config.json")), 0);
}

/* Pieces of any size, from any place, to addresses that are no multiple of 4. */
static void any_piece_is_the_same(void **state) {
    (void)state;
    bq_weights *w = opened(MODEL);
    for (int i = 0; i < TENSORS; i++) {
        const bq_tensor *t = bq_weights_find(w, wanted[i].name);
        uint8_t whole[4 * MOST], piece[4 * MOST + 1];
        size_t unit = strcmp(t->dtype, "F32") ? 2 : 4;
        bq_weights_read_raw(w, t, 0, whole, t->bytes);
        for (size_t at = 0; at < t->bytes; at += unit) {
            for (size_t n = unit; n <= t->bytes - at; n += unit) {
                bq_weights_read_raw(w, t, at, piece + n / unit % 2, n);
                assert_memory_equal(piece + n / unit % 2, whole + at, n);
            }
        }
    }
    bq_weights_close(w);
}

static uint64_t fingerprint(const char *line) {
    bq_weights *w = opened(line);
    uint64_t hash;
    assert_int_equal(bq_weights_fingerprint(w, NULL, &hash), BQ_OK);
    bq_weights_close(w);
    return hash;
}

static int checked(const char *line) {
    bq_weights *w = opened(line);
    uint64_t hash;
    int rc = bq_weights_fingerprint(w, NULL, &hash);
    bq_weights_close(w);
    return rc;
}

#define ONE(data) HEAD(2, 8) KEYS EMBED Q "|4 +24 " data

static void fingerprints(void **state) {
    (void)state;
    uint64_t known = fingerprint(MODEL);
    assert_true(fingerprint(MODEL) == known);
    assert_true(fingerprint(MODEL "b0") != known); /* behind the last tensor */
    assert_true(fingerprint(ONE("+64")) != fingerprint(ONE("+60 f1")));
    assert_refused(checked(ONE("+24 finf +36")),
                   "tensor 'model.layers.0.self_attn.q_proj.weight' has inf at row 2, column 2");
    assert_refused(checked(ONE("+32 fnan +28")), "q_proj.weight' has a NaN at row 1, column 0");
}

static void several_parts(void **state) {
    (void)state;
    bq_weights *w;
    float x[MOST];
    gguf_save("p-00002-of-00002.gguf", HEAD(1, 3) ALIGN(4) "'split.no' w2 h1 'split.count' w2 h2 " TENSOR2(
                                           "blk.0.attn_v.weight", 4, 1, 0, 0) "|4 f1 f2 f3 f4");
    const char *path =
        gguf_save("p-00001-of-00002.gguf", HEAD(1, 9) KEYS "'split.count' w2 h2 " EMBED "|4 +24");
    assert_int_equal(bq_weights_open(&w, path), BQ_OK);
    assert_true(bq_weights_files(w) == 2 && bq_weights_count(w) == 2);
    assert_int_equal(values(w, "model.layers.0.self_attn.v_proj.weight", x), 4);
    assert_true(x[3] == 4);
    bq_weights_close(w);
}

static void hostile(void **state) {
    (void)state;
    static const struct {
        const char *line, *needle;
    } cases[] = {
        {"!GGUX +100", "m.gguf: "},
        {HEAD(0, 0), "general.architecture: is missing"},
        {HEAD(1, 8) KEYS "'blk.0.attn_sinks.weight' w1 q1 w0 q0 |4 +4",
         "token_embd.weight: there is no such"},
        {HEAD(2, 8) KEYS EMBED "'blk.0.attn_sinks.weight' w1 q1 w0 q24 |4 +28",
         "m.gguf: tensor 'blk.0.attn_sinks.weight' is not known for architecture llama"},
        {HEAD(2, 8) KEYS EMBED TENSOR2("blk.0.attn_q.weight", 4, 3, 0, 24) "|4 +72",
         "m.gguf: tensor 'blk.0.attn_q.weight' has 3 rows, which are no heads of 4"},
        {HEAD(2, 8) KEYS EMBED TENSOR1("blk.0.attn_k.bias", 6, 0, 24) "|4 +48",
         "has 6 rows, which are no heads"},
        {HEAD(2, 8) KEYS EMBED "'blk.0.attn_v.weight' w3 q4 q1 q1 w0 q24 |4 +40",
         "tensor 'blk.0.attn_v.weight' has 3 dimensions"},
        {HEAD(2, 8) KEYS EMBED TENSOR2("blk.0.ffn_up_exps.weight", 4, 1, 0, 24) "|4 +40",
         "tensor 'blk.0.ffn_up_exps.weight' has 2 dimensions"},
        {HEAD(2, 10) KEYS "'llama.attention.key_length' w4 w5 'llama.rope.dimension_count' w4 w4 " EMBED Q
                          "|4 +88",
         "tensor 'blk.0.attn_q.weight' has 4 rows, which are no heads of 5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(refused(cases[i].line), cases[i].needle);
}

/* ---- as a directory ---- */

static bool there(const json_t *files, const char *name) { return json_object_get(files, name); }

#define TOKENS                                                                                               \
    "'tokenizer.ggml.model' w8 'gpt2' 'tokenizer.ggml.pre' w8 'gpt-2' 'tokenizer.ggml.tokens' w9 w8 q3 'a' " \
    "'b' 'ab' 'tokenizer.ggml.token_type' w9 w5 q3 w1 w1 w1 'tokenizer.ggml.bos_token_id' w4 w2 "
#define MERGES "'tokenizer.ggml.merges' w9 w8 q1 "

static int beside_of(const char *line, bool tokenizer, json_t **files) {
    bq_weights *w = opened(line);
    int rc = bq_weights_beside(w, tokenizer, files);
    bq_weights_close(w);
    return rc;
}

static void files_beside(void **state) {
    (void)state;
    json_t *files;
    const char *const full = HEAD(1, 14) KEYS TOKENS MERGES "'a b' " EMBED "|4 +24", *const bad = HEAD(1, 14)
                                                                                         KEYS TOKENS MERGES
                                                                                     "'b b' " EMBED "|4 +24";
    assert_int_equal(beside_of(full, true, &files), BQ_OK);
    assert_int_equal(json_object_size(files), 3);
    assert_true(there(files, "tokenizer.json") && there(files, "tokenizer_config.json"));
    const json_t *generation = json_object_get(files, "generation_config.json");
    assert_int_equal(json_integer_value(json_object_get(generation, "bos_token_id")), 2);
    json_decref(files);
    assert_refused(beside_of(bad, true, &files), "merges: item 0, 'b b', is no pair");
    assert_null(files);
    assert_int_equal(beside_of(bad, false, &files), BQ_OK);
    assert_true(json_object_size(files) == 1 && there(files, "generation_config.json"));
    json_decref(files);
    assert_int_equal(beside_of(MODEL, true, &files), BQ_OK); /* neither has it */
    assert_true(files && json_object_size(files) == 0);
    json_decref(files);
}

static int import_to(const char *out, const char *line, const char *type, size_t shard) {
    bq_weights *w = opened(line);
    bq_export_job *job = NULL;
    const bq_format *format = bq_import_format(type);
    int rc = bq_import_check(w, format);
    if (!rc)
        rc = bq_import_open(&job, w, out, format, json_pack("{s:{s:i}}", "tokenizer.json", "a", 1), shard);
    if (!rc) rc = bq_export_claim(job);
    if (!rc) bq_export_write(job, 0, 1), rc = bq_export_finish(job);
    bq_export_close(job);
    bq_weights_close(w);
    return rc;
}

static void imported(void **state) {
    (void)state;
    static const char *const types[][3] = {{NULL, NULL, "float32"},
                                           {"f32", "F32", "float32"},
                                           {"bf16", "BF16", "bfloat16"},
                                           {"f16", "F16", "float16"}};
    char out[512];
    for (int k = 0; k < 4; k++) {
        const char *path;
        snprintf(out, sizeof out, "%s", temp_path("imported"));
        assert_int_equal(import_to(out, MODEL, types[k][0], k % 2 ? 200 : 1 << 20), BQ_OK);
        bq_weights *w, *from = opened(MODEL);
        assert_int_equal(bq_weights_open(&w, out), BQ_OK);
        assert_true((bq_weights_files(w) > 1) == (k % 2 == 1));
        assert_string_equal(json_string_value(json_object_get(bq_weights_config(w, &path), "dtype")),
                            types[k][2]);
        for (int i = 0; i < TENSORS; i++) {
            float x[MOST], y[MOST];
            int64_t n = values(from, wanted[i].name, x);
            assert_int_equal(values(w, wanted[i].name, y), n);
            assert_string_equal(bq_weights_find(w, wanted[i].name)->dtype,
                                types[k][1] ? types[k][1] : wanted[i].dtype);
            for (int64_t e = 0; e < n; e++) {
                float want = k == 2   ? bq_from_bf16(bq_to_bf16(x[e]))
                             : k == 3 ? bq_from_f16(bq_to_f16(x[e]))
                                      : x[e];
                assert_true(y[e] == want);
            }
        }
        bq_weights_close(from);
        bq_weights_close(w);
        snprintf(out, sizeof out, "%s", temp_path("imported/tokenizer.json"));
        assert_true(file_there(out));
    }
}

static void not_imported(void **state) {
    (void)state;
    char out[512];
    snprintf(out, sizeof out, "%s", temp_path("refused"));
    assert_refused(
        import_to(out, ONE("+60 f65520"), "f16", 1 << 20),
        "m.gguf: tensor 'model.layers.0.self_attn.q_proj.weight' has 65520 at row 3, column 3: give "
        "another --type than f16");
    assert_refused(import_to(out, ONE("+60 f3.4e38"), "bf16", 1 << 20),
                   "has 3.4e+38 at row 3, column 3: give");
    assert_refused(import_to(out, ONE("+60 fnan"), NULL, 1 << 20), "has nan at row 3, column 3");
    assert_refused(import_to(out, ONE("+60 finf"), "f32", 1 << 20), "has inf at row 3, column 3");
    assert_false(file_there(out));
    assert_int_equal(import_to(out, ONE("+60 f65519.9"), "f16", 1 << 20), BQ_OK);
    assert_int_equal(import_to(out, ONE("+60 f3.38e38"), "bf16", 1 << 20), BQ_OK);
    assert_refused(import_to(temp_dir, ONE("+60 f1"), NULL, 1 << 20), "is the source model itself");
    assert_null(bq_import_format("q8"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_there), cmocka_unit_test(any_piece_is_the_same),
        cmocka_unit_test(fingerprints),  cmocka_unit_test(several_parts),
        cmocka_unit_test(hostile),       cmocka_unit_test(files_beside),
        cmocka_unit_test(imported),      cmocka_unit_test(not_imported),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
