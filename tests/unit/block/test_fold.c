/* SPDX-License-Identifier: Apache-2.0 */
/* Smoothing passes: the block's function stays, the scales are where the formula says, nothing depends on
 * family, threads or luck. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "smooth_rig.h"

/* ---- a block in double precision, from the float weights ---- */

static double weight(bq_mat m, int64_t r, int64_t c) { return (double)*(float *)bq_mat_at(m, r, c); }

static void norm_of(const double *x, bq_mat w, double *y) {
    for (int t = 0; t < TOKENS; t++) {
        double sum = 0;
        for (int i = 0; i < H; i++) sum += x[t * H + i] * x[t * H + i];
        for (int i = 0; i < H; i++) y[t * H + i] = x[t * H + i] / sqrt(sum / H + 1e-5) * weight(w, 0, i);
    }
}

/* The linear that row r of matrix m belongs to. */
static int linear_at(const bq_arch *arch, int m, int64_t r) {
    for (int i = 0;; i++) {
        const int64_t first = arch->linear[i].row;
        if (arch->linear[i].site == m && r >= first && r < first + arch->linear[i].rows) return i;
    }
}

/* What weight c of row r of matrix m is worth, with the factor of its input. */
static double worth(const bq_block *b, int m, int64_t r, int64_t c) {
    return weight(b->w[m], r, c) * (b->pre ? weight(b->pre[linear_at(b->arch, m, r)], 0, c) : 1);
}

static void linear_of(const bq_block *b, int m, const double *x, double *y) {
    int64_t rows = b->w[m].rows, cols = b->w[m].cols;
    for (int t = 0; t < TOKENS; t++)
        for (int64_t r = 0; r < rows; r++) {
            y[t * rows + r] = b->bias[m].data ? weight(b->bias[m], 0, r) : 0;
            for (int64_t c = 0; c < cols; c++) y[t * rows + r] += x[t * cols + c] * worth(b, m, r, c);
        }
}

static void rotate(const bq_work *k, double *head, int t) {
    for (int i = 0; i < HEAD / 2; i++) {
        double c = weight(k->cos[0], t, i), s = weight(k->sin[0], t, i), a = head[i], b = head[i + HEAD / 2];
        head[i] = a * c - b * s, head[i + HEAD / 2] = b * c + a * s;
    }
}

enum { QKV = (HEADS + 2 * KV) * HEAD };

static void attention_of(const double *qkv, double *o) {
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < HEADS; h++) {
            double p[TOKENS], sum = 0;
            int kv = h * KV / HEADS;
            for (int j = 0; j <= t; j++) {
                p[j] = 0;
                for (int i = 0; i < HEAD; i++)
                    p[j] += qkv[t * QKV + h * HEAD + i] * qkv[j * QKV + (HEADS + kv) * HEAD + i];
                sum += p[j] = exp(p[j] / sqrt(HEAD));
            }
            for (int i = 0; i < HEAD; i++) {
                double *to = &o[(t * HEADS + h) * HEAD + i];
                *to = 0;
                for (int j = 0; j <= t; j++) *to += p[j] / sum * qkv[j * QKV + (HEADS + KV + kv) * HEAD + i];
            }
        }
}

static void oracle(const rig *r, const bq_block *b, const float *input, double *y) {
    static double x[TOKENS * H], a[TOKENS * H], qkv[TOKENS * QKV], o[TOKENS * H], gu[TOKENS * 2 * INTER],
        z[TOKENS * INTER];
    for (int i = 0; i < TOKENS * H; i++) x[i] = (double)input[i];
    norm_of(x, b->norm[0], a);
    linear_of(b, BQ_QKV, a, qkv);
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < HEADS + KV; h++) rotate(&r->work, &qkv[t * QKV + h * HEAD], t);
    attention_of(qkv, o);
    linear_of(b, BQ_O, o, a);
    for (int i = 0; i < TOKENS * H; i++) x[i] += a[i];
    norm_of(x, b->norm[1], a);
    linear_of(b, BQ_GATE_UP, a, gu);
    for (int i = 0; i < TOKENS * INTER; i++) {
        double g = gu[i / INTER * 2 * INTER + i % INTER];
        z[i] = g / (1 + exp(-g)) * gu[i / INTER * 2 * INTER + INTER + i % INTER];
    }
    linear_of(b, BQ_DOWN, z, y);
    for (int i = 0; i < TOKENS * H; i++) y[i] += x[i];
}

