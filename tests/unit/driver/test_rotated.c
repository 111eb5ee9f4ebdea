/* SPDX-License-Identifier: Apache-2.0 */
/* Rotated models compute what they computed before, through the loader and block code of a run; what is
 * rotated differs from the files, and its bits do not depend on how it is read. */
#include "golden.h"
#include "unit/driver/captured.h"

#include "base/die.h"
#include "driver/load/source.h"

#define TOLERANCE 1e-5

static const bq_transform ways[] = {
    {.r1 = BQ_ROTATE_HADAMARD},
    {.r1 = BQ_ROTATE_RANDOMIZED, .r2 = BQ_ROTATE_RANDOMIZED},
    {.r1 = BQ_ROTATE_RANDOMIZED, .r2 = BQ_ROTATE_HADAMARD},
    {.r1 = BQ_ROTATE_BLOCK, .r1_block = 8, .r2 = BQ_ROTATE_BLOCK, .r2_block = 4},
    {.r1 = BQ_ROTATE_ORTHOGONAL, .r2 = BQ_ROTATE_ORTHOGONAL},
    {.r2 = BQ_ROTATE_HADAMARD},
};
enum { WAYS = sizeof ways / sizeof *ways, TOKENS = 13 };

/* The source of a model, rotated when `how` is given.  Heads for which there is no such matrix are refused,
 * and get another one here. */
static void open_source(bq_source *src, const char *dir, const bq_transform *how, uint64_t seed) {
    static bq_recipe r;
    r = (bq_recipe){.seed = seed, .ntransform = how != NULL};
    if (how) r.transform[0] = *how;
    assert_int_equal(bq_source_open(src, dir), 0);
    bq_transform *t = &r.transform[0];
    if (how && !bq_rotation_exists(t->r2, src->arch.model.head_dim, t->r2_block)) {
        assert_int_equal(bq_source_transform(src, &r), BQ_USAGE);
        t->r2 = BQ_ROTATE_ORTHOGONAL;
    }
    assert_int_equal(bq_source_transform(src, &r), 0);
}

/* Logits of a few tokens: the caller's.  threads > 1 changes no bit. */
static float *logits_of(bq_source *src, int threads, int64_t *count) {
    const bq_model *m = &src->arch.model;
    bq_dev dev;
    bq_block blk;
    bq_work work;
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) ids[i] = (int32_t)((i * 7 + 3) % m->vocab);
    assert_int_equal(bq_dev_open(&dev, "cpu", threads, (size_t)64 << 20), 0);
    bq_block_push(&blk, &src->arch, &dev.mem);
    bq_source_work(src, &src->arch, BQ_ANGLES_HF, &dev, TOKENS, false, &work);
    bq_mat x = work.x, y = work.y, norm = bq_arena_push(&dev.mem, 1, m->hidden, BQ_F32),
           head = bq_arena_push(&dev.mem, m->vocab, m->hidden, BQ_F32);
    bq_source_embed(src, ids, false, x);
    for (int b = 0; b < m->blocks; b++) {
        bq_source_block(src, &dev, b, &blk);
        bq_block_forward(&dev, &blk, blk.w, &work, x, y);
        dev.op->copy(&dev, y, x);
    }
    bq_source_head(src, &dev, false, norm, head);
    dev.op->rmsnorm(&dev, x, norm, (float)m->eps, y);
    *count = TOKENS * m->vocab;
    float *logits = malloc((size_t)*count * sizeof *logits);
    dev.op->gemm(&dev, false, true, 1, y, head, 0, bq_mat_host(logits, TOKENS, m->vocab, BQ_F32));
    dev.op->wait(&dev);
    bq_dev_close(&dev);
    return logits;
}

/* Does the family allow R1?  A norm behind o and down reads what R1 would rotate. */
static bool streams_rotate(const bq_arch *arch) { return !arch->norm[BQ_NORM_O]; }

