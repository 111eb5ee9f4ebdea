/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding and head rounded: the ops' own codes and values, however many rows are read at a time and with
 * rotations; without a scheme, or where nobody asks, the values stay; groups that do not fit are refused. */
#include "golden.h"
#include "unit/driver/captured.h"

#include "base/die.h"
#include "driver/load/source.h"

static const bq_scheme schemes[] = {{BQ_INT8, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                    {BQ_INT4, 16, true, BQ_F16, BQ_GRID_ABSMAX, 1, 0},
                                    {BQ_INT5, 8, false, BQ_BF16, BQ_GRID_AIMET, 1, 0},
                                    {BQ_INT2, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0}};
enum { SCHEMES = sizeof schemes / sizeof *schemes };

static float *copy_of(bq_mat m) {
    float *x = malloc(bq_mat_bytes(m));
    assert_non_null(x);
    return memcpy(x, m.data, bq_mat_bytes(m));
}

/* What the pass rtn makes of a matrix, on a device that was opened. */
static void by_ops(bq_mat w, bq_scheme s) {
    bq_dev dev;
    int64_t groups = s.group > 0 ? w.cols / s.group : 1, grids = w.rows * groups;
    assert_int_equal(bq_dev_open(&dev, "cpu", 2, (size_t)32 << 20), 0);
    bq_mat rows = bq_mat_reshape(w, w.cols / groups), code = bq_arena_push(&dev.mem, grids, rows.cols, BQ_I8),
           scale = bq_arena_push(&dev.mem, grids, 1, BQ_F32), zero = {0};
    if (!s.symmetric) zero = bq_arena_push(&dev.mem, grids, 1, BQ_F32);
    dev.op->range(&dev, rows, s, scale, zero);
    dev.op->quantize(&dev, rows, scale, zero, s, code);
    dev.op->dequantize(&dev, code, scale, zero, s, rows);
    bq_dev_close(&dev);
}

/* More rows than are rounded at a time. */
static void values(void **state) {
    enum { ROWS = 9000, COLS = 64 };
    (void)state;
    assert_true(bq_round_rows(COLS) < ROWS && bq_round_rows(1 << 20) == 1);
    float *x = malloc(sizeof(float[ROWS * COLS]));
    for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)sin(i * 0.7) * (float)(i % 977) / 977;
    memset(x + 3 * COLS, 0, sizeof(float[COLS]));
    bq_mat w = bq_mat_host(x, ROWS, COLS, BQ_F32);
    for (int i = 0; i < SCHEMES; i++) {
        float *want = copy_of(w), *have = copy_of(w);
        by_ops(bq_mat_host(want, ROWS, COLS, BQ_F32), schemes[i]);
        bq_round_values(bq_mat_host(have, ROWS, COLS, BQ_F32), schemes[i]);
        assert_memory_equal(have, want, bq_mat_bytes(w));
        assert_memory_not_equal(have, x, bq_mat_bytes(w));
        bq_round_values(bq_mat_host(have, ROWS, COLS, BQ_F32), (bq_scheme){0});
        assert_memory_equal(have, want, bq_mat_bytes(w));
        free(want), free(have);
    }
    free(x);
}

/* All rows of the embedding (by their ids) and the head. */
static void read_both(const bq_source *src, bool rounded, float *embedding, float *head) {
    const bq_model *m = &src->arch.model;
    bq_dev dev;
    int32_t *ids = malloc((size_t)m->vocab * sizeof *ids);
    for (int64_t i = 0; i < m->vocab; i++) ids[i] = (int32_t)i;
    assert_int_equal(bq_dev_open(&dev, "cpu", 1, (size_t)8 << 20), 0);
    bq_mat norm = bq_arena_push(&dev.mem, 1, m->hidden, BQ_F32);
    bq_source_embed(src, ids, rounded, bq_mat_host(embedding, m->vocab, m->hidden, BQ_F32));
    bq_source_head(src, &dev, rounded, norm, bq_mat_host(head, m->vocab, m->hidden, BQ_F32));
    bq_dev_close(&dev);
    free(ids);
}