/* ---- folds ---- */

/* max |a - b| / max |b| of the block's output before and after, in double. */
static double drift(const rig *r, const float *x) {
    double a[TOKENS * H], b[TOKENS * H], worst = 0, most = 0;
    oracle(r, &r->blk, x, a);
    oracle(r, &r->original, x, b);
    for (int i = 0; i < TOKENS * H; i++) {
        worst = fmax(worst, fabs(a[i] - b[i])), most = fmax(most, fabs(b[i]));
        if (isnan(a[i])) worst = INFINITY;
    }
    return worst / most;
}

/* The same of the program's own forward. */
static double forward_drift(rig *r, const bq_block *a, const bq_block *b, int sample) {
    float y[2][TOKENS * H];
    double worst = 0, most = 0;
    const bq_block *blk[2] = {a, b};
    for (int k = 0; k < 2; k++)
        bq_block_forward(&r->dev, blk[k], blk[k]->w, &r->work, rig_fetch(r, BQ_STREAM_FP, sample),
                         bq_mat_host(y[k], TOKENS, H, BQ_F32));
    for (int i = 0; i < TOKENS * H; i++) {
        worst = fmax(worst, fabs((double)y[0][i] - (double)y[1][i]));
        most = fmax(most, fabs((double)y[1][i]));
    }
    return worst / most;
}

/* Does the oracle compute such a block? */
static bool like_llama(const bq_arch *a) {
    return a->norm[BQ_NORM_MLP] && !a->norm[BQ_NORM_O] && !a->norm[BQ_NORM_Q] && !a->norm[BQ_NORM_KV_A];
}

static void folds_keep_the_block(void **state) {
    (void)state;
    for (int k = 0; bq_family_at(k / 2 / BQ_SITES); k++) {
        int exact = k / BQ_SITES % 2, m = k % BQ_SITES, family = k / 2 / BQ_SITES;
        bq_arch arch = rig_arch((rig_model){family, H, INTER, HEADS, KV, .bias = true});
        if (m >= arch.sites || arch.sites < 4 || !bq_fusion_there(bq_fusion_of(&arch, m))) continue;
        rig *r = smooth_open(family, 1, w4);
        float s[INTER];
        rig_noise_fill(s, INTER, 5, (uint32_t)m);
        for (int i = 0; i < INTER; i++) /* powers of two round nowhere */
            s[i] = exact ? ldexpf(1, (int)(8 * s[i])) : expf(4 * s[i]);
        bq_mat scale = bq_mat_host(s, 1, r->arch.site[m].cols, BQ_F32);
        bq_fold_group(&r->dev, &r->arch, m, scale);
        bq_fold_apply(&r->dev, &r->blk, m, scale);
        assert_true(r->blk.folded);
        assert_true(memcmp(r->blk.w[m].data, r->original.w[m].data, bq_mat_bytes(r->blk.w[m])) != 0);
        if (like_llama(&r->arch))
            assert_true(drift(r, rig_sample(r, BQ_STREAM_FP, 2)) <= (exact ? 1e-12 : 1e-5));
        assert_true(forward_drift(r, &r->blk, &r->original, 2) <= 1e-5);
        rig_close(r);
    }
}

/* An ungrouped scale of o cannot be hidden in v: the test above would notice. */
static void heads_need_one_scale(void **state) {
    (void)state;
    rig *r = smooth_open(bq_family_find("llama"), 1, w4);
    float s[H];
    for (int i = 0; i < H; i++) s[i] = ldexpf(1, i / HEAD);
    bq_mat scale = bq_mat_host(s, 1, H, BQ_F32);
    bq_fold_apply(&r->dev, &r->blk, BQ_O, scale);
    assert_true(drift(r, rig_sample(r, BQ_STREAM_FP, 0)) > 1e-2);
    bq_fold_group(&r->dev, &r->arch, BQ_O, scale);
    for (int i = 0; i < H; i++) assert_true(s[i] == (i / HEAD < 2 ? 2 : 8));
    rig_close(r);
}