static void check_model(const char *dir) {
    bq_source src;
    int64_t n, same;
    open_source(&src, dir, NULL, 0);
    float *want = logits_of(&src, 2, &n);
    assert_false(bq_rotated_read(src.rotated, src.arch.embed, 0, (bq_mat){0}));
    bool r1 = streams_rotate(&src.arch);
    bq_source_close(&src);
    for (int i = 0; i < WAYS; i++) {
        bq_transform way = ways[i];
        if (!r1) way.r1 = BQ_ROTATE_NONE;
        if (!way.r1 && !way.r2) continue;
        open_source(&src, dir, &way, 11);
        float *have = logits_of(&src, 2, &n), *again = logits_of(&src, 1, &same);
        double error = golden_error(bq_mat_host(have, 1, n, BQ_F32), bq_mat_host(want, 1, n, BQ_F32));
        print_message("  way %d: %.2e\n", i, error);
        if (!(error <= TOLERANCE)) fail_msg("way %d: error %.3g", i, error);
        assert_memory_equal(have, again, (size_t)n * sizeof *have);
        assert_memory_not_equal(have, want, (size_t)n * sizeof *have);
        free(have);
        free(again);
        bq_source_close(&src);
    }
    free(want);
}

static void golden_models(void **state) {
    golden g;
    print_message("%s\n", (const char *)*state);
    golden_vector_model(&g, *state);
    check_model(g.dir);
    golden_close(&g);
}

/* Norms behind o and down: R1 is refused with one message, R2 is not (golden_models). */
static void streams_that_do_not_rotate(void **state) {
    static captured got;
    golden g;
    bq_source src;
    bq_recipe r = {.ntransform = 1, .transform = {ways[1]}};
    golden_vector_model(&g, *state);
    assert_int_equal(bq_source_open(&src, g.dir), 0);
    assert_false(streams_rotate(&src.arch));
    capture_begin(&got, stderr);
    int code = bq_source_transform(&src, &r);
    const char *text = capture_end(&got), *end = strchr(text, '\n');
    if (code != BQ_USAGE || !strstr(text, "has norms behind o and down") || !end || end[1])
        fail_msg("code %d: %s", code, text);
    bq_source_close(&src);
    golden_close(&g);
}

static void demo(void **state) {
    (void)state;
    check_model(BQ_VECTORS "/../../jobs/demo/model");
}

static float *read_all(bq_source *src, const char *name, int64_t rows, int64_t cols, int64_t step) {
    float *x = malloc((size_t)(rows * cols) * sizeof *x);
    for (int64_t at = 0; at < rows; at += step) {
        int64_t n = rows - at < step ? rows - at : step;
        assert_true(bq_rotated_read(src->rotated, name, at, bq_mat_host(x + at * cols, n, cols, BQ_F32)));
    }
    return x;
}

