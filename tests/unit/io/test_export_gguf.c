/* SPDX-License-Identifier: Apache-2.0 */
/* The format gguf: a whole file and blocks that the Python package gguf wrote, byte for byte; micro models,
 * read back; what is refused.  tests/e2e/test_gguf_out.sh has the rest. */
#include "halves.h"

#include "io/in/gguf_tokenizer.h"
#include "io/out/gguf.h"

static void *bytes_of(const bq_weights *w, const char *key, size_t *bytes) {
    const bq_tensor *t;
    void *data = load(w, key, &t);
    *bytes = t->bytes;
    return data;
}

/* ---- the package's file ---- */

static char *toy_head(const void *ctx, const bq_tensor *at, int count, size_t *bytes) {
    static const char *const tokens[] = {"a", "b", "ab", "<s>"};
    bq_gguf_put p;
    (void)ctx;
    bq_gguf_put_open(&p);
    bq_gguf_put_word(&p, "general.architecture", "llama");
    bq_gguf_put_word(&p, "general.name", "toy");
    bq_gguf_put_int(&p, "llama.block_count", 1);
    bq_gguf_put_int(&p, "llama.context_length", 64);
    bq_gguf_put_int(&p, "llama.embedding_length", 32);
    bq_gguf_put_int(&p, "llama.feed_forward_length", 64);
    bq_gguf_put_int(&p, "llama.attention.head_count", 2);
    bq_gguf_put_int(&p, "llama.attention.head_count_kv", 1);
    bq_gguf_put_real(&p, "llama.attention.layer_norm_rms_epsilon", 1e-5);
    bq_gguf_put_real(&p, "llama.rope.freq_base", 10000);
    bq_gguf_put_int(&p, "llama.rope.dimension_count", 16);
    bq_gguf_put_int(&p, "llama.vocab_size", 4);
    bq_gguf_put_int(&p, "general.file_type", 7);
    bq_gguf_put_int(&p, "general.quantization_version", 2);
    bq_gguf_put_word(&p, "tokenizer.ggml.model", "gpt2");
    bq_gguf_put_word(&p, "tokenizer.ggml.pre", "smollm");
    bq_gguf_put_list(&p, "tokenizer.ggml.tokens", BQ_GGUF_TEXT, 4);
    for (int i = 0; i < 4; i++) bq_gguf_put_text(&p, tokens[i]);
    bq_gguf_put_list(&p, "tokenizer.ggml.token_type", BQ_GGUF_I32, 4);
    for (int i = 0; i < 4; i++) bq_gguf_put_number(&p, i < 3 ? 1 : 3, 4);
    bq_gguf_put_list(&p, "tokenizer.ggml.merges", BQ_GGUF_TEXT, 1);
    bq_gguf_put_text(&p, "a b");
    bq_gguf_put_int(&p, "tokenizer.ggml.bos_token_id", 3);
    bq_gguf_put_bool(&p, "tokenizer.ggml.add_bos_token", false);
    return bq_gguf_put_close(&p, at, count, bytes);
}

static void whole_file(void **state) {
    (void)state;
    bq_weights *golden;
    size_t bytes, n;
    bq_container container = *bq_format_at(bq_format_find("gguf"))->container;
    container.header = toy_head;
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_gguf.safetensors"), BQ_OK);
    uint8_t *want = bytes_of(golden, "file/toy", &bytes), *coded = bytes_of(golden, "Q8_0/from_small", &n);
    float *small = bytes_of(golden, "in/small", &n); /* (8, 96) */
    bq_writer *w = bq_writer_plan_as(&container, NULL);
    bq_writer_add(w, "token_embd.weight", "Q8_0", 2, (int64_t[]){4, 32});
    bq_writer_add(w, "output_norm.weight", "F32", 1, (int64_t[]){32});
    bq_writer_add(w, "blk.0.attn_q.weight", "F16", 2, (int64_t[]){8, 64});
    bq_writer_open(w, temp_path("toy.gguf"));
    for (int r = 0; r < 4; r++) bq_writer_put(w, coded + (size_t)r * 3 * 34, 34);
    bq_writer_put(w, small, 128);
    for (int i = 0; i < 8 * 64; i++)
        bq_writer_put(w, (uint16_t[]){bq_to_f16(small[i / 64 * 96 + i % 64])}, 2);
    bq_writer_close(w);
    file_save(temp_path("want.gguf"), want, bytes);
    assert_same_file(temp_path("toy.gguf"), temp_path("want.gguf"));
    free(want);
    free(coded);
    free(small);
    bq_weights_close(golden);
}