static void passes_keep_the_block(void **state) {
    (void)state;
    for (int v = 0; v < SMOOTH_CLIP; v++) {
        rig *r = smooth_open(bq_family_find("llama"), 1, w4g8);
        bq_scales_result result;
        smooth_pass(r, v, &result);
        for (int s = 0; s < SAMPLES; s++) assert_true(forward_drift(r, &r->blk, &r->original, s) <= 1e-5);
        assert_true(r->blk.folded);
        rig_close(r);
    }
}

/* ---- passes ---- */

/* The same weights under other names, on other threads, and the same numbers from the stream that the phase's
 * inputs choose (rig_fetch demands it), give the same bytes. */
static void families_and_threads_agree(void **state) {
    (void)state;
    for (int v = 0; v < SMOOTH_ALL; v++) {
        uint64_t want = 0;
        for (int k = 0; k < 3; k++) {
            rig *r =
                smooth_open(k == 1 && v < 8 ? bq_family_find("phi3") : bq_family_find("llama"), 1 + k, w4g8);
            bq_scales_result result;
            smooth_input(r, (bq_inputs)k);
            smooth_pass(r, v, &result);
            if (k == 0) want = rig_block_hash(r);
            assert_true(rig_block_hash(r) == want);
            rig_close(r);
        }
    }
}

/* MIT's formula at q, k, v, and what entries leaves alone. */
static void smoothquant_by_hand(void **state) {
    (void)state;
    rig *r = smooth_open(bq_family_find("llama"), 1, w4);
    double act[H] = {0};
    for (int s = 0; s < SAMPLES; s++) {
        double x[TOKENS * H], a[TOKENS * H];
        for (int i = 0; i < TOKENS * H; i++) x[i] = (double)rig_sample(r, BQ_STREAM_FP, s)[i];
        norm_of(x, r->original.norm[0], a);
        for (int i = 0; i < TOKENS * H; i++) act[i % H] = fmax(act[i % H], fabs(a[i]));
    }
    bq_smooth_options o = {BQ_CHANNEL_ABSMAX, alpha_half, BQ_ENTRIES_NORMS, true};
    bq_pass_smoothquant(&r->c, &o);
    for (int i = 0; i < H; i++) {
        double most = 0;
        for (int64_t row = 0; row < QKV; row++)
            most = fmax(most, fabs(weight(r->original.w[BQ_QKV], row, i)));
        double want = sqrt(act[i] / most);
        assert_true(fabs(weight(r->original.norm[0], 0, i) / weight(r->blk.norm[0], 0, i) / want - 1) < 1e-5);
    }
    assert_memory_equal(r->blk.w[BQ_O].data, r->original.w[BQ_O].data, bq_mat_bytes(r->blk.w[BQ_O]));
    assert_memory_equal(r->blk.w[BQ_DOWN].data, r->original.w[BQ_DOWN].data, bq_mat_bytes(r->blk.w[BQ_DOWN]));
    rig_close(r);
}

/* Factors that are kept: each linear's by its own weights, and nothing else of the block is changed. */
static void kept_by_hand(void **state) {
    (void)state;
    for (int all = 0; all < 2; all++) {
        rig *r = smooth_open(bq_family_find("llama"), 1, w4);
        bq_mat act[RIG_SITES];
        bq_channels_push(&r->dev, &r->arch, act);
        bq_channels(&r->c, BQ_CHANNEL_ABSMAX, act, (bq_onlooker){0});
        bq_smooth_options o = {BQ_CHANNEL_ABSMAX, alpha_half, all ? BQ_ENTRIES_ALL : BQ_ENTRIES_NORMS, false};
        bq_pass_smoothquant(&r->c, &o);
        assert_true(r->blk.pre == r->q.pre && !r->blk.folded);
        for (int n = 0; n < 2; n++)
            assert_memory_equal(r->blk.norm[n].data, r->original.norm[n].data, bq_mat_bytes(r->blk.norm[n]));
        for (int i = 0; i < r->arch.linears; i++) {
            const bq_linear *l = &r->arch.linear[i];
            bool out = !all && (l->site == BQ_O || l->site == BQ_DOWN);
            for (int64_t c = 0; c < l->cols; c++) {
                double most = 0, pre = weight(r->blk.pre[i], 0, c);
                for (int64_t row = l->row; row < l->row + l->rows; row++) {
                    double w = weight(r->original.w[l->site], row, c);
                    most = fmax(most, fabs(w));
                    assert_true(fabs(worth(&r->blk, l->site, row, c) - w) <= 1.2e-7 * fabs(w));
                }
                double want = out ? 1 : sqrt(most / weight(act[l->site], 0, c));
                assert_true(fabs(pre / want - 1) < (out ? 1e-30 : 1e-5));
            }
        }
        for (int s = 0; s < SAMPLES; s++) {
            assert_true(drift(r, rig_sample(r, BQ_STREAM_FP, s)) <= 1e-5);
            assert_true(forward_drift(r, &r->blk, &r->original, s) <= 1e-5);
        }
        rig_close(r);
    }
}