/* Which tensors are others, and whether parts of any size have the same bits. */
static void tensors(void **state) {
    (void)state;
    golden g;
    bq_source src;
    golden_vector_model(&g, "model_llama_bias");
    open_source(&src, g.dir, &ways[1], 3);
    const bq_model *m = &src.arch.model;
    static const char *const other[] = {"model.embed_tokens.weight",
                                        "lm_head.weight",
                                        "model.norm.weight",
                                        "model.layers.1.input_layernorm.weight",
                                        "model.layers.0.self_attn.v_proj.bias",
                                        "model.layers.0.self_attn.o_proj.bias",
                                        "model.layers.1.mlp.down_proj.bias"};
    static const char *const kept[] = {"model.layers.0.self_attn.q_proj.bias",
                                       "model.layers.0.mlp.up_proj.bias", "model.layers.0.what",
                                       "rope.inv_freq"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_true(bq_rotated_read(src.rotated, other[i], 0, (bq_mat){0}));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        assert_false(bq_rotated_read(src.rotated, kept[i], 0, (bq_mat){0}));
    for (int i = 0; i < 2; i++) {
        float *whole = read_all(&src, other[i], m->vocab, m->hidden, m->vocab),
              *parts = read_all(&src, other[i], m->vocab, m->hidden, 7);
        assert_memory_equal(whole, parts, (size_t)(m->vocab * m->hidden) * sizeof *whole);
        free(whole);
        free(parts);
    }
    float *ones = read_all(&src, other[3], 1, m->hidden, 1);
    for (int64_t i = 0; i < m->hidden; i++) assert_true(ones[i] == 1);
    free(ones);
    bq_source_close(&src);
    open_source(&src, g.dir, &ways[WAYS - 1], 3); /* R2 alone */
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_int_equal(bq_rotated_read(src.rotated, other[i], 0, (bq_mat){0}), i == 4);
    bq_source_close(&src);
    golden_close(&g);
}

/* The seed moves rotations that are random, the order of reading does not. */
static void seeds(void **state) {
    (void)state;
    static const char *const name[] = {"model.layers.0.self_attn.v_proj.bias",
                                       "model.layers.1.self_attn.v_proj.bias"};
    golden g;
    bq_source src;
    golden_vector_model(&g, "model_llama_bias");
    float *x[2][2];
    int64_t n = 0;
    for (int seed = 0; seed < 2; seed++) {
        open_source(&src, g.dir, &ways[4], (uint64_t)seed);
        n = src.arch.model.kv_heads * src.arch.model.head_dim;
        for (int b = 1; b >= 0; b--) x[seed][b] = read_all(&src, name[b], 1, n, 1);
        float *again = read_all(&src, name[1], 1, n, 1);
        assert_memory_equal(x[seed][1], again, (size_t)n * sizeof *again);
        free(again);
        bq_source_close(&src);
    }
    assert_memory_not_equal(x[0][0], x[1][0], (size_t)n * sizeof(float));
    for (int i = 0; i < 4; i++) free(x[i / 2][i % 2]);
    golden_close(&g);
}

/* A recipe with this transform is refused in one line with these words; "": taken. */
static void refused(const char *transform, const char *words) {
    static bq_recipe r;
    static captured got;
    char text[400];
    snprintf(text, sizeof text,
             "{\"model\": \"m\", \"phases\": [{\"passes\": [{\"pass\": \"rtn\"}]}], \"transforms\": [{%s}]}",
             transform);
    capture_begin(&got, stderr);
    int code = bq_recipe_parse(text, strlen(text), "x.json", "/home", 0, NULL, &r);
    const char *line = capture_end(&got);
    if (code != (*words ? BQ_USAGE : BQ_OK) || !strstr(line, words)) fail_msg("code %d: %s", code, line);
}

static void recipes(void **state) {
    (void)state;
    refused("", "transforms.0.transform: is missing");
    refused("\"transform\": \"turn\"", "must be \"rotate\"");
    refused("\"transform\": \"rotate\"", "");
    refused("\"transform\": \"rotate\", \"r1\": \"block\"", "r1_block: is missing, and r1 is block");
    refused("\"transform\": \"rotate\", \"r1\": \"block\", \"r1_block\": 8", "");
    refused("\"transform\": \"rotate\", \"r2_block\": 8", "r2_block: is there, but r2 is not block");
    refused("\"transform\": \"rotate\", \"r1\": \"none\"", "rotates nothing");
    refused("\"transform\": \"rotate\"}, {\"transform\": \"rotate\"", "must be a list of 0 to 1 objects");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(golden_models, "model_llama_default"),
        cmocka_unit_test_prestate(golden_models, "model_llama_llama3"),
        cmocka_unit_test_prestate(golden_models, "model_llama_bias"),
        cmocka_unit_test_prestate(golden_models, "model_phi3_short"),
        cmocka_unit_test_prestate(golden_models, "model_phi3_partial"),
        cmocka_unit_test_prestate(golden_models, "model_qwen2"),
        cmocka_unit_test_prestate(golden_models, "model_qwen3"),
        cmocka_unit_test_prestate(golden_models, "model_mistral_window"),
        cmocka_unit_test_prestate(golden_models, "model_qwen2_5_vl_text"),
        cmocka_unit_test_prestate(golden_models, "model_qwen3_vl_text"),
        cmocka_unit_test_prestate(golden_models, "model_olmo2"),
        cmocka_unit_test_prestate(golden_models, "model_gemma2"),
        cmocka_unit_test_prestate(golden_models, "model_gemma3_text"),
        cmocka_unit_test_prestate(streams_that_do_not_rotate, "model_olmo2"),
        cmocka_unit_test_prestate(streams_that_do_not_rotate, "model_gemma2"),
        cmocka_unit_test_prestate(streams_that_do_not_rotate, "model_gemma3_text"),
        cmocka_unit_test(demo),
        cmocka_unit_test(tensors),
        cmocka_unit_test(seeds),
        cmocka_unit_test(recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