/* ---- tokenizers ---- */

/* One of pieces: scores, bytes, a blank before each text or none. */
static char *pieces_head(const void *ctx, const bq_tensor *at, int count, size_t *bytes) {
    static const char *const tokens[] = {"<unk>", "<s>", "<0x41>", "a",      "b",
                                         "ab",    "aab", "ba",     "<tool>", "c"};
    static const int types[] = {2, 3, 6, 1, 1, 1, 1, 1, 4, 5};
    static const float scores[] = {0, 0, 0, -9, -8, -3, -1, -2, 0, 0};
    bq_gguf_put p;
    bq_gguf_put_open(&p);
    bq_gguf_put_word(&p, "general.architecture", "llama");
    bq_gguf_put_word(&p, "tokenizer.ggml.model", "llama");
    bq_gguf_put_bool(&p, "tokenizer.ggml.add_space_prefix", *(const bool *)ctx);
    bq_gguf_put_bool(&p, "tokenizer.ggml.add_bos_token", true);
    bq_gguf_put_int(&p, "tokenizer.ggml.bos_token_id", 1);
    bq_gguf_put_list(&p, "tokenizer.ggml.tokens", BQ_GGUF_TEXT, 10);
    for (int i = 0; i < 10; i++) bq_gguf_put_text(&p, tokens[i]);
    bq_gguf_put_list(&p, "tokenizer.ggml.token_type", BQ_GGUF_I32, 10);
    for (int i = 0; i < 10; i++) bq_gguf_put_number(&p, (uint64_t)types[i], 4);
    bq_gguf_put_list(&p, "tokenizer.ggml.scores", BQ_GGUF_F32, 10);
    for (int i = 0; i < 10; i++) bq_gguf_put_number(&p, bq_bits(scores[i]), 4);
    return bq_gguf_put_close(&p, at, count, bytes);
}

static char *again_head(const void *ctx, const bq_tensor *at, int count, size_t *bytes) {
    json_t *config = json_pack("{s:i}", "bos_token_id", 1);
    bq_gguf_put p;
    bq_gguf_put_open(&p);
    bq_gguf_put_word(&p, "general.architecture", "llama");
    bq_gguf_put_tokens(&p, ctx, config);
    json_decref(config);
    return bq_gguf_put_close(&p, at, count, bytes);
}

/* A file with such a header and one tensor; the tokenizer that is made of it. */
static json_t *tokenizer_of(char *(*head)(const void *, const bq_tensor *, int, size_t *), const void *ctx) {
    bq_container container = *bq_format_at(bq_format_find("gguf"))->container;
    json_t *tokenizer = NULL, *config = NULL;
    bq_gguf *g;
    container.header = head;
    bq_writer *w = bq_writer_plan_as(&container, ctx);
    bq_writer_add(w, "output_norm.weight", "F32", 1, (int64_t[]){1});
    bq_writer_open(w, temp_path("words.gguf"));
    bq_writer_put(w, (float[]){1}, 4);
    bq_writer_close(w);
    assert_int_equal(bq_gguf_open(&g, temp_path("words.gguf")), BQ_OK);
    assert_int_equal(bq_gguf_tokenizer(g, &tokenizer, &config), BQ_OK);
    assert_non_null(tokenizer);
    json_decref(config);
    bq_gguf_close(g);
    return tokenizer;
}