/* Powers of two round nowhere: the same function. */
static void kept_factors_keep_the_block(void **state) {
    (void)state;
    for (int family = 0; bq_family_at(family); family++) {
        if (strstr("mixtral gpt_oss", bq_family_at(family)->type)) continue; /* they have experts alone */
        rig *r = smooth_open(family, 1, w4);
        r->blk.pre = r->q.pre;
        for (int i = 0; i < r->arch.linears; i++) {
            bq_mat w = bq_linear_view(&r->arch, i, r->blk.w), pre = r->blk.pre[i];
            for (int64_t c = 0; c < pre.cols; c++)
                bq_f32(pre)[c] = ldexpf(1, (int)(8 * rig_noise(5, (uint32_t)i, (uint32_t)c)));
            r->dev.op->over_columns(&r->dev, w, pre, w);
        }
        for (int s = 0; s < SAMPLES; s++) {
            if (like_llama(&r->arch)) assert_true(drift(r, rig_sample(r, BQ_STREAM_FP, s)) <= 1e-12);
            assert_true(forward_drift(r, &r->blk, &r->original, s) <= 1e-5);
        }
        r->blk.pre = NULL; /* the test would notice */
        assert_true(forward_drift(r, &r->blk, &r->original, 0) > 1e-2);
        rig_close(r);
    }
}

/* Ratio 0 tries round to nearest of the weights as they are, and no choice is worse than that. */
static void ratio_zero_is_no_smoothing(void **state) {
    (void)state;
    rig *r = smooth_open(bq_family_find("llama"), 1, w4g8);
    bq_scales_result result;
    smooth_pass(r, 5, &result); /* the whole block is inspected */
    rig *plain = smooth_open(bq_family_find("llama"), 1, w4g8);
    bq_pass_rtn(&plain->c);
    for (int m = 0; m < RIG_SITES; m++) {
        double sum = 0;
        bq_mat w[RIG_SITES];
        for (int k = 0; k < RIG_SITES; k++) w[k] = k == m ? plain->q.w_hat[k] : plain->blk.w[k];
        for (int s = 0; s < SAMPLES; s++) {
            float y[2][TOKENS * H];
            for (int k = 0; k < 2; k++)
                bq_block_forward(&plain->dev, &plain->blk, k ? w : plain->blk.w, &plain->work,
                                 rig_fetch(plain, BQ_STREAM_FP, s), bq_mat_host(y[k], TOKENS, H, BQ_F32));
            for (int i = 0; i < TOKENS * H; i++) sum += fabs((double)y[0][i] - (double)y[1][i]);
        }
        sum /= SAMPLES * TOKENS * H;
        assert_true(fabs(result.loss[m][0] - sum) <= 1e-6 * sum);
        assert_true(result.best[m] >= 0 && result.loss[m][result.best[m]] <= result.loss[m][0]);
        for (int k = 0; k < result.best[m]; k++)
            assert_true(result.loss[m][k] > result.loss[m][result.best[m]]);
    }
    rig_close(plain);
    rig_close(r);
}

/* Losses that are no numbers choose nothing, and nothing is changed. */
static void nan_changes_nothing(void **state) {
    (void)state;
    for (int v = SMOOTH_SEARCH; v < SMOOTH_CLIP; v++) {
        rig *r = smooth_open(bq_family_find("llama"), 1, w4);
        uint64_t before = rig_block_hash(r);
        bq_scales_result result;
        for (int i = 0; i < TOKENS * H; i++) rig_sample(r, BQ_STREAM_FP, 3)[i] = NAN;
        smooth_pass(r, v, &result);
        for (int m = 0; m < RIG_SITES; m++) assert_int_equal(result.best[m], -1);
        assert_true(rig_block_hash(r) == before && !r->blk.folded);
        rig_close(r);
    }
}

