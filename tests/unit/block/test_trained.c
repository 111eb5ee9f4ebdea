/* SPDX-License-Identifier: Apache-2.0 */
/* The trainings of offsets, ends, weights and scales on a small random block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "block/passes/train.h"
#include "rig.h"

enum { SAMPLES = 6, TOKENS = 19, H = 24, STEPS = 24, KINDS = 6 };

static const bq_train_kind *kind_at(int k) {
    const bq_train_kind *const all[KINDS] = {&bq_train_autoround, &bq_train_omniquant, &bq_train_qat[0][0],
                                             &bq_train_qat[0][1], &bq_train_qat[1][0], &bq_train_qat[1][1]};
    return all[k];
}

static const bq_scheme schemes[] = {
    {.element = 4, .group = -1, .symmetric = true, .rows = 1},
    {.element = 4, .group = 8, .symmetric = true, .grid = BQ_GRID_ABSMAX, .rows = 1},
    {.element = 3, .group = 4, .rows = 1},
    {.element = 4, .group = 8, .scale = BQ_F16, .rows = 1},
    {.element = BQ_E4M3, .group = -1, .symmetric = true, .grid = BQ_GRID_ABSMAX, .rows = 1},
    {.element = BQ_E2M1,
     .group = 8,
     .symmetric = true,
     .scale = BQ_F8_E4M3,
     .grid = BQ_GRID_ABSMAX,
     .rows = 1}};
enum { SCHEMES = sizeof schemes / sizeof *schemes };

static bool can(int kind, int scheme) { return kind > 1 || bq_element_whole(schemes[scheme].element); }

static rig *open_rig(int scheme) {
    rig *r = rig_open(&(rig_spec){.model = {bq_family_find("llama"), H, 40, .heads = 4, .kv_heads = 2},
                                  .scheme = &schemes[scheme],
                                  .threads = 1,
                                  .samples = SAMPLES,
                                  .tokens = TOKENS,
                                  .noise = {2, 3, 2},
                                  .steps = STEPS});
    for (int s = 0; s < SAMPLES; s++)
        bq_block_forward(&r->dev, &r->blk, r->blk.w, &r->work, rig_fetch(r, BQ_STREAM_FP, s),
                         rig_fetch(r, BQ_STREAM_TARGET, s));
    r->c.input = BQ_INPUTS_FP;
    return r;
}

/* Rates with which the loss falls. */
static bq_train_options rates(int kind) {
    static const double clip[KINDS] = {0.02, 0.1, 0, 0, 1e-6, 1e-9},
                        weight[KINDS] = {0.02, 0, 2e-3, 5e-4, 2e-3, 5e-4};
    return (bq_train_options){.iterations = STEPS,
                              .batch = SAMPLES,
                              .lr_clip = clip[kind],
                              .lr_weight = weight[kind],
                              .momentum = 0.9};
}

static void nothing_learned_is_rtn(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++)
        for (int s = 0; s < SCHEMES; s++) {
            if (!can(k, s) || k == 1) continue; /* omniquant starts with narrower grids */
            bq_train_options o = {.iterations = 2, .batch = 1};
            rig *a = open_rig(s), *b = open_rig(s);
            assert_int_equal(bq_train(&a->c, kind_at(k), &o), 2);
            bq_pass_rtn(&b->c);
            for (int m = 0; m < RIG_SITES; m++)
                assert_memory_equal(a->q.code[m].data, b->q.code[m].data, bq_mat_bytes(a->q.code[m]));
            rig_close(a), rig_close(b);
        }
}

static void training_lowers_the_loss(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++)
        for (int s = 0; s < SCHEMES; s++) {
            if (!can(k, s)) continue;
            bq_train_options o = rates(k);
            rig *r = open_rig(s);
            double least = INFINITY;
            assert_int_equal(bq_train(&r->c, kind_at(k), &o), STEPS);
            for (int i = 0; i < STEPS; i++) least = fmin(least, r->c.losses[i]);
            if (!(least < 0.97 * r->c.losses[0]))
                fail_msg("kind %d, scheme %d: %g of %g", k, s, least, r->c.losses[0]);
            rig_close(r);
        }
}