static void pieces(void **state) {
    (void)state;
    for (int prefix = 0; prefix < 2; prefix++) {
        bq_gguf_job own = {.tokenizer = tokenizer_of(pieces_head, &(bool){prefix}), .model = {.vocab = 10}};
        assert_null(bq_gguf_tokens_lack(&own));
        json_t *again = tokenizer_of(again_head, &own);
        assert_int_equal(json_array_size(json_object_get(json_object_get(again, "model"), "merges")), 3);
        assert_true(json_equal(again, own.tokenizer));
        json_decref(again);
        json_decref(own.tokenizer);
    }
}

/* ---- blocks ---- */

/* The signed code of element i of a block, as the file's description has it. */
static int code_at(const uint8_t *block, char kind, int i) {
    if (kind == '8') return (int8_t)block[2 + i];
    const uint8_t *nibbles = block + (kind == '5' ? 6 : 2);
    int low = nibbles[i % 16] >> (i < 16 ? 0 : 4) & 15;
    return kind == '5' ? (low | (block[2 + i / 8] >> i % 8 & 1) << 4) - 16 : low - 8;
}

/* Codes and scales out of the package's blocks give these blocks. */
static void blocks(void **state) {
    (void)state;
    static const char *const types[] = {"Q4_0", "Q5_0", "Q8_0"};
    static const int bits[] = {4, 5, 8};
    bq_weights *golden;
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_gguf.safetensors"), BQ_OK);
    for (int k = 0; k < 3; k++) {
        enum { ROWS = 8, COLS = 96, GROUPS = COLS / 32 };
        static int8_t code[ROWS * COLS];
        static float scale[ROWS * GROUPS];
        char key[32];
        size_t n;
        const char *why;
        snprintf(key, sizeof key, "%s/from_small", types[k]);
        uint8_t *want = bytes_of(golden, key, &n), row[GROUPS * 34];
        bq_qtensor q = {.scheme = {bits[k], 32, true, BQ_F16, BQ_GRID_AIMET, 1, 0},
                        .code = bq_mat_host(code, ROWS, COLS, BQ_I8),
                        .scale = bq_mat_host(scale, ROWS, GROUPS, BQ_F32)};
        const bq_gguf_type *type = bq_gguf_type_for(&q, &why);
        assert_string_equal(type->name, types[k]);
        assert_int_equal(n, ROWS * GROUPS * type->bytes);
        for (int b = 0; b < ROWS * GROUPS; b++) {
            const uint8_t *block = want + b * type->bytes;
            scale[b] = bq_from_f16((uint16_t)(block[0] | block[1] << 8));
            for (int i = 0; i < 32; i++) code[b * 32 + i] = (int8_t)code_at(block, types[k][1], i);
        }
        bq_gguf_job own = {.blocks = 0};
        for (int r = 0; r < ROWS; r++) {
            bq_gguf_pack(&own, &q, type, r, row);
            assert_memory_equal(row, want + r * GROUPS * type->bytes, (size_t)(GROUPS * type->bytes));
        }
        assert_int_equal(own.blocks, 0);
        free(want);
    }
    bq_weights_close(golden);
}

