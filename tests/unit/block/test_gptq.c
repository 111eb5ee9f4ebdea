/* SPDX-License-Identifier: Apache-2.0 */
/* The gptq pass on a small random block: what it leaves, and what its options do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/num.h"
#include "block/common/gram.h"
#include "gptq_rig.h"

static const bq_scheme w4[] = {{4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0}},
                       w3[] = {{3, 16, true, BQ_F32, BQ_GRID_AIMET, 1, 0}};
static const bq_shrink ends = {100, 80, BQ_NORM_24};
static const bq_gptq_options plain = {.damp = 0.01, .order = BQ_ORDER_ACT, .clip = BQ_CLIP_HESSIAN};

/* sum |X (w - what)^T|^2 of matrix m over the samples, X what the unquantized block feeds it from a stream.
 */
static double output_error(rig *r, int m, const bq_mat *against, bq_inputs stream) {
    bq_pass_context c = r->c;
    c.input = stream;
    size_t mark = bq_arena_mark(&r->dev.mem);
    bq_gram g;
    bq_gram_push(&g, &r->arch, (bq_gram_set){.first = m, .sites = 1}, &r->dev.mem);
    bq_gram_collect(&c, r->blk.w, (bq_gram_set){.first = m, .sites = 1}, &g);
    double sum = 0;
    int64_t k = r->arch.site[m].cols;
    for (int64_t n = 0; n < r->arch.site[m].rows; n++) {
        const float *w = bq_mat_at(r->blk.w[m], n, 0), *q = bq_mat_at(against[m], n, 0);
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < k; j++)
                sum += ((double)w[i] - (double)q[i]) * (double)bq_f32(g.h[m])[i * k + j] *
                       ((double)w[j] - (double)q[j]);
    }
    bq_arena_reset(&r->dev.mem, mark);
    return sum;
}

static void codes_are_those_of_fold(void **state) {
    (void)state;
    rig *r = gptq_open(rig_mixed, 5, 2);
    for (int n = 0; n < 9; n++) {
        bq_gptq_options o = {
            .damp = 0.01, .order = (bq_order)(n % 3), .clip = (bq_clip)(n / 3), .ends = ends};
        gptq_run(r, &o);
        for (int i = 0; i < r->arch.linears; i++) {
            bq_mat fold = bq_linear_grouped(&r->arch, r->q.scheme, i, r->q.fold),
                   what = bq_linear_grouped(&r->arch, r->q.scheme, i, r->q.w_hat);
            for (int64_t g = 0; g < fold.rows; g++) {
                float s = bq_f32(r->q.scale[i])[g];
                if (r->q.scheme[i].scale == BQ_BF16) assert_true(s == bq_from_bf16(bq_to_bf16(s)));
                for (int64_t c = 0; c < fold.cols; c++)
                    assert_true(fabsf(*(float *)bq_mat_at(fold, g, c) - *(float *)bq_mat_at(what, g, c)) <=
                                0.5001f * s);
            }
        }
    }
    rig_close(r);
}

static void every_matrix_gains(void **state) {
    (void)state;
    for (int groups = 0; groups < 2; groups++) {
        for (int n = 0; n < 9; n++) {
            rig *r = gptq_open(groups ? w3 : w4, 1, 2);
            bq_gptq_options o = {
                .damp = 0.01, .order = (bq_order)(n % 3), .clip = (bq_clip)(n / 3), .ends = ends};
            double rounded[RIG_SITES];
            bq_pass_rtn(&r->c);
            for (int m = 0; m < RIG_SITES; m++) rounded[m] = output_error(r, m, r->q.w_hat, BQ_INPUTS_QT);
            gptq_run(r, &o);
            for (int m = 0; m < RIG_SITES; m++)
                assert_true(output_error(r, m, r->q.w_hat, BQ_INPUTS_QT) < 0.95 * rounded[m]);
            rig_close(r);
        }
    }
}

