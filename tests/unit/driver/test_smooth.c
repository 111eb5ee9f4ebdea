/* SPDX-License-Identifier: Apache-2.0 */
/* The scale search and the clip search against plain numpy (tests/vectors/make_smooth.py), where no peer does
 * just so: scales grouped before the loss, the whole block inspected, limits of rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "block/passes/autosmooth.h"
#include "block/passes/awq.h"
#include "block/model/rope.h"
#include "block/passes/smooth.h"
#include "io/in/weights.h"
#include "rig.h"

enum { SAMPLES = 3, TOKENS = 12, H = 32, INTER = 48 };
static const char *const mats[RIG_SITES] = {"qkv", "o", "gate_up", "down"};

static bq_weights *file; /* of golden vectors */

static void get(const char *prefix, const char *name, void *to, size_t bytes) {
    char full[80];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const bq_tensor *t = bq_weights_find(file, full);
    if (!t) fail_msg("no '%s'", full);
    assert_int_equal(t->bytes, bytes);
    bq_weights_read_raw(file, t, 0, to, bytes);
}

static rig *open_rig(void) {
    static const bq_scheme w3 = {3, 16, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
    rig *r = rig_open(&(rig_spec){
        .model = {bq_family_find("llama"), H, INTER, .heads = 4, .kv_heads = 2, .blocks = 1, .bias = true},
        .scheme = &w3,
        .samples = SAMPLES,
        .tokens = TOKENS,
        .noise = {1},
        .pre = true});
    bq_rope_table(&r->arch.model.rope, BQ_ANGLES_EXACT, TOKENS, r->work.cos[0], r->work.sin[0]);
    for (int k = 0; k < RIG_SITES; k++) {
        get("init/", mats[k], r->blk.w[k].data, bq_mat_bytes(r->blk.w[k]));
        get("init/b_", mats[k], r->blk.bias[k].data, bq_mat_bytes(r->blk.bias[k]));
    }
    get("init/", "norm1", r->blk.norm[0].data, H * sizeof(float));
    get("init/", "norm2", r->blk.norm[1].data, H * sizeof(float));
    get("", "x", r->stream[BQ_STREAM_FP], SAMPLES * TOKENS * H * sizeof(float));
    return r;
}

/* As positive() of make_smooth.py: no input of a matrix is below 0. */
static void make_positive(rig *r) {
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < H; i++) bq_f32(r->blk.norm[n])[i] = fabsf(bq_f32(r->blk.norm[n])[i]);
    r->dev.op->scale(&r->dev, r->blk.w[BQ_O], 1.0f / 256, r->blk.w[BQ_O]);
    for (int i = 48; i < 64; i++) bq_f32(r->blk.bias[BQ_QKV])[i] += 64; /* of v */
    for (int i = 0; i < 2 * INTER; i++) bq_f32(r->blk.bias[BQ_GATE_UP])[i] += 64;
    float *x = r->stream[BQ_STREAM_FP];
    for (int i = 0; i < SAMPLES * TOKENS * H; i++) x[i] = fabsf(x[i]) + 1;
}

static void statistics(void **state) {
    (void)state;
    rig *r = open_rig();
    bq_mat act[RIG_SITES];
    bq_channels_push(&r->dev, &r->arch, act);
    bq_channels(&r->c, BQ_CHANNEL_ABSMAX, act, (bq_onlooker){0});
    for (int m = 0; m < RIG_SITES; m++) {
        float want[INTER];
        get("act/", mats[m], want, bq_mat_bytes(act[m]));
        for (int64_t i = 0; i < act[m].cols; i++)
            assert_true(fabsf(bq_f32(act[m])[i] - want[i]) <= 1e-5f * fabsf(want[i]));
    }
    rig_close(r);
}