/* The same of MXFP4: its codes are those of the grid with scales of type e8m0. */
static void blocks_of_floats(void **state) {
    (void)state;
    enum { ROWS = 8, COLS = 96, BLOCKS = ROWS * COLS / 32 };
    static int8_t code[ROWS * COLS];
    static float scale[BLOCKS];
    bq_weights *golden;
    size_t n;
    const char *why;
    assert_int_equal(bq_weights_open(&golden, BQ_VECTORS "/peer_gguf.safetensors"), BQ_OK);
    uint8_t *want = bytes_of(golden, "MXFP4/from_small", &n), row[COLS / 32 * 17];
    bq_qtensor q = {.scheme = {BQ_E2M1, 32, true, BQ_F8_E8M0, BQ_GRID_ABSMAX, 1, 0},
                    .code = bq_mat_host(code, ROWS, COLS, BQ_I8),
                    .scale = bq_mat_host(scale, ROWS, COLS / 32, BQ_F32)};
    const bq_gguf_type *type = bq_gguf_type_for(&q, &why);
    assert_string_equal(type->name, "MXFP4");
    assert_int_equal(n, BLOCKS * 17);
    for (int b = 0; b < BLOCKS; b++) {
        const uint8_t *block = want + 17 * b;
        scale[b] = bq_float(block[0] ? (uint32_t)block[0] << 23 : 0x400000u);
        for (int i = 0; i < 32; i++) code[b * 32 + i] = (int8_t)(block[1 + i % 16] >> (i < 16 ? 0 : 4) & 15);
    }
    bq_gguf_job own = {.blocks = 0};
    for (int r = 0; r < ROWS; r++) {
        bq_gguf_pack(&own, &q, type, r, row);
        assert_memory_equal(row, want + r * (int)sizeof row, sizeof row);
    }
    q.scheme.scale = BQ_F16;
    assert_null(bq_gguf_type_for(&q, &why));
    assert_non_null(strstr(why, "floats other than e2m1"));
    free(want);
    bq_weights_close(golden);
}

/* Zero points: the values are (code - zero) scale but for the rounding of the minimum, which is counted. */
static void minima(void **state) {
    (void)state;
    enum { COLS = 96 };
    int8_t code[COLS];
    float scale[COLS / 32] = {0.25f, bq_from_f16(0x2e67), bq_from_f16(0x0401)}, zero[COLS / 32], value[COLS];
    uint8_t row[COLS / 32 * 24];
    for (int bits = 2; bits <= 5; bits++) {
        const int half = 1 << (bits - 1);
        const char *why;
        bq_gguf_job own = {.blocks = 0};
        bq_qtensor q = {.scheme = {bits, 32, false, BQ_F16, BQ_GRID_AIMET, 1, 0},
                        .code = bq_mat_host(code, 1, COLS, BQ_I8),
                        .scale = bq_mat_host(scale, 1, COLS / 32, BQ_F32),
                        .zero = bq_mat_host(zero, 1, COLS / 32, BQ_F32)};
        const bq_gguf_type *type = bq_gguf_type_for(&q, &why);
        assert_string_equal(type->name, bits < 5 ? "Q4_1" : "Q5_1");
        for (int i = 0; i < COLS; i++) code[i] = (int8_t)(i * 7 % (2 * half) - half);
        for (int g = 0; g < COLS / 32; g++) zero[g] = (float)(g * 3 % (2 * half) - half + 1);
        bq_gguf_pack(&own, &q, type, 0, row);
        type->decode(row, COLS / 32, value);
        for (int i = 0; i < COLS; i++) {
            float d = scale[i / 32], want = ((float)code[i] - zero[i / 32]) * d;
            assert_true(fabsf(value[i] - want) <= (i < 32 ? 0 : own.worst * d * 1.0001f));
        }
        assert_int_equal(own.blocks, 3);
        assert_true(own.rounded < 3 && own.worst <= 31 * 0x1p-11f);
    }
}

/* ---- micro models ---- */

/* All tensors of the file are those of the source, twice where the rule replaces them; or a result's. */
static void check_values(const char *file, const toy_rule *rule) {
    bq_weights *w, *from;
    static float have[20000], want[20000];
    assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
    assert_int_equal(bq_weights_open(&w, file), BQ_OK);
    toy t = {.src = from, .rule = rule};
    assert_int_equal(bq_weights_count(w), bq_weights_count(from));
    for (int i = 0; i < bq_weights_count(from); i++) {
        const bq_tensor *b = bq_weights_at(from, i), *a = bq_weights_find(w, b->name);
        int64_t count = bq_tensor_count(b), cols = b->shape[b->dims - 1], rows = count / cols;
        assert_true(a && count <= 20000);
        assert_true(a->dims == b->dims && bq_tensor_count(a) == count);
        bq_weights_read(w, a, 0, rows, bq_mat_host(have, rows, cols, BQ_F32));
        bq_weights_read(from, b, 0, rows, bq_mat_host(want, rows, cols, BQ_F32));
        bool twice = toy_rule_of(&t, b->name)->bits == 1;
        bq_qtensor q;
        if (half_get(&t, b->name, true, &q))
            for (int64_t k = 0; k < count; k++) want[k] = (float)t.code[k] * t.scale[k / cols];
        for (int64_t k = 0; k < count; k++) /* 1 is added to Gemma's norms, and taken off again */
            if (fabsf(have[k] - want[k] * (twice ? 2.0f : 1.0f)) > (b->dims == 1 ? 1e-6f : 0))
                fail_msg("%s: %s[%ld] is %g, not %g", file, b->name, (long)k, (double)have[k],
                         (double)want[k]);
    }
    toy_free(&t);
    bq_weights_close(w);
    bq_weights_close(from);
}

