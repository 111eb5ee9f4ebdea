/* Clipping, Sequential MSE and two-level scales against numpy (tests/vectors/make_search.py), bit for bit. */
#include "golden.h"

#include "block/search.h"

enum { H = 24, TOKENS = 19, SAMPLES = 5 };

typedef struct {
    golden g;
    bq_dev dev;
    bq_arch arch;
    bq_block blk;
    bq_work work;
    bq_quantized q;
    float *x; /* (SAMPLES, TOKENS, H) */
    bq_pass_context c;
} rig;

static const bq_comm alone = {.size = 1, .locals = 1, .nstage = 1, .nreplica = 1};

static const struct {
    const char *name;
    bq_scheme scheme;
} cases[] = {{"channel", {4, -1, true, BQ_F32, BQ_GRID_AIMET}},
             {"group", {4, 8, true, BQ_F32, BQ_GRID_AIMET}},
             {"zero", {4, 8, false, BQ_F32, BQ_GRID_AIMET}},
             {"three", {3, -1, false, BQ_F32, BQ_GRID_AIMET}}};

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    rig *r = ctx;
    assert_int_equal(stream, BQ_STREAM_QT);
    return bq_mat_host(r->x + sample * TOKENS * H, TOKENS, H, BQ_F32);
}

static void load(rig *r, const char *name, bq_mat to) {
    int64_t n;
    float *data = golden_read(&r->g, name, &n);
    assert_int_equal(n, to.rows * to.cols);
    memcpy(to.data, data, bq_mat_bytes(to));
    free(data);
}

static rig *open_rig(bq_scheme scheme) {
    rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    bq_model m = {.family = BQ_LLAMA,
                  .hidden = H,
                  .inter = 40,
                  .vocab = 31,
                  .blocks = 1,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 6,
                  .eps = 1e-5,
                  .rope = {.dim = 6, .theta = 1e4, .attention = 1}};
    bq_scheme all[BQ_ARCH_LINEARS];
    assert_int_equal(bq_weights_open_file(&r->g.file, BQ_VECTORS "/search_tiny.safetensors"), 0);
    bq_arch_of(&m, &r->arch);
    for (int i = 0; i < r->arch.linears; i++) all[i] = scheme;
    assert_int_equal(bq_dev_open(&r->dev, "cpu", 2, (size_t)4 << 20), 0);
    bq_block_push(&r->blk, &r->arch, &r->dev.mem);
    bq_work_push(&r->work, &r->arch, TOKENS, false, &r->dev.mem);
    bq_quantized_push(&r->q, &r->arch, all, &r->dev.mem);
    for (int i = 0; i < r->arch.linears; i++) {
        char name[64];
        snprintf(name, sizeof name, "w/%s", r->arch.linear[i].name);
        load(r, name, bq_linear_view(&r->arch, i, r->blk.w));
    }
    bq_mat norms = bq_arena_push(&r->dev.mem, 2, H, BQ_F32);
    load(r, "norm", norms);
    for (int i = 0; i < 2; i++) memcpy(r->blk.norm[i].data, bq_mat_at(norms, i, 0), H * sizeof(float));
    load(r, "cos", r->work.cos), load(r, "sin", r->work.sin);
    r->x = golden_read(&r->g, "x", NULL);
    r->c = (bq_pass_context){.dev = &r->dev,
                             .blk = &r->blk,
                             .work = &r->work,
                             .q = &r->q,
                             .comm = &alone,
                             .samples = SAMPLES,
                             .tokens = TOKENS,
                             .input = BQ_INPUTS_QT,
                             .fetch = fetch,
                             .ctx = r};
    return r;
}

static void close_rig(rig *r) {
    bq_weights_close(r->g.file);
    bq_dev_close(&r->dev);
    free(r->x);
    free(r);
}

/* Equal scales and zero points in every linear.  gap: choices that are less clear than 1e-5 may differ; how
 * many are clear, over all. */
static int64_t compare(rig *r, const char *which, const char *method, bool gap) {
    int64_t clear = 0;
    for (int i = 0; i < r->arch.linears; i++) {
        char at[96], name[128];
        int64_t n;
        snprintf(at, sizeof at, "%s/%s/%s", which, r->arch.linear[i].name, method);
        snprintf(name, sizeof name, "%s/scale", at);
        float *scale = golden_read(&r->g, name, &n), *zero = NULL, *gaps = NULL;
        snprintf(name, sizeof name, "%s/zero", at);
        if (r->q.zero[i].data) zero = golden_read(&r->g, name, NULL);
        snprintf(name, sizeof name, "%s/gap", at);
        if (gap) gaps = golden_read(&r->g, name, NULL);
        assert_int_equal(n, r->q.scale[i].rows);
        for (int64_t k = 0; k < n; k++) {
            if (gap && gaps[k] < 1e-5f) continue;
            clear++;
            if (bq_f32(r->q.scale[i])[k] != scale[k]) fail_msg("%s: scale %ld differs", at, (long)k);
            if (zero && bq_f32(r->q.zero[i])[k] != zero[k]) fail_msg("%s: zero %ld differs", at, (long)k);
        }
        free(scale), free(zero), free(gaps);
    }
    return clear;
}

static int64_t grids(const rig *r) {
    int64_t sum = 0;
    for (int i = 0; i < r->arch.linears; i++) sum += r->q.scale[i].rows;
    return sum;
}

static void clipping(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int norm = 0; norm < 2; norm++) {
            rig *r = open_rig(cases[k].scheme);
            bq_pass_rtn_mse(&r->c, (bq_shrink){100, 80, norm ? BQ_NORM_24 : BQ_NORM_2});
            assert_true(compare(r, cases[k].name, norm ? "mse2.4" : "mse2.0", true) > grids(r) * 95 / 100);
            close_rig(r);
        }
}

static void sequential_mse(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        rig *r = open_rig(cases[k].scheme);
        bq_pass_seqmse(&r->c, &(bq_seqmse_options){20});
        assert_int_equal(compare(r, cases[k].name, "seqmse", false), grids(r));
        close_rig(r);
    }
}

static void two_levels(void **state) {
    (void)state;
    rig *r = open_rig(cases[1].scheme);
    bq_pass_lpbq(&r->c, 8);
    assert_int_equal(compare(r, "group", "lpbq", false), grids(r));
    bq_pass_seqmse(&r->c, &(bq_seqmse_options){20});
    r->c.grid = true;
    bq_pass_lpbq(&r->c, 8);
    assert_int_equal(compare(r, "group", "seqmse+lpbq", false), grids(r));
    close_rig(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(clipping), cmocka_unit_test(sequential_mse),
                                       cmocka_unit_test(two_levels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