/* Sums over samples as x^T x of all tokens; the cross moments against their definition. */
static void moments_are_sums(void **state) {
    (void)state;
    rig *r = gptq_open(w4, 1, 1);
    double *want[2] = {calloc(H * H, sizeof(double)), calloc(H * H, sizeof(double))};
    bq_mat a[2] = {bq_arena_push(&r->dev.mem, TOKENS, H, BQ_F32),
                   bq_arena_push(&r->dev.mem, TOKENS, H, BQ_F32)};
    for (int s = 0; s < SAMPLES; s++) {
        for (int k = 0; k < 2; k++)
            r->dev.op->rmsnorm(&r->dev, rig_fetch(r, k ? BQ_STREAM_QT : BQ_STREAM_FP, s), r->blk.norm[0],
                               1e-5f, a[k]);
        for (int t = 0; t < TOKENS; t++)
            for (int i = 0; i < H; i++)
                for (int j = 0; j < H; j++) {
                    double fp = (double)bq_f32(a[0])[t * H + i], qt = (double)bq_f32(a[1])[t * H + i],
                           other = (double)bq_f32(a[1])[t * H + j];
                    want[0][i * H + j] += qt * other, want[1][i * H + j] += (fp - qt) * other;
                }
    }
    r->c.input = BQ_INPUTS_MIX;
    bq_gram g;
    bq_gram_set set = {0, RIG_SITES, true, BQ_F32};
    bq_gram_push(&g, &r->arch, set, &r->dev.mem);
    bq_gram_collect(&r->c, r->blk.w, set, &g);
    double error[2] = {0}, power[2] = {0};
    for (int i = 0; i < H * H; i++) {
        const float got[2] = {bq_f32(g.h[BQ_QKV])[i], bq_f32(g.cross[BQ_QKV])[i]};
        for (int k = 0; k < 2; k++) {
            error[k] += pow((double)got[k] - want[k][i], 2), power[k] += want[k][i] * want[k][i];
        }
    }
    assert_true(error[0] < 1e-12 * power[0] && error[1] < 1e-10 * power[1] && power[1] > 0);
    assert_null(g.cross[BQ_DOWN].data);
    free(want[0]), free(want[1]);
    rig_close(r);
}

/* Sums of f64 hold the samples' own moments exactly, where those of f32 do not. */
static void wide_sums_are_exact(void **state) {
    (void)state;
    rig *r = gptq_open(w4, 1, 1);
    bq_gram_set set = {.sites = 1, .type = BQ_F64}, narrow = {.sites = 1};
    bq_gram wide, f32;
    bq_gram_push(&wide, &r->arch, set, &r->dev.mem);
    bq_gram_push(&f32, &r->arch, narrow, &r->dev.mem);
    size_t before = rig_watch(r);
    bq_gram_collect(&r->c, r->blk.w, set, &wide);
    assert_true(r->dev.mem.used == before);
    assert_true(rig_taken(r) <= bq_gram_collect_need(&r->arch, set, TOKENS, SAMPLES, 0, 1) +
                                    bq_op_scratch(TOKENS, r->arch.attention, 1));
    assert_true(bq_gram_need(&r->arch, set) > 19 * bq_gram_need(&r->arch, narrow) / 10);
    bq_gram_collect(&r->c, r->blk.w, narrow, &f32);
    bq_mat x = bq_arena_push(&r->dev.mem, TOKENS, H, BQ_F32), one = bq_arena_push(&r->dev.mem, H, H, BQ_F32);
    long double want[H * H] = {0};
    for (int s = 0; s < SAMPLES; s++) {
        r->dev.op->rmsnorm(&r->dev, rig_fetch(r, BQ_STREAM_QT, s), r->blk.norm[0], 1e-5f, x);
        r->dev.op->gram(&r->dev, x, one);
        for (int i = 0; i < H * H; i++) want[i] += (long double)bq_f32(one)[i];
    }
    int rounded = 0;
    for (int i = 0; i < H * H; i++) { /* 24 digits of each, few samples: nothing is lost in 53 */
        assert_true((long double)((double *)wide.h[BQ_QKV].data)[i] == want[i]);
        rounded += (long double)bq_f32(f32.h[BQ_QKV])[i] != want[i];
    }
    assert_true(rounded > H * H / 2);
    rig_close(r);
}

static void qep_of_equal_streams_is_nothing(void **state) {
    (void)state;
    rig *r = gptq_open(w4, 1, 1);
    bq_gptq_options o = plain;
    memcpy(r->stream[BQ_STREAM_QT], r->stream[BQ_STREAM_FP], SAMPLES * TOKENS * H * sizeof(float));
    uint64_t without = gptq_run(r, &o);
    o.qep = 1;
    assert_true(gptq_run(r, &o) == without);
    rig_close(r);
}

