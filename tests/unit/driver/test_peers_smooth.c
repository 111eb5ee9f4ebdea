/* SmoothQuant, Auto-SmoothQuant and AWQ against llm-compressor and AMD Quark on a tiny Llama with loud
 * channels: statistics, losses, choices, scales, final weights.  Tolerances: tests/vectors/README.md. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "block/autosmooth.h"
#include "block/awq.h"
#include "block/rope.h"
#include "block/smooth.h"
#include "io/weights.h"

enum { SAMPLES = 6, TOKENS = 32, H = 64, BLOCKS = 2 };

typedef struct {
    bq_weights *file;
    bool mha;
    bq_dev dev;
    bq_arch arch;
    bq_block blk;
    bq_work work;
    bq_quantized q;
    bq_pass_context c;
    float stream[SAMPLES][TOKENS * H];
} rig;

static const bq_comm alone = {.size = 1, .locals = 1, .nstage = 1, .nreplica = 1};
static const bq_scheme w4g32 = {4, 32, false, BQ_F32, BQ_GRID_AIMET};

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    rig *r = ctx;
    assert_int_equal(stream, BQ_STREAM_FP);
    return bq_mat_host(r->stream[sample], TOKENS, H, BQ_F32);
}

static const bq_tensor *find(const rig *r, const char *name) {
    char full[200];
    snprintf(full, sizeof full, "init_mha/%s", name);
    const bq_tensor *t = r->mha ? bq_weights_find(r->file, full) : NULL;
    snprintf(full, sizeof full, "init/%s", name);
    if (!t) t = bq_weights_find(r->file, full);
    if (!t) fail_msg("no tensor '%s'", name);
    return t;
}

static void load(rig *r, int block) {
    char name[160];
    r->blk.folded = false;
    for (int i = 0; i < r->arch.linears; i++) {
        bq_arch_tensor(name, sizeof name, block, r->arch.linear[i].module, "weight");
        bq_weights_read(r->file, find(r, name), 0, r->arch.linear[i].rows,
                        bq_linear_view(&r->arch, i, r->blk.w));
    }
    for (int n = 0; n < 2; n++) {
        bq_arch_tensor(name, sizeof name, block, r->arch.norm[n], "weight");
        bq_weights_read(r->file, find(r, name), 0, 1, r->blk.norm[n]);
    }
}

static rig *open_rig(const char *vector, bool mha) {
    rig *r = calloc(1, sizeof *r);
    char path[400];
    int32_t ids[SAMPLES * TOKENS];
    float embed[97 * H];
    bq_scheme scheme[BQ_ARCH_LINEARS];
    bq_model m = {.family = bq_family_find("llama"),
                  .hidden = H,
                  .inter = 128,
                  .vocab = 97,
                  .blocks = BLOCKS,
                  .heads = 4,
                  .kv_heads = mha ? 4 : 2,
                  .head_dim = 16,
                  .eps = 1e-5,
                  .rope = {.dim = 16, .theta = 1e4, .attention = 1}};
    snprintf(path, sizeof path, BQ_VECTORS "/%s.safetensors", vector);
    assert_int_equal(bq_weights_open_file(&r->file, path), 0);
    r->mha = mha;
    bq_arch_of(&m, &r->arch);
    for (int i = 0; i < r->arch.linears; i++) scheme[i] = w4g32;
    assert_int_equal(bq_dev_open(&r->dev, "cpu", 2, (size_t)16 << 20), 0);
    bq_block_push(&r->blk, &r->arch, &r->dev.mem);
    bq_work_push(&r->work, &r->arch, TOKENS, false, &r->dev.mem);
    bq_quantized_push(&r->q, &r->arch, scheme, &r->dev.mem);
    bq_rope_table(&m.rope, BQ_ANGLES_HF, TOKENS, r->work.cos, r->work.sin);
    r->c = (bq_pass_context){.dev = &r->dev,
                             .blk = &r->blk,
                             .work = &r->work,
                             .q = &r->q,
                             .comm = &alone,
                             .samples = SAMPLES,
                             .tokens = TOKENS,
                             .fetch = fetch,
                             .ctx = r};
    bq_weights_read_raw(r->file, bq_weights_find(r->file, "tokens"), 0, ids, sizeof ids);
    bq_weights_read(r->file, find(r, "model.embed_tokens.weight"), 0, 97, bq_mat_host(embed, 97, H, BQ_F32));
    for (int i = 0; i < SAMPLES * TOKENS; i++)
        memcpy(&r->stream[i / TOKENS][i % TOKENS * H], embed + ids[i] * H, H * sizeof(float));
    load(r, 0);
    return r;
}

static void close_rig(rig *r) {
    bq_weights_close(r->file);
    bq_dev_close(&r->dev);
    free(r);
}

/* On to the next block through the original weights: the FP stream. */
static void advance(rig *r, int block) {
    load(r, block);
    for (int s = 0; s < SAMPLES; s++) {
        float y[TOKENS * H];
        bq_block_forward(&r->dev, &r->blk, r->blk.w, &r->work, fetch(r, BQ_STREAM_FP, s),
                         bq_mat_host(y, TOKENS, H, BQ_F32));
        memcpy(r->stream[s], y, sizeof y);
    }
    load(r, block + 1);
}

