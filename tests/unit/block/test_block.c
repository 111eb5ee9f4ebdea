/* SPDX-License-Identifier: Apache-2.0 */
/* A block's passes on a small random model: what a pass leaves, what it must not depend on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "block/passes/train.h"
#include "rig.h"

enum { SAMPLES = 6, TOKENS = 19, H = 24 };

static const bq_scheme w4 = {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
static int64_t calls; /* of count_step, in the last training */

static void count_step(void *ctx, int64_t step, int64_t steps, double loss) {
    (void)ctx;
    assert_int_equal(step, calls + 1);
    assert_true(loss > 0 && steps > 0);
    calls++;
}

/* The QT stream is near the FP stream; targets are what the block makes of the latter. */
static rig *open_rig(int family, int threads, bq_scheme scheme) {
    rig *r = rig_open(&(rig_spec){.model = {family, H, 40, .heads = 4, .kv_heads = 2},
                                  .scheme = &scheme,
                                  .threads = threads,
                                  .samples = SAMPLES,
                                  .tokens = TOKENS,
                                  .noise = {2, 3, 2},
                                  .steps = 60});
    for (int s = 0; s < SAMPLES; s++) {
        const float *fp = rig_sample(r, BQ_STREAM_FP, s);
        float *qt = rig_sample(r, BQ_STREAM_QT, s);
        for (int i = 0; i < TOKENS * H; i++) qt[i] = fp[i] + 0.1f * qt[i];
        bq_block_forward(&r->dev, &r->blk, r->blk.w, &r->work, rig_fetch(r, BQ_STREAM_FP, s),
                         rig_fetch(r, BQ_STREAM_TARGET, s));
    }
    r->c.step = count_step;
    return r;
}

static int64_t train(rig *r, bq_inputs input, double mix, bq_train_options o) {
    calls = 0, r->c.input = input, r->c.mix = mix;
    return bq_train(&r->c, &bq_train_adascale, &o);
}

static const bq_train_options plain = {.iterations = 40,
                                       .batch = 1,
                                       .lr_clip = 1e-3,
                                       .lr_weight = 5e-4,
                                       .check_interval = 200,
                                       .window = 500,
                                       .threshold = 1e-2};

static void layouts(void **state) {
    (void)state;
    rig *l = open_rig(bq_family_find("llama"), 1, w4), *p = open_rig(bq_family_find("phi3"), 1, w4);
    int64_t rows[2] = {0};
    assert_int_equal(l->arch.linears, 7);
    assert_int_equal(p->arch.linears, 4);
    for (int i = 0; i < 7; i++) rows[0] += l->arch.linear[i].rows;
    for (int i = 0; i < 4; i++) rows[1] += p->arch.linear[i].rows;
    assert_int_equal(rows[0], rows[1]);
    assert_int_equal(l->arch.linear[2].row, 24 + 12); /* v behind q and k */
    static const struct {
        const char *name;
        bq_tensor_id id;
    } names[] = {{"model.layers.1.mlp.up_proj.weight", {BQ_TENSOR_WEIGHT, 1, 5}},
                 {"model.layers.0.post_attention_layernorm.weight", {BQ_TENSOR_BLOCK_NORM, 0, 1}},
                 {"model.embed_tokens.weight", {BQ_TENSOR_EMBED, -1, -1}},
                 {"model.norm.weight", {BQ_TENSOR_NORM, -1, -1}},
                 {"lm_head.weight", {BQ_TENSOR_HEAD, -1, -1}},
                 {"model.layers.2.mlp.up_proj.weight", {BQ_TENSOR_OTHER, -1, -1}}, /* two blocks */
                 {"model.layers.1.mlp.up_proj.bias", {BQ_TENSOR_OTHER, -1, -1}},
                 {"model.layers.01.mlp.up_proj.weight", {BQ_TENSOR_OTHER, -1, -1}},
                 {"model.layers.-1.mlp.up_proj.weight", {BQ_TENSOR_OTHER, -1, -1}}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bq_tensor_id id = bq_arch_id(&l->arch, names[i].name), want = names[i].id;
        assert_true(id.kind == want.kind && id.block == want.block && id.at == want.at);
    }
    /* the same weights in both families train to the same bytes: rows do not interact */
    train(l, BQ_INPUTS_MIX, 0.5, plain);
    train(p, BQ_INPUTS_MIX, 0.5, plain);
    for (int m = 0; m < RIG_SITES; m++)
        assert_memory_equal(l->q.code[m].data, p->q.code[m].data, bq_mat_bytes(l->q.code[m]));
    rig_close(l);
    rig_close(p);
}