/* Runner-up losses are 0.3 % away and more, so the choice is equal. */
static void searches(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bq_gqa gqa;
        bq_inspect qkv, o;
        int activations;
    } cases[] = {{"losses/block/", BQ_GQA_GROUP, BQ_INSPECT_BLOCK, BQ_INSPECT_BLOCK, 16},
                 {"losses/module/", BQ_GQA_GROUP, BQ_INSPECT_MODULE, BQ_INSPECT_SELF, 16},
                 {"losses/module/", BQ_GQA_GROUP, BQ_INSPECT_MODULE, BQ_INSPECT_MODULE, 16},
                 {"losses/late/", BQ_GQA_LATE, BQ_INSPECT_MODULE, BQ_INSPECT_SELF, 16},
                 {"losses/rounded/", BQ_GQA_GROUP, BQ_INSPECT_MODULE, BQ_INSPECT_SELF, 8}};
    for (int k = 0; k < 5; k++) {
        rig *r = open_rig();
        bq_autosmooth_options o = {BQ_DISTANCE_MSE,
                                   cases[k].gqa,
                                   {cases[k].qkv, cases[k].o, cases[k].qkv, cases[k].o},
                                   cases[k].activations,
                                   BQ_SEARCH_ALL};
        bq_scales_result result;
        double worst = 0;
        if (cases[k].activations == 8) make_positive(r);
        bq_pass_autosmooth(&r->c, &o, &result);
        for (int m = 0; m < RIG_SITES; m++) {
            double want[10];
            int least = 0;
            get(cases[k].name, mats[m], want, sizeof want);
            for (int i = 0; i < 10; i++) {
                worst = fmax(worst, fabs(result.loss[m][i] / want[i] - 1));
                if (want[i] < want[least]) least = i;
            }
            assert_int_equal(result.best[m], least);
        }
        print_message("%s %d: losses within %.1e\n", cases[k].name, k, worst);
        assert_true(worst <= 1e-4);
        rig_close(r);
    }
}

/* Factors of each linear beside its weights: what they are, and a block of rounded weights and inputs. */
static void kept(void **state) {
    (void)state;
    static const char *const names[] = {"q", "k", "v", "o", "gate", "up", "down"};
    rig *r = open_rig();
    const bq_smooth_form form = {BQ_SMOOTH_ALPHA, 0.5, 1e-5, 1, 1e-5};
    bq_smooth_options o = {BQ_CHANNEL_ABSMAX, form, BQ_ENTRIES_ALL, false};
    make_positive(r);
    bq_pass_smoothquant(&r->c, &o);
    for (int i = 0; i < 7; i++) {
        float want[INTER];
        get("pre/", names[i], want, bq_mat_bytes(r->q.pre[i]));
        for (int64_t c = 0; c < r->q.pre[i].cols; c++)
            assert_true(fabsf(bq_f32(r->q.pre[i])[c] / want[c] - 1) <= 1e-5f);
    }
    bq_pass_rtn(&r->c);
    r->work.inputs = bq_rounding_of_tokens(8);
    static float have[TOKENS * H], want[SAMPLES][TOKENS * H];
    get("", "prescaled", want, sizeof want);
    double wrong = 0, all = 0;
    for (int s = 0; s < SAMPLES; s++) {
        bq_block_forward(&r->dev, &r->blk, r->q.w_hat, &r->work, rig_fetch(r, BQ_STREAM_FP, s),
                         bq_mat_host(have, TOKENS, H, BQ_F32));
        for (int i = 0; i < TOKENS * H; i++) {
            double d = (double)have[i] - (double)want[s][i];
            wrong += d * d, all += (double)want[s][i] * (double)want[s][i];
        }
    }
    print_message("a block with factors: relative error %.1e\n", sqrt(wrong / all));
    assert_true(wrong <= 1e-10 * all);
    rig_close(r);
}

/* The best two limits are 0.02 % apart and more, or give the very same weights, and then the wider one is
 * right. */
static void clipping(void **state) {
    (void)state;
    rig *r = open_rig();
    float before[48 * H];
    memcpy(before, r->blk.w[BQ_QKV].data, sizeof before);
    bq_awq_clip(&r->c);
    assert_memory_equal(before, r->blk.w[BQ_QKV].data, sizeof before); /* queries and keys */
    for (int m = 0; m < RIG_SITES; m++) {
        static float want[2 * INTER * H];
        bq_mat w = r->blk.w[m];
        get("clip/", mats[m], want, bq_mat_bytes(w));
        for (int64_t row = m == BQ_QKV ? 48 : 0; row < w.rows; row++)
            for (int64_t c = 0; c < w.cols; c++) {
                float have = *(float *)bq_mat_at(w, row, c), there = want[row * w.cols + c];
                assert_true(fabsf(have - there) <= 1e-6f * fabsf(there));
            }
    }
    rig_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(statistics), cmocka_unit_test(searches),
                                       cmocka_unit_test(kept), cmocka_unit_test(clipping)};
    if (bq_weights_open(&file, BQ_VECTORS "/smooth.safetensors")) return 1;
    int wrong = cmocka_run_group_tests(tests, NULL, NULL);
    bq_weights_close(file);
    return wrong;
}