static bq_gguf_options as_source = {BQ_GGUF_SOURCE, BQ_GGUF_SOURCE, BQ_GGUF_SOURCE, false};

static int export_micro(const char *golden, const char *dtype, const toy_rule *rule, size_t limit,
                        int parts) {
    bq_weights *w;
    make_source(golden, dtype);
    text_in(src_dir, "tokenizer.json", "{}");
    assert_int_equal(bq_weights_open(&w, src_dir), BQ_OK);
    toy t = {.src = w, .rule = rule};
    int rc = export_as("gguf", w, temp_path("micro"),
                       (bq_qsource){.ctx = &t, .get = half_get, .dense = toy_dense}, limit, parts);
    toy_free(&t);
    bq_weights_close(w);
    return rc;
}

static const toy_rule as_is[] = {{NULL, 0, 0}};
static const toy_rule all[] = {{"lm_head", 0, 0}, {"", 1, 0}, {NULL, 0, 0}};

static const toy_rule rows4[] = {{"lm_head", 0, 0}, {"experts", 4, 0}, {"_proj.weight", 4, 0}, {NULL, 0, 0}};
static const toy_rule rows8[] = {{"lm_head", 0, 0}, {"experts", 8, 0}, {"_proj.weight", 8, 0}, {NULL, 0, 0}};

static void micro_models(void **state) {
    (void)state;
    static const char *const models[] = {"model_llama_default", "model_llama_llama3", "model_llama_bias",
                                         "model_qwen2",         "model_qwen3",        "model_phi3_long",
                                         "model_phi3_partial",  "model_mixtral"};
    char file[600], first[600];
    snprintf(file, sizeof file, "%s", in(temp_path("micro"), "model.gguf"));
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        for (int bf16 = 0; bf16 < 2; bf16++) {
            assert_int_equal(export_micro(models[i], bf16 ? "BF16" : "F32", as_is, TOY_SHARD, 1), BQ_OK);
            check_values(file, as_is);
            assert_int_equal(export_micro(models[i], bf16 ? "BF16" : "F32", all, TOY_SHARD, 1), BQ_OK);
            check_values(file, all);
            assert_int_equal(export_micro(models[i], "F32", bf16 ? rows8 : rows4, TOY_SHARD, 1), BQ_OK);
            check_values(file, bf16 ? rows8 : rows4); /* of 48, 56 ... columns: as F32 */
        }
    }
    assert_int_equal(export_micro("model_mixtral", "F32", as_is, 60000, 3), BQ_OK);
    assert_false(file_there(file));
    assert_false(file_there(in(temp_path("micro"), "model.safetensors.index.json")));
    int parts = 1;
    do snprintf(first, sizeof first, "%s/model-00001-of-%05d.gguf", temp_path("micro"), ++parts);
    while (!file_there(first) && parts < 20);
    check_values(first, as_is);
}