static void result_is_on_the_grid(void **state) {
    (void)state;
    bq_scheme schemes[5] = {w4, w4, w4, w4, w4};
    schemes[1].group = 8, schemes[2].element = BQ_INT3, schemes[2].scale = BQ_BF16,
    schemes[4].element = BQ_INT2;
    schemes[3].element = BQ_INT8, schemes[3].group = 8, schemes[3].scale = BQ_F16;
    for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++) {
        rig *r = open_rig(bq_family_find("llama"), 2, schemes[k]);
        assert_int_equal(train(r, BQ_INPUTS_MIX, 0.5, plain), 40);
        for (int i = 0; i < r->arch.linears; i++) {
            bq_mat what = bq_linear_grouped(&r->arch, r->q.scheme, i, r->q.w_hat);
            bq_mat code = bq_linear_grouped(&r->arch, r->q.scheme, i, r->q.code);
            for (int64_t row = 0; row < what.rows; row++)
                for (int64_t c = 0; c < what.cols; c++) {
                    int8_t q = *(int8_t *)bq_mat_at(code, row, c);
                    float s = *(float *)bq_mat_at(r->q.scale[i], row, 0);
                    assert_true(q >= (int)bq_qmin(schemes[k]) && q <= (int)bq_qmax(schemes[k]));
                    assert_true(*(float *)bq_mat_at(what, row, c) == (float)q * s);
                }
        }
        rig_close(r);
    }
}

static void training_lowers_the_loss(void **state) {
    (void)state;
    bq_train_options o = plain;
    o.iterations = 60, o.lr_weight = 5e-3, o.lr_clip = 5e-3;
    for (int loss = 0; loss < 2; loss++) {
        rig *r = open_rig(bq_family_find("llama"), 1, w4);
        o.loss = loss ? BQ_LOSS_MEAN : BQ_LOSS_SUM_SEQ;
        assert_int_equal(train(r, BQ_INPUTS_FP, 0, o), 60);
        assert_int_equal(calls, 60);
        double first = 0, last = 0;
        for (int i = 0; i < SAMPLES; i++) first += r->c.losses[i], last += r->c.losses[60 - SAMPLES + i];
        assert_true(last < 0.8 * first);
        rig_close(r);
    }
}

static void mean_is_sum_over_tokens(void **state) {
    (void)state;
    bq_train_options o = plain;
    o.iterations = 1;
    double loss[2];
    for (int k = 0; k < 2; k++) {
        rig *r = open_rig(bq_family_find("llama"), 1, w4);
        o.loss = k ? BQ_LOSS_MEAN : BQ_LOSS_SUM_SEQ;
        train(r, BQ_INPUTS_QT, 1, o);
        loss[k] = r->c.losses[0];
        rig_close(r);
    }
    assert_true(fabs(loss[0] / loss[1] - TOKENS) < 1e-12 * TOKENS);
}

static void threads_change_nothing(void **state) {
    (void)state;
    uint64_t want = 0;
    for (int threads = 1; threads <= 3; threads++) {
        bq_train_options o = plain;
        o.batch = 3;
        rig *r = open_rig(bq_family_find("llama"), threads, w4);
        train(r, BQ_INPUTS_MIX, 0.5, o);
        if (threads == 1) want = rig_quantized_hash(r);
        assert_true(rig_quantized_hash(r) == want);
        rig_close(r);
    }
}