/* The scheme of the embedding is SCHEMES - 1, that of the head 0: both fit all sizes. */
static void check_source(const char *dir, bq_rotate_kind r1) {
    static bq_recipe r;
    bq_source src;
    r = (bq_recipe){.seed = 5, .ntransform = r1 != BQ_ROTATE_NONE, .transform = {{.r1 = r1}}};
    r.bits.embedding = schemes[SCHEMES - 1], r.bits.lm_head = schemes[0];
    assert_int_equal(bq_source_open(&src, dir), 0);
    assert_int_equal(bq_source_transform(&src, &r), 0);
    const bq_model *m = &src.arch.model;
    assert_false(bq_source_tied(&src));
    assert_string_equal(bq_source_head_name(&src), m->tied && !r1 ? src.arch.embed : "lm_head.weight");
    size_t n = (size_t)(m->vocab * m->hidden);
    float *x[4]; /* embedding and head, as they are and rounded */
    for (int i = 0; i < 4; i++) x[i] = malloc(n * sizeof *x[i]);
    read_both(&src, false, x[0], x[1]);
    read_both(&src, true, x[2], x[3]);
    bq_mat rows = bq_mat_host(x[0], m->vocab, m->hidden, BQ_F32);
    bq_source_rows(&src, src.arch.embed, 0, rows);
    by_ops(rows, schemes[SCHEMES - 1]);
    for (size_t i = 0; i < n; i++) x[0][i] *= src.arch.embed_scale; /* after rounding */
    by_ops(bq_mat_host(x[1], m->vocab, m->hidden, BQ_F32), schemes[0]);
    assert_memory_equal(x[2], x[0], n * sizeof **x);
    assert_memory_equal(x[3], x[1], n * sizeof **x);
    for (int i = 0; i < 4; i++) free(x[i]);
    bq_source_close(&src);
}

static void sources(void **state) {
    golden g;
    bool streams = strcmp(*state, "model_gemma2") != 0; /* that a rotation may turn */
    golden_vector_model(&g, *state);
    check_source(g.dir, BQ_ROTATE_NONE);
    if (streams) check_source(g.dir, BQ_ROTATE_ORTHOGONAL);
    golden_close(&g);
}

/* Which recipes are refused; a group of a whole row is none; equal schemes, and no scheme, are equal. */
static void recipes(void **state) {
    (void)state;
    static bq_recipe r;
    static captured got;
    bq_rounded to;
    r.bits.embedding = r.bits.lm_head = schemes[1];
    r.bits.embedding.group = 48;
    assert_int_equal(bq_rounded_of(&to, &r, 48), BQ_OK);
    assert_int_equal(to.embedding.group, -1);
    assert_int_equal(to.head.group, 16);
    capture_begin(&got, stderr);
    int code = bq_rounded_of(&to, &r, 40);
    const char *text = capture_end(&got);
    if (code != BQ_USAGE || !strstr(text, "bits.embedding: group 48 does not divide the hidden size 40"))
        fail_msg("code %d: %s", code, text);
    r.bits.embedding.element = r.bits.lm_head.element = 16;
    assert_int_equal(bq_rounded_of(&to, &r, 40), BQ_OK);
    assert_true(bq_scheme_equal(to.embedding, to.head) && !bq_code_bits(to.head));
}

/* The largest tensor of an output: the head, where it is rounded. */
static void largest(void **state) {
    static bq_recipe r;
    bq_arch arch = {.linears = 1, .linear = {{.rows = 10, .cols = 20}}, .model = {.vocab = 30, .hidden = 16}};
    bq_layouts layouts = {.count = 1, .at = {{.arch = &arch, .scheme = {schemes[0]}}}};
    (void)state;
    r.bits.embedding.element = r.bits.lm_head.element = 16;
    bq_linear_most most = bq_rounded_most(&r, &layouts);
    assert_true(most.codes == 200 && most.scales == 10 && most.cols == 20);
    r.bits.lm_head = schemes[2];
    most = bq_rounded_most(&r, &layouts);
    assert_true(most.codes == 480 && most.scales == 60 && most.cols == 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        {"llama_llama3", sources, NULL, NULL, (void *)(uintptr_t) "model_llama_llama3"},
        {"llama_bias", sources, NULL, NULL, (void *)(uintptr_t) "model_llama_bias"},
        {"gemma2", sources, NULL, NULL, (void *)(uintptr_t) "model_gemma2"},
        cmocka_unit_test(recipes),
        cmocka_unit_test(largest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
