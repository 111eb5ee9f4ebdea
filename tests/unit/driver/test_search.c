/* SPDX-License-Identifier: Apache-2.0 */
/* Clipping, Sequential MSE and two-level scales against numpy (tests/vectors/make_search.py), bit for bit. */
#include "golden.h"

#include "block/passes/search.h"
#include "rig.h"

enum { H = 24, TOKENS = 19, SAMPLES = 5 };

static golden vectors;

static const struct {
    const char *name;
    bq_scheme scheme;
} cases[] = {{"channel", {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0}},
             {"group", {4, 8, true, BQ_F32, BQ_GRID_AIMET, 1, 0}},
             {"zero", {4, 8, false, BQ_F32, BQ_GRID_AIMET, 1, 0}},
             {"three", {3, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0}}};

static float *floats(const char *name, int64_t count) {
    return golden_read(&vectors, BQ_F32, 1, count, "%s", name).data;
}

static void load(const char *name, bq_mat to) {
    memcpy(to.data, floats(name, to.rows * to.cols), bq_mat_bytes(to));
}

static rig *open_rig(bq_scheme scheme) {
    rig *r = rig_open(
        &(rig_spec){.model = {bq_family_find("llama"), H, 40, .heads = 4, .kv_heads = 2, .blocks = 1},
                    .scheme = &scheme,
                    .threads = 2,
                    .samples = SAMPLES,
                    .tokens = TOKENS,
                    .noise = {[BQ_STREAM_QT] = 1}});
    for (int i = 0; i < r->arch.linears; i++) {
        char name[64];
        snprintf(name, sizeof name, "w/%s", r->arch.linear[i].name);
        load(name, bq_linear_view(&r->arch, i, r->blk.w));
    }
    float norms[2 * H];
    load("norm", bq_mat_host(norms, 2, H, BQ_F32));
    for (int i = 0; i < 2; i++) memcpy(r->blk.norm[i].data, norms + i * H, H * sizeof(float));
    load("cos", r->work.cos[0]), load("sin", r->work.sin[0]);
    load("x", bq_mat_host(r->stream[BQ_STREAM_QT], SAMPLES * TOKENS, H, BQ_F32));
    r->c.input = BQ_INPUTS_QT;
    return r;
}

/* Equal scales and zero points in every linear.  gap: choices that are less clear than 1e-5 may differ; how
 * many are clear, over all. */
static int64_t compare(rig *r, const char *which, const char *method, bool gap) {
    int64_t clear = 0;
    for (int i = 0; i < r->arch.linears; i++) {
        char at[96], name[128];
        int64_t n = r->q.scale[i].rows;
        snprintf(at, sizeof at, "%s/%s/%s", which, r->arch.linear[i].name, method);
        snprintf(name, sizeof name, "%s/scale", at);
        float *scale = floats(name, n), *zero = NULL, *gaps = NULL;
        snprintf(name, sizeof name, "%s/zero", at);
        if (r->q.zero[i].data) zero = floats(name, n);
        snprintf(name, sizeof name, "%s/gap", at);
        if (gap) gaps = floats(name, n);
        for (int64_t k = 0; k < n; k++) {
            if (gap && gaps[k] < 1e-5f) continue;
            clear++;
            if (bq_f32(r->q.scale[i])[k] != scale[k]) fail_msg("%s: scale %ld differs", at, (long)k);
            if (zero && bq_f32(r->q.zero[i])[k] != zero[k]) fail_msg("%s: zero %ld differs", at, (long)k);
        }
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
            rig_close(r);
        }
}

static void sequential_mse(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        rig *r = open_rig(cases[k].scheme);
        bq_pass_seqmse(&r->c, &(bq_seqmse_options){20});
        assert_int_equal(compare(r, cases[k].name, "seqmse", false), grids(r));
        rig_close(r);
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
    rig_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(clipping), cmocka_unit_test(sequential_mse),
                                       cmocka_unit_test(two_levels)};
    if (golden_open(&vectors, BQ_VECTORS "/search_tiny.safetensors")) return 1;
    int wrong = cmocka_run_group_tests(tests, NULL, NULL);
    golden_close(&vectors);
    return wrong;
}