/* mix 0 is the FP stream, mix 1 the QT stream, bit for bit; a seed or block changes a real mix. */
static void mix_ends(void **state) {
    (void)state;
    const struct {
        bq_inputs input;
        double mix;
    } way[4] = {{BQ_INPUTS_FP, 0.5}, {BQ_INPUTS_MIX, 0}, {BQ_INPUTS_QT, 0.5}, {BQ_INPUTS_MIX, 1}};
    uint64_t got[4];
    for (int k = 0; k < 4; k++) {
        rig *r = open_rig(bq_family_find("llama"), 1, w4);
        train(r, way[k].input, way[k].mix, plain);
        got[k] = rig_quantized_hash(r);
        rig_close(r);
    }
    assert_true(got[0] == got[1] && got[2] == got[3] && got[0] != got[2]);
}

/* A batch over all samples is the mean of their gradients: one step from zero moves each parameter by its
 * sign. */
static void batch_takes_every_sample(void **state) {
    (void)state;
    bq_train_options o = plain;
    o.iterations = 1, o.batch = SAMPLES;
    rig *r = open_rig(bq_family_find("llama"), 1, w4);
    train(r, BQ_INPUTS_FP, 0, o);
    double all = r->c.losses[0], sum = 0;
    rig_close(r);
    o.batch = 1, o.iterations = SAMPLES, o.lr_clip = o.lr_weight = 0;
    r = open_rig(bq_family_find("llama"), 1, w4);
    train(r, BQ_INPUTS_FP, 0, o);
    for (int i = 0; i < SAMPLES; i++) sum += r->c.losses[i] / SAMPLES;
    assert_true(fabs(all - sum) < 1e-12 * sum);
    rig_close(r);
}

/* lr = 0: the result is round to nearest. */
static void no_learning_is_rtn(void **state) {
    (void)state;
    bq_train_options o = plain;
    o.lr_clip = o.lr_weight = 0;
    rig *a = open_rig(bq_family_find("llama"), 1, w4), *b = open_rig(bq_family_find("llama"), 1, w4);
    train(a, BQ_INPUTS_MIX, 0.5, o);
    bq_pass_rtn(&b->c);
    for (int m = 0; m < RIG_SITES; m++)
        assert_memory_equal(a->q.code[m].data, b->q.code[m].data, bq_mat_bytes(a->q.code[m]));
    rig_close(a);
    rig_close(b);
}

static void nan_falls_back_to_rtn(void **state) {
    (void)state;
    rig *a = open_rig(bq_family_find("llama"), 1, w4), *b = open_rig(bq_family_find("llama"), 1, w4);
    rig_sample(a, BQ_STREAM_TARGET, 3)[5] = NAN;
    assert_int_equal(train(a, BQ_INPUTS_FP, 0, plain), BQ_PASS_NOT_FINITE);
    bq_pass_rtn(&b->c);
    assert_true(rig_quantized_hash(a) == rig_quantized_hash(b));
    rig_close(a);
    rig_close(b);
}