/* sum |X_fp w^T - X what^T|^2 of the first matrix falls when the weights make up for the streams. */
static double asymmetric_error(rig *r) {
    double sum = 0;
    bq_mat a[2], y[2];
    for (int k = 0; k < 2; k++) {
        a[k] = bq_arena_push(&r->dev.mem, TOKENS, H, BQ_F32);
        y[k] = bq_arena_push(&r->dev.mem, TOKENS, r->arch.site[BQ_QKV].rows, BQ_F32);
    }
    for (int s = 0; s < SAMPLES; s++) {
        for (int k = 0; k < 2; k++) {
            r->dev.op->rmsnorm(&r->dev, rig_fetch(r, k ? BQ_STREAM_QT : BQ_STREAM_FP, s), r->blk.norm[0],
                               1e-5f, a[k]);
            r->dev.op->gemm(&r->dev, false, true, 1, a[k], k ? r->q.w_hat[BQ_QKV] : r->blk.w[BQ_QKV], 0,
                            y[k]);
        }
        for (int64_t i = 0; i < TOKENS * r->arch.site[BQ_QKV].rows; i++)
            sum += pow((double)bq_f32(y[0])[i] - (double)bq_f32(y[1])[i], 2);
    }
    return sum;
}

static void qep_makes_up_for_the_stream(void **state) {
    (void)state;
    static const bq_scheme w8 = {8, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
    rig *r = gptq_open(&w8, 1, 1);
    bq_gptq_options o = plain;
    double error[3];
    for (int n = 0; n < 3; n++) {
        o.qep = 0.5 * n;
        gptq_run(r, &o);
        error[n] = asymmetric_error(r);
    }
    print_message("%g %g %g\n", error[0], error[1], error[2]);
    assert_true(error[1] < error[0] && error[2] < error[1]);
    rig_close(r);
}

static void options_differ(void **state) {
    (void)state;
    bq_gptq_options some[10];
    for (int i = 0; i < 10; i++) some[i] = plain, some[i].ends = ends;
    some[1].damp = 0.1, some[2].order = BQ_ORDER_NONE, some[3].order = BQ_ORDER_GAR;
    some[4].clip = BQ_CLIP_MINMAX, some[5].clip = BQ_CLIP_MSE, some[6].sequential = true, some[7].qep = 0.5;
    some[8].clip = BQ_CLIP_MSE, some[8].ends.count = 10, some[9].gram = BQ_F64;
    enum { N = sizeof some / sizeof *some };
    uint64_t got[N];
    for (int i = 0; i < N; i++) {
        rig *r = gptq_open(w3, 1, 1 + i % 2);
        got[i] = gptq_run(r, &some[i]);
        for (int k = 0; k < i; k++) assert_true(got[k] != got[i]);
        assert_true(got[i] == gptq_run(r, &some[i]));
        rig_close(r);
    }
}

/* Inputs of down come from quantized gate and up: its error on them is less than without. */
static void sequential_sees_quantized_inputs(void **state) {
    (void)state;
    rig *r = gptq_open(w3, 1, 1);
    bq_gptq_options o = plain;
    bq_mat qkv = bq_arena_push(&r->dev.mem, r->arch.site[BQ_QKV].rows, r->arch.site[BQ_QKV].cols, BQ_I8);
    bq_mat down = bq_arena_push(&r->dev.mem, r->arch.site[BQ_DOWN].rows, r->arch.site[BQ_DOWN].cols, BQ_I8);
    gptq_run(r, &o);
    r->dev.op->copy(&r->dev, r->q.code[BQ_QKV], qkv), r->dev.op->copy(&r->dev, r->q.code[BQ_DOWN], down);
    o.sequential = true;
    gptq_run(r, &o);
    assert_memory_equal(qkv.data, r->q.code[BQ_QKV].data, bq_mat_bytes(qkv));
    assert_true(memcmp(down.data, r->q.code[BQ_DOWN].data, bq_mat_bytes(down)) != 0);
    rig_close(r);
}

static struct { /* what a pass hands on: in order, each sample once */
    int64_t next;
    float on[SAMPLES][TOKENS * H];
} handed;

static void advance(void *ctx, int64_t sample, bq_mat y) {
    rig *r = ctx;
    assert_int_equal(sample, handed.next++);
    r->dev.op->get(&r->dev, y, bq_mat_host(handed.on[sample], TOKENS, H, BQ_F32));
    r->dev.op->wait(&r->dev);
}

/* The samples of one walk, kept on the way, some of them, or none: the same result in the planned memory, and
 * the outputs of a plain forward. */
static void what_is_kept_changes_no_bit(void **state) {
    (void)state;
    rig *r = gptq_open(rig_mixed, 5, 2);
    bq_mat y = bq_arena_push(&r->dev.mem, TOKENS, H, BQ_F32);
    for (int n = 0; n < 12; n++) {
        bq_gptq_options o = {.damp = 0.01,
                             .order = (bq_order)(n % 3),
                             .clip = BQ_CLIP_HESSIAN,
                             .sequential = true,
                             .gram = n % 2 ? BQ_F64 : BQ_F32,
                             .qep = n / 3 % 2 ? 0.5 : 0};
        r->dev.compute = bq_dev_compute(&r->dev, n < 6 ? BQ_COMPUTE_F32 : BQ_COMPUTE_BF16);
        uint64_t want = 0;
        for (int64_t keeps = 0; keeps <= SAMPLES + 1; keeps += 1 + keeps % 3) {
            r->c.keeps = keeps, r->c.advance = advance, handed.next = 0;
            uint64_t got = gptq_run(r, &o);
            if (keeps == 0) want = got;
            assert_true(got == want && handed.next == SAMPLES);
            assert_true(rig_taken(r) <= gptq_need(r, &o) + (n < 6 ? 0 : (size_t)1 << 20));
            for (int s = 0; s < SAMPLES; s++) {
                bq_block_forward(&r->dev, &r->blk, r->q.w_hat, &r->work, rig_fetch(r, BQ_STREAM_QT, s), y);
                assert_memory_equal(y.data, handed.on[s], sizeof handed.on[s]);
            }
        }
        r->c.advance = NULL, handed.next = -1;
        assert_true(gptq_run(r, &o) == want && handed.next == -1);
    }
    rig_close(r);
}

static void given_grids_stay(void **state) {
    (void)state;
    rig *r = gptq_open(w3, 1, 1);
    bq_gptq_options o = plain;
    o.order = BQ_ORDER_NONE;
    float kept[200];
    for (int i = 0; i < r->arch.linears; i++)
        r->dev.op->range(&r->dev, bq_linear_grouped(&r->arch, r->q.scheme, i, r->blk.w), r->q.scheme[i],
                         r->q.scale[i], r->q.zero[i]);
    for (int k = 0; k < 100; k++) kept[k] = bq_f32(r->q.scale[0])[k] *= 0.9f;
    r->c.grid = true;
    gptq_run(r, &o);
    assert_memory_equal(kept, r->q.scale[0].data, 100 * sizeof *kept);
    rig_close(r);
}

/* A number that is none in the stream: no matrix can be factored, and every linear is rounded to nearest. */
static void not_finite_is_rounded(void **state) {
    (void)state;
    rig *r = gptq_open(w4, 1, 1);
    bq_gptq_options o = plain;
    o.clip = BQ_CLIP_MINMAX;
    rig_sample(r, BQ_STREAM_QT, 2)[5] = NAN;
    bq_log_level(BQ_ERROR);
    gptq_run(r, &o);
    bq_log_level(BQ_INFO);
    bq_mat code = bq_arena_push(&r->dev.mem, r->arch.site[BQ_DOWN].rows, r->arch.site[BQ_DOWN].cols, BQ_I8);
    r->dev.op->copy(&r->dev, r->q.code[BQ_DOWN], code);
    bq_pass_rtn(&r->c);
    assert_memory_equal(code.data, r->q.code[BQ_DOWN].data, bq_mat_bytes(code));
    rig_close(r);
}

/* Fewer tokens than columns, and hardly any damping. */
static void deficient_rank_passes(void **state) {
    (void)state;
    rig *r = gptq_open(w4, 1, 1);
    bq_gptq_options o = plain;
    o.damp = 1e-6, r->c.samples = 1;
    gptq_run(r, &o);
    for (int m = 0; m < RIG_SITES; m++)
        for (int64_t i = 0; i < r->arch.site[m].rows * r->arch.site[m].cols; i++)
            assert_true(isfinite(bq_f32(r->q.fold[m])[i]));
    rig_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_those_of_fold),
        cmocka_unit_test(every_matrix_gains),
        cmocka_unit_test(moments_are_sums),
        cmocka_unit_test(wide_sums_are_exact),
        cmocka_unit_test(qep_of_equal_streams_is_nothing),
        cmocka_unit_test(qep_makes_up_for_the_stream),
        cmocka_unit_test(options_differ),
        cmocka_unit_test(sequential_sees_quantized_inputs),
        cmocka_unit_test(what_is_kept_changes_no_bit),
        cmocka_unit_test(given_grids_stay),
        cmocka_unit_test(not_finite_is_rounded),
        cmocka_unit_test(deficient_rank_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