/* A vector of the file as f32, NULL when there is none. */
static float *vector(const rig *r, const char *case_name, const char *fmt, int block, int entry) {
    char tail[64], name[160];
    snprintf(tail, sizeof tail, fmt, block, entry);
    snprintf(name, sizeof name, "%s/%s", case_name, tail);
    const bq_tensor *t = bq_weights_find(r->file, name);
    if (!t) return NULL;
    float *v = malloc(t->bytes + 1);
    bq_weights_read_raw(r->file, t, 0, v, t->bytes);
    return v;
}

/* The largest |a - b| / |b|. */
static double relative(const float *a, const float *b, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]) / (fabs((double)b[i]) + 1e-30);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static void assert_close(const char *what, const float *a, const float *b, int64_t n, double limit) {
    double d = relative(a, b, n);
    if (!(d <= limit)) fail_msg("%s: off by %.3g", what, d);
}

/* Folded weights and norms of the block against final/. */
static void check_final(rig *r, const char *case_name, int block, double limit) {
    char name[200], module[160];
    for (int i = 0; i < r->arch.linears + 2; i++) {
        bool norm = i >= r->arch.linears;
        bq_mat have = norm ? r->blk.norm[i - r->arch.linears] : bq_linear_view(&r->arch, i, r->blk.w);
        bq_arch_tensor(module, sizeof module, block,
                       norm ? r->arch.norm[i - r->arch.linears] : r->arch.linear[i].module, "weight");
        snprintf(name, sizeof name, "%s/final/%s", case_name, module);
        const bq_tensor *t = bq_weights_find(r->file, name);
        if (!t) fail_msg("no '%s'", name);
        float *want = malloc(t->bytes);
        bq_weights_read_raw(r->file, t, 0, want, t->bytes);
        assert_int_equal(t->bytes, bq_mat_bytes(have));
        assert_close(name, have.data, want, have.rows * have.cols, limit);
        free(want);
    }
}

/* ---- SmoothQuant ---- */

static void smoothquant(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bq_smooth_form form;
    } cases[] = {{"alpha50", {BQ_SMOOTH_ALPHA, 0.5, 1e-5, 2, 0}},
                 {"alpha85", {BQ_SMOOTH_ALPHA, 0.85, 1e-5, 2, 0}},
                 {"log", {BQ_SMOOTH_LOG, 0.5, 1e-5, 2, 0}}};
    for (int k = 0; k < 3; k++) {
        rig *r = open_rig("peer_smoothquant", false);
        bq_smooth_options o = {BQ_CHANNEL_RANGE, cases[k].form, BQ_ENTRIES_NORMS, true};
        for (int b = 0; b < BLOCKS; b++) {
            bq_mat act[BQ_MATS];
            bq_channels_push(&r->dev, &r->arch, act);
            bq_channels(&r->c, BQ_CHANNEL_RANGE, act, (bq_onlooker){0});
            float norm[2][H];
            for (int n = 0; n < 2; n++) memcpy(norm[n], r->blk.norm[n].data, sizeof norm[n]);
            bq_pass_smoothquant(&r->c, &o);
            for (int e = 0; e < 2; e++) {
                float *range = vector(r, cases[k].name, "range/%d/%d", b, e), s[H];
                float *scale = vector(r, cases[k].name, "scale/%d/%d", b, e);
                for (int i = 0; i < H; i++) s[i] = norm[e][i] / bq_f32(r->blk.norm[e])[i];
                assert_close("range", act[e ? BQ_GATE_UP : BQ_QKV].data, range, H, 1e-5);
                assert_close("scale", s, scale, H, 1e-5);
                free(range), free(scale);
            }
            assert_true(r->blk.folded);
            if (k == 0) check_final(r, "alpha50", b, 1e-5);
            if (b + 1 < BLOCKS) advance(r, b);
        }
        close_rig(r);
    }
}

