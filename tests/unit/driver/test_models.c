/* Forward and block gradients of whole models against transformers, through the loader and block code of a
 * run. */
#include "golden.h"

#include "driver/load/source.h"

#define TOLERANCE 1e-5

typedef struct {
    bq_source src;
    bq_dev dev;
    bq_block blk;
    bq_work work;
    bq_mat x, y;
    int64_t tokens;
} model;

static void open_model(model *m, const golden *g, int64_t tokens) {
    m->tokens = tokens;
    assert_int_equal(bq_source_open(&m->src, g->dir), 0);
    assert_int_equal(bq_dev_open(&m->dev, "cpu", 2, (size_t)64 << 20), 0);
    bq_block_push(&m->blk, &m->src.arch, &m->dev.mem);
    bq_work_push(&m->work, &m->src.arch, tokens, true, &m->dev.mem);
    m->x = bq_arena_push(&m->dev.mem, tokens, m->src.arch.model.hidden, BQ_F32);
    m->y = bq_arena_push(&m->dev.mem, tokens, m->src.arch.model.hidden, BQ_F32);
    bq_source_rope(&m->src, BQ_ANGLES_HF, &m->dev, &m->work);
}

static void close_model(model *m) {
    bq_dev_close(&m->dev);
    bq_source_close(&m->src);
}

static void compare(const golden *g, const char *name, bq_mat have) {
    int64_t n;
    float *want = golden_read(g, name, &n);
    assert_int_equal(n, have.rows * have.cols);
    assert_int_equal(have.ld, have.cols);
    double error = golden_error(have.data, want, n);
    print_message("  %-28s %.2e\n", name, error);
    if (!(error <= TOLERANCE)) fail_msg("%s: error %.3g", name, error);
    free(want);
}

static void check_logits(model *m, const golden *g) {
    const bq_model *k = &m->src.arch.model;
    bq_mat norm = bq_arena_push(&m->dev.mem, 1, k->hidden, BQ_F32);
    bq_mat head = bq_arena_push(&m->dev.mem, k->vocab, k->hidden, BQ_F32);
    bq_mat logits = bq_arena_push(&m->dev.mem, m->tokens, k->vocab, BQ_F32);
    bq_source_head(&m->src, &m->dev, norm, head);
    m->dev.op->rmsnorm(&m->dev, m->x, norm, (float)k->eps, m->y);
    m->dev.op->gemm(&m->dev, false, true, 1, m->y, head, 0, logits);
    compare(g, "logits", logits);
}

static void check_forward(model *m, const golden *g) {
    int32_t *ids = golden_read(g, "tokens", NULL);
    bq_source_embed(&m->src, ids, m->x);
    for (int b = 0; b < m->src.arch.model.blocks; b++) {
        char name[32];
        snprintf(name, sizeof name, "hidden/%d", b);
        compare(g, name, m->x);
        bq_source_block(&m->src, &m->dev, b, &m->blk);
        bq_block_forward(&m->dev, &m->blk, m->blk.w, &m->work, m->x, m->y);
        m->dev.op->copy(&m->dev, m->y, m->x);
    }
    char last[32];
    snprintf(last, sizeof last, "hidden/%d", m->src.arch.model.blocks);
    compare(g, last, m->x);
    check_logits(m, g);
    free(ids);
}

static void check_gradients(model *m, const golden *g) {
    const bq_arch *arch = &m->src.arch;
    int64_t n;
    bq_mat dw[BQ_MATS];
    float *x = golden_read(g, "hidden/0", &n), *dy = golden_read(g, "dY", NULL);
    memcpy(m->x.data, x, (size_t)n * sizeof *x);
    bq_mat grad = bq_mat_host(dy, m->tokens, arch->model.hidden, BQ_F32);
    for (int i = 0; i < BQ_MATS; i++)
        dw[i] = bq_arena_push(&m->dev.mem, arch->rows[i], arch->cols[i], BQ_F32);
    bq_source_block(&m->src, &m->dev, 0, &m->blk);
    bq_block_forward(&m->dev, &m->blk, m->blk.w, &m->work, m->x, m->y);
    bq_block_backward(&m->dev, &m->blk, m->blk.w, &m->work, m->x, grad, dw, (bq_mat){0});
    for (int i = 0; i < arch->linears; i++) {
        char name[96];
        snprintf(name, sizeof name, "grad/%s", arch->linear[i].module);
        compare(g, name, bq_linear_view(arch, i, dw));
    }
    free(x);
    free(dy);
}

static void check(void **state) {
    golden g;
    model m;
    int64_t tokens;
    print_message("%s\n", (const char *)*state);
    golden_open(&g, *state, "");
    free(golden_read(&g, "tokens", &tokens));
    open_model(&m, &g, tokens);
    check_forward(&m, &g);
    check_gradients(&m, &g);
    close_model(&m);
    golden_close(&g);
}

/* Half the loss's change along a random direction of x and of each matrix, against the analytic gradient: the
 * input gradient has no golden vector. */
static void input_gradient(void **state) {
    (void)state;
    golden g;
    model m;
    golden_open(&g, "model_llama_bias", "");
    enum { T = 11 };
    open_model(&m, &g, T);
    int64_t h = m.src.arch.model.hidden, n = T * h;
    bq_mat dw[BQ_MATS], dx = bq_arena_push(&m.dev.mem, T, h, BQ_F32),
                        dy = bq_arena_push(&m.dev.mem, T, h, BQ_F32);
    for (int i = 0; i < BQ_MATS; i++)
        dw[i] = bq_arena_push(&m.dev.mem, m.src.arch.rows[i], m.src.arch.cols[i], BQ_F32);
    bq_source_block(&m.src, &m.dev, 0, &m.blk);
    float *base = malloc((size_t)n * sizeof *base), *way = malloc((size_t)n * sizeof *way);
    for (int64_t i = 0; i < n; i++) {
        base[i] = (float)sin((double)i * 1.7), way[i] = (float)cos((double)i * 0.9);
        bq_f32(dy)[i] = (float)sin((double)i * 0.37);
    }
    double sum[2] = {0}, analytic = 0;
    const double eps = 1e-2;
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < n; i++)
            bq_f32(m.x)[i] = base[i] + (float)((side ? eps : -eps) * (double)way[i]);
        bq_block_forward(&m.dev, &m.blk, m.blk.w, &m.work, m.x, m.y);
        for (int64_t i = 0; i < n; i++) sum[side] += (double)bq_f32(dy)[i] * (double)bq_f32(m.y)[i];
    }
    memcpy(m.x.data, base, (size_t)n * sizeof *base);
    bq_block_forward(&m.dev, &m.blk, m.blk.w, &m.work, m.x, m.y);
    bq_block_backward(&m.dev, &m.blk, m.blk.w, &m.work, m.x, dy, dw, dx);
    for (int64_t i = 0; i < n; i++) analytic += (double)bq_f32(dx)[i] * (double)way[i];
    double numeric = (sum[1] - sum[0]) / (2 * eps);
    print_message("input gradient: %.8g analytic, %.8g numeric\n", analytic, numeric);
    assert_true(fabs(analytic - numeric) <= 1e-3 * fabs(numeric));
    free(base);
    free(way);
    close_model(&m);
    golden_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(check, "model_llama_default"),
        cmocka_unit_test_prestate(check, "model_llama_llama3"),
        cmocka_unit_test_prestate(check, "model_llama_bias"),
        cmocka_unit_test_prestate(check, "model_phi3_short"),
        cmocka_unit_test_prestate(check, "model_phi3_long"),
        cmocka_unit_test_prestate(check, "model_phi3_partial"),
        cmocka_unit_test(input_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