/* Matrices in the types of the keys, rows of q and k back in their order; vectors and routers are F32. */
static void chosen_types(void **state) {
    (void)state;
    static const char *const models[] = {"model_llama_bias", "model_mixtral"};
    bq_weights *w, *from;
    static float have[20000], want[20000];
    toy_options =
        &(bq_gguf_options){1, 8, 30, false}; /* rows of 40 and 48 values are no whole blocks of Q8_0: F16 */
    for (int m = 0; m < 2; m++) {
        assert_int_equal(export_micro(models[m], "F32", as_is, TOY_SHARD, 1), BQ_OK);
        assert_int_equal(bq_weights_open(&from, src_dir), BQ_OK);
        assert_int_equal(bq_weights_open(&w, in(temp_path("micro"), "model.gguf")), BQ_OK);
        for (int i = 0; i < bq_weights_count(from); i++) {
            const bq_tensor *b = bq_weights_at(from, i), *a = bq_weights_find(w, b->name);
            bool plain = b->dims == 1 || strstr(b->name, "block_sparse_moe.gate."),
                 head = strstr(b->name, "lm_head");
            int64_t count = bq_tensor_count(b), cols = b->shape[b->dims - 1], rows = count / cols;
            assert_true(a && count <= 20000);
            assert_string_equal(a->dtype, plain ? "F32" : head ? "BF16" : "F16");
            bq_weights_read(w, a, 0, rows, bq_mat_host(have, rows, cols, BQ_F32));
            bq_weights_read(from, b, 0, rows, bq_mat_host(want, rows, cols, BQ_F32));
            for (int64_t k = 0; k < count; k++)
                assert_true(have[k] == (plain  ? want[k]
                                        : head ? bq_from_bf16(bq_to_bf16(want[k]))
                                               : bq_from_f16(bq_to_f16(want[k]))));
        }
        bq_weights_close(w);
        bq_weights_close(from);
    }
    static const toy_rule head[] = {{"lm_head", 4, 0}, {NULL, 0, 0}};
    assert_refused(export_micro("model_llama_default", "F32", head, TOY_SHARD, 1),
                   "'lm_head.weight' is quantized by the recipe: leave out output_tensor_type");
    assert_refused(export_micro("model_llama_llama3", "F32", as_is, TOY_SHARD, 1),
                   "output_tensor_type: the model's output layer is its embedding");
    toy_options = &as_source;
}

static void refusals(void **state) {
    (void)state;
    static const toy_rule two[] = {{"experts.0.w1", 1, 0}, {NULL, 0, 0}};
    bq_mat code = bq_mat_host(NULL, 48, 112, BQ_I8), one = bq_mat_host(NULL, 48, 1, BQ_F32);
    make_source("model_llama_llama3", "F32"); /* down_proj is (48, 112) */
    text_in(src_dir, "tokenizer.json", "{}");
    bq_qtensor q = {.code = code, .scale = one, .scheme = {4, -1, true, BQ_F16, BQ_GRID_AIMET, 1, 0}};
    q.inputs = bq_rounding_of_tokens(8);
    assert_refused(export_wrong("gguf", q), "cannot be in gguf: it has rounded inputs");
    assert_refused(export_micro("model_mixtral", "BF16", two, TOY_SHARD, 1), "is not as that of expert 0");
    assert_refused(export_micro("model_qwen3_moe", "F32", as_is, TOY_SHARD, 1), "blocks without experts");
    assert_refused(export_micro("model_mistral_window", "F32", as_is, TOY_SHARD, 1), "a sliding window");
    assert_refused(export_micro("model_qwen2_window", "F32", as_is, TOY_SHARD, 1), "a sliding window");
    assert_refused(export_micro("model_gemma3_text", "F32", as_is, TOY_SHARD, 1),
                   "its query_pre_attn_scalar");
    assert_refused(export_micro("model_olmo2", "F32", as_is, TOY_SHARD, 1),
                   "not written for model_type olmo2");
}

int main(void) {
    toy_options = &as_source;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_file),       cmocka_unit_test(pieces),       cmocka_unit_test(blocks),
        cmocka_unit_test(blocks_of_floats), cmocka_unit_test(minima),       cmocka_unit_test(micro_models),
        cmocka_unit_test(refusals),         cmocka_unit_test(chosen_types),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