static void a_stop_changes_nothing(void **state) {
    (void)state;
    volatile sig_atomic_t stop = 1;
    for (int v = SMOOTH_SEARCH; v < SMOOTH_VARIANTS; v++) {
        rig *r = smooth_open(bq_family_find("llama"), 1, w4);
        uint64_t before = rig_block_hash(r);
        bq_scales_result result;
        r->c.stop = &stop, r->c.samples = v % 2 ? 1 : SAMPLES; /* of one sample a round, and empty ones */
        assert_int_equal(smooth_pass(r, v, &result), BQ_PASS_STOPPED);
        assert_true(rig_block_hash(r) == before && !r->blk.folded);
        rig_close(r);
    }
}

/* Clamping lowers what round to nearest does to the outputs of o and down, and leaves q and k alone. */
static void clipping_helps(void **state) {
    (void)state;
    rig *r = smooth_open(bq_family_find("llama"), 1, (bq_scheme){3, 8, true, BQ_F32, BQ_GRID_AIMET, 1, 0});
    double error[2][RIG_SITES] = {{0}};
    for (int clip = 0; clip < 2; clip++) {
        if (clip) bq_awq_clip(&r->c);
        bq_pass_rtn(&r->c);
        for (int s = 0; s < SAMPLES; s++) {
            float y[TOKENS * H];
            bq_block_forward(&r->dev, &r->original, r->original.w, &r->work, rig_fetch(r, BQ_STREAM_FP, s),
                             bq_mat_host(y, TOKENS, H, BQ_F32));
            const bq_mat in[2] = {r->work.o, r->work.z};
            for (int k = 0; k < 2; k++)
                for (int64_t t = 0; t < TOKENS; t++)
                    for (int64_t row = 0; row < H; row++) {
                        double d = 0;
                        int m = k ? BQ_DOWN : BQ_O;
                        for (int64_t c = 0; c < in[k].cols; c++)
                            d += weight(in[k], t, c) *
                                 (weight(r->q.w_hat[m], row, c) - weight(r->original.w[m], row, c));
                        error[clip][m] += d * d;
                    }
        }
    }
    assert_true(error[1][BQ_O] < 0.9 * error[0][BQ_O] && error[1][BQ_DOWN] < 0.9 * error[0][BQ_DOWN]);
    size_t qk = (size_t)((HEADS + KV) * HEAD * H) * sizeof(float);
    assert_memory_equal(r->blk.w[BQ_QKV].data, r->original.w[BQ_QKV].data, qk);
    assert_memory_not_equal((char *)r->blk.w[BQ_QKV].data + qk, (char *)r->original.w[BQ_QKV].data + qk,
                            (size_t)(KV * HEAD * H) * sizeof(float));
    assert_false(r->blk.folded);
    rig_close(r);
}

/* The plan's bytes cover what is taken, and not much more. */
static void needs_cover(void **state) {
    (void)state;
    for (int v = 0; v < SMOOTH_ALL; v++) {
        rig *r = smooth_open(bq_family_find("llama"), 1, w4g8);
        bq_scales_result result;
        size_t before = rig_watch(r), scratch = bq_op_scratch(TOKENS, r->arch.attention, 1);
        smooth_pass(r, v, &result);
        assert_int_equal(r->dev.mem.used, before);
        size_t need = smooth_need(r, v);
        assert_true(rig_taken(r) <= need + scratch);
        if (v != SMOOTH_CLIP) assert_true(rig_taken(r) >= need / 2);
        rig_close(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folds_keep_the_block),  cmocka_unit_test(heads_need_one_scale),
        cmocka_unit_test(passes_keep_the_block), cmocka_unit_test(families_and_threads_agree),
        cmocka_unit_test(smoothquant_by_hand),   cmocka_unit_test(ratio_zero_is_no_smoothing),
        cmocka_unit_test(nan_changes_nothing),   cmocka_unit_test(a_stop_changes_nothing),
        cmocka_unit_test(clipping_helps),        cmocka_unit_test(needs_cover),
        cmocka_unit_test(kept_by_hand),          cmocka_unit_test(kept_factors_keep_the_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