/* ---- the searches ---- */

/* Choice and losses of one entry.  A choice may differ where the peer's losses differ by less than `tie`. The
 * first candidate scales nothing: bfloat16 weights then lie on ties of their grids, which each rounds its own
 * way. */
static double check_entry(const char *what, const double *have, int best, const double *want, int n,
                          double limit, double tie) {
    int least = 0;
    double worst = 0;
    for (int i = 1; i < n; i++)
        if (want[i] < want[least]) least = i;
    for (int i = 0; i < n; i++) {
        double d = fabs(have[i] - want[i]) / want[i];
        if (!(d <= (i ? 2e-5 : limit))) fail_msg("%s: loss %d off by %.3g", what, i, d);
        if (!(d <= worst)) worst = d;
    }
    if (best != least && !(want[best] <= want[least] * (1 + tie)))
        fail_msg("%s: candidate %d, not %d", what, best, least);
    return worst;
}

/* The scale of entry m that was folded, from a norm or from rows of its producer, or from its own columns. */
static void folded_scale(const rig *r, int m, const bq_mat before, float *s) {
    for (int64_t c = 0; c < before.cols; c++) {
        int64_t row = 0;
        for (int64_t i = 1; i < before.rows; i++)
            if (fabsf(*(float *)bq_mat_at(before, i, c)) > fabsf(*(float *)bq_mat_at(before, row, c)))
                row = i;
        s[c] = *(float *)bq_mat_at(r->blk.w[m], row, c) / *(float *)bq_mat_at(before, row, c);
    }
}

/* Matrix 3 (down) and, with norms and o, matrices whose rows nobody divides: their columns show the scale. */
static void keep(const rig *r, int m, float *room, bq_mat *view) {
    *view = bq_mat_host(room, r->blk.w[m].rows, r->blk.w[m].cols, BQ_F32);
    memcpy(room, r->blk.w[m].data, bq_mat_bytes(*view));
}

static void check_scales(const rig *r, const char *name, int b, const bq_mat *before, bool late) {
    for (int m = 0; m < BQ_MATS; m++) {
        float s[128], *want = vector(r, name, "scale/%d/%d", b, m);
        bq_mat rows = before[m];
        if (!want) continue;
        if (m == BQ_QKV) rows.rows = 64; /* q: neither v nor up, whose rows are divided */
        if (m == BQ_GATE_UP) rows.rows = 128;
        folded_scale(r, m, rows, s);
        if (late && m == BQ_O) { /* the peer kept what it searched; what it applied is grouped */
            for (int c = 0; c < 64; c++) {
                int twin = c / 32 * 32 + c % 16;
                float most = want[twin] > want[twin + 16] ? want[twin] : want[twin + 16];
                assert_true(fabsf(s[c] - most) <= 2e-5f * most);
            }
        } else {
            assert_close("scale", s, want, rows.cols, 2e-5);
        }
        free(want);
    }
}

static float kept[BQ_MATS][256 * 128];