/* With constant rates, more steps than those up to the best one change nothing. */
static void the_best_step_is_kept(void **state) {
    (void)state;
    bq_train_options o = rates(0);
    o.rates = BQ_RATES_CONSTANT, o.lr_weight = o.lr_clip = 0.015;
    rig *r = open_rig(3);
    int best = 0;
    bq_train(&r->c, &bq_train_autoround, &o);
    uint64_t want = rig_quantized_hash(r);
    for (int i = 1; i < STEPS; i++) best = r->c.losses[i] < r->c.losses[best] ? i : best;
    rig_close(r);
    assert_true(best > 0 && best < STEPS - 1);
    o.iterations = best + 1;
    r = open_rig(3);
    bq_train(&r->c, &bq_train_autoround, &o);
    assert_true(rig_quantized_hash(r) == want);
    rig_close(r);
}

static void nan_leaves_what_was(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++)
        for (int grid = 0; grid < 2; grid++) {
            if (k == 1 && grid) continue;
            bq_train_options o = rates(k);
            o.batch = 1;
            rig *a = open_rig(3), *b = open_rig(3);
            rig_sample(a, BQ_STREAM_TARGET, 3)[5] = NAN;
            bq_pass_rtn(&b->c);
            if (grid) bq_pass_rtn(&a->c);
            a->c.grid = grid;
            assert_int_equal(bq_train(&a->c, kind_at(k), &o), BQ_PASS_NOT_FINITE);
            for (int m = 0; m < RIG_SITES; m++)
                assert_memory_equal(a->q.code[m].data, b->q.code[m].data, bq_mat_bytes(a->q.code[m]));
            rig_close(a), rig_close(b);
        }
}

/* Rates that are too large: the block stays as it was; else the result is that of the training. */
static void what_is_worse_is_undone(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++)
        for (int bad = 0; bad < 2; bad++)
            for (int grid = 0; grid < 2; grid++) {
                if (k == 1 && (grid || bad)) continue; /* omniquant keeps grids of no pass */
                bq_train_options o = rates(k);
                if (bad) o.lr_clip *= k > 3 ? 1e5 : 0, o.lr_weight = 50, o.iterations = 3;
                rig *a = open_rig(3), *b = open_rig(3);
                if (grid) bq_pass_rtn(&a->c), bq_pass_rtn(&b->c);
                a->c.grid = b->c.grid = grid, o.loss = BQ_LOSS_RELATIVE;
                if (!bad) assert_int_equal(bq_train(&b->c, kind_at(k), &o), o.iterations);
                if (bad && !grid) bq_pass_rtn(&b->c);
                o.only_if_better = true;
                assert_int_equal(bq_train(&a->c, kind_at(k), &o), o.iterations);
                if (rig_quantized_hash(a) != rig_quantized_hash(b))
                    fail_msg("kind %d, bad %d, grid %d", k, bad, grid);
                rig_close(a), rig_close(b);
            }
}

/* The plan's bytes are the bytes taken. */
static void needs_are_exact(void **state) {
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        bq_train_options o = rates(k);
        rig *r = open_rig(3);
        o.iterations = 2, o.batch = 3;
        size_t before = rig_watch(r),
               need = bq_train_need(kind_at(k), &o,
                                    &(bq_pass_size){&r->arch, r->q.scheme, TOKENS, SAMPLES, 0, 1, 0});
        bq_train(&r->c, kind_at(k), &o);
        assert_int_equal(r->dev.mem.used, before);
        assert_true(rig_taken(r) >= need);
        assert_true(rig_taken(r) <= need + bq_op_scratch(TOKENS, r->arch.attention, 1));
        rig_close(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_learned_is_rtn),  cmocka_unit_test(training_lowers_the_loss),
        cmocka_unit_test(the_best_step_is_kept),   cmocka_unit_test(nan_leaves_what_was),
        cmocka_unit_test(what_is_worse_is_undone), cmocka_unit_test(needs_are_exact)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