/* The forward step by step, each matrix's input rounded by itself: the same bits. */
static void inputs_are_rounded(void **state) {
    (void)state;
    rig *r = open_rig(bq_family_find("llama"), 1, w4);
    bq_dev *dev = &r->dev;
    const bq_ops *op = dev->op;
    const bq_mat *w = r->blk.w;
    bq_work k = r->work, own; /* k with rounding, own by hand */
    bq_mat x = rig_fetch(r, BQ_STREAM_FP, 2), y = bq_arena_push(&dev->mem, TOKENS, H, BQ_F32),
           z = bq_arena_push(&dev->mem, TOKENS, H, BQ_F32);
    bq_work_push(&own, &r->arch, TOKENS, false, &dev->mem);
    k.inputs = bq_rounding_of_tokens(8);
    bq_block_forward(dev, &r->blk, w, &k, x, y);

    bq_mat q = bq_mat_cols(own.qkv, 0, 24), key = bq_mat_cols(own.qkv, 24, 12),
           v = bq_mat_cols(own.qkv, 36, 12);
    op->rmsnorm(dev, x, r->blk.norm[0], 1e-5f, own.m);
    op->round_rows(dev, own.m, bq_rounding_of_tokens(8), (bq_mat){0}, own.a);
    op->gemm(dev, false, true, 1, own.a, w[BQ_QKV], 0, own.qkv);
    op->rope(dev, q, 4, 6, k.cos[0], k.sin[0], 0);
    op->rope(dev, key, 2, 6, k.cos[0], k.sin[0], 0);
    op->attention(dev, r->arch.attention, q, key, v, own.n, own.lse);
    op->round_rows(dev, own.n, bq_rounding_of_tokens(8), (bq_mat){0}, own.o);
    op->copy(dev, x, own.m);
    op->gemm(dev, false, true, 1, own.o, w[BQ_O], 1, own.m);
    op->rmsnorm(dev, own.m, r->blk.norm[1], 1e-5f, z);
    op->round_rows(dev, z, bq_rounding_of_tokens(8), (bq_mat){0}, own.n);
    op->gemm(dev, false, true, 1, own.n, w[BQ_GATE_UP], 0, own.gu);
    op->glu(dev, BQ_SILU, 0, bq_mat_cols(own.gu, 0, 40), bq_mat_cols(own.gu, 40, 40), own.z);
    op->round_rows(dev, own.z, bq_rounding_of_tokens(8), (bq_mat){0}, own.z);
    op->copy(dev, own.m, z);
    op->gemm(dev, false, true, 1, own.z, w[BQ_DOWN], 1, z);
    assert_memory_equal(z.data, y.data, TOKENS * H * sizeof(float));
    double far = 0, size = 0; /* near the plain forward, but not it */
    bq_block_forward(dev, &r->blk, w, &r->work, x, y);
    for (int i = 0; i < TOKENS * H; i++) {
        double d = (double)bq_f32(y)[i] - (double)bq_f32(z)[i];
        far += d * d, size += (double)bq_f32(y)[i] * (double)bq_f32(y)[i];
    }
    assert_true(far > 0 && far < 1e-3 * size);
    bq_block_sample(dev, &r->blk, w, &r->work, x, x); /* in place */
    assert_memory_equal(x.data, y.data, TOKENS * H * sizeof(float));
    rig_close(r);
}

/* The plan's bytes are the bytes taken. */
static void needs_are_exact(void **state) {
    (void)state;
    for (int64_t batch = 1; batch <= SAMPLES; batch++) {
        if (SAMPLES % batch) continue;
        bq_train_options o = plain;
        o.iterations = 2, o.batch = batch;
        rig *r = open_rig(bq_family_find("llama"), 1, w4);
        size_t before = rig_watch(r);
        train(r, BQ_INPUTS_MIX, 0.5, o);
        assert_int_equal(r->dev.mem.used, before);
        size_t need = bq_train_need(&bq_train_adascale, &o,
                                    &(bq_pass_size){&r->arch, r->q.scheme, TOKENS, SAMPLES, 0, 1, 0});
        assert_true(rig_taken(r) >= need);
        assert_true(rig_taken(r) <= need + bq_op_scratch(TOKENS, r->arch.attention, 1));
        rig_close(r);
    }
    rig *r = open_rig(bq_family_find("llama"), 1, w4);
    bq_arena a;
    bq_arena_open(&a, (size_t)8 << 20);
    bq_block blk;
    bq_work work;
    bq_quantized q;
    bq_block_push(&blk, &r->arch, &a);
    assert_int_equal(a.used, bq_block_need(&r->arch));
    size_t at = a.used;
    bq_work_push(&work, &r->arch, TOKENS, true, &a);
    assert_int_equal(a.used - at, bq_work_need(&r->arch, TOKENS, true));
    at = a.used;
    bq_work_push(&work, &r->arch, TOKENS, false, &a);
    assert_int_equal(a.used - at, bq_work_need(&r->arch, TOKENS, false));
    at = a.used;
    bq_quantized_push(&q, &r->arch, r->q.scheme, &a);
    assert_int_equal(a.used - at, bq_quantized_need(&r->arch, r->q.scheme));
    bq_arena_close(&a);
    rig_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),
        cmocka_unit_test(result_is_on_the_grid),
        cmocka_unit_test(training_lowers_the_loss),
        cmocka_unit_test(mean_is_sum_over_tokens),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(mix_ends),
        cmocka_unit_test(batch_takes_every_sample),
        cmocka_unit_test(no_learning_is_rtn),
        cmocka_unit_test(nan_falls_back_to_rtn),
        cmocka_unit_test(inputs_are_rounded),
        cmocka_unit_test(needs_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