static void autosmooth(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool mha;
        bq_distance loss;
        bq_gqa gqa;
    } cases[] = {{"gqa_uint4_mae", false, BQ_DISTANCE_MAE, BQ_GQA_LATE},
                 {"gqa_uint4_mse", false, BQ_DISTANCE_MSE, BQ_GQA_LATE},
                 {"gqa_uint4_rmse", false, BQ_DISTANCE_RMSE, BQ_GQA_LATE},
                 {"mha_uint4_mae", true, BQ_DISTANCE_MAE, BQ_GQA_GROUP}};
    for (int k = 0; k < 4; k++) {
        rig *r = open_rig("peer_autosmooth", cases[k].mha);
        bq_autosmooth_options o = {cases[k].loss,
                                   cases[k].gqa,
                                   {BQ_INSPECT_MODULE, BQ_INSPECT_SELF, BQ_INSPECT_MODULE, BQ_INSPECT_SELF},
                                   16,
                                   BQ_SEARCH_ALL};
        double *losses = (double *)(void *)vector(r, cases[k].name, "losses", 0, 0), worst = 0;
        for (int b = 0; b < BLOCKS; b++) {
            bq_scales_result result;
            bq_mat before[BQ_MATS];
            for (int m = 0; m < BQ_MATS; m++) keep(r, m, kept[m], &before[m]);
            bq_pass_autosmooth(&r->c, &o, &result);
            for (int m = 0; m < BQ_MATS; m++) {
                double d = check_entry(cases[k].name, result.loss[m], result.best[m],
                                       losses + (b * BQ_MATS + m) * 10, 10, 1e-2, 1e-2);
                worst = d > worst ? d : worst;
            }
            check_scales(r, cases[k].name, b, before, cases[k].gqa == BQ_GQA_LATE);
            if (k == 0) check_final(r, cases[k].name, b, 2e-5);
            if (b + 1 < BLOCKS) advance(r, b);
        }
        print_message("%s: losses within %.1e\n", cases[k].name, worst);
        free(losses);
        close_rig(r);
    }
}

/* Scales and zero points of round to nearest on the prepared weights. */
static void check_grids(rig *r, const char *case_name, int block) {
    char name[200], module[160];
    bq_pass_rtn(&r->c);
    for (int i = 0; i < r->arch.linears; i++) {
        int64_t n = r->q.scale[i].rows, differ = 0;
        float scale[1024];
        int8_t zero[1024];
        bq_arch_tensor(module, sizeof module, block, r->arch.linear[i].module, "weight_scale");
        snprintf(name, sizeof name, "%s/final/%s", case_name, module);
        bq_weights_read_raw(r->file, bq_weights_find(r->file, name), 0, scale, (size_t)n * 4);
        bq_arch_tensor(module, sizeof module, block, r->arch.linear[i].module, "weight_zero_point");
        snprintf(name, sizeof name, "%s/final/%s", case_name, module);
        bq_weights_read_raw(r->file, bq_weights_find(r->file, name), 0, zero, (size_t)n);
        assert_close(name, r->q.scale[i].data, scale, n, 1e-5);
        for (int64_t g = 0; g < n; g++) differ += bq_f32(r->q.zero[i])[g] != (float)zero[g];
        assert_true(differ <= 1);
    }
}

static void awq(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool mha, duo;
    } cases[] = {{"duo_gqa", false, true}, {"plain_gqa", false, false}, {"duo_mha", true, true}};
    for (int k = 0; k < 3; k++) {
        rig *r = open_rig("peer_awq", cases[k].mha);
        bq_awq_options o = {.duo = cases[k].duo, .to_one = true, .gqa = BQ_GQA_SKIP};
        double worst = 0;
        for (int b = 0; b < BLOCKS; b++) {
            bq_scales_result result;
            bq_mat before[BQ_MATS];
            for (int m = 0; m < BQ_MATS; m++) keep(r, m, kept[m], &before[m]);
            bq_pass_awq(&r->c, &o, &result);
            for (int m = 0; m < BQ_MATS; m++) {
                double *losses = (double *)(void *)vector(r, cases[k].name, "losses/%d/%d", b, m);
                assert_int_equal(!losses, m == BQ_O && !cases[k].mha);
                if (!losses) continue;
                double d = check_entry(cases[k].name, result.loss[m], result.best[m], losses, 20, 1.5e-2, 0);
                worst = d > worst ? d : worst;
                free(losses);
            }
            check_scales(r, cases[k].name, b, before, false);
            if (k == 0) check_final(r, cases[k].name, b, 1e-5);
            if (k == 0) check_grids(r, cases[k].name, b);
            if (b + 1 < BLOCKS) advance(r, b);
        }
        print_message("%s: losses within %.1e\n", cases[k].name, worst);
        close_rig(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(smoothquant), cmocka_unit_test(autosmooth),
                                       cmocka_unit_test(awq)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
