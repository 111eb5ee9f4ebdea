/* SPDX-License-Identifier: Apache-2.0 */
/* What the search for scales takes from the walk that its statistics make: samples that need no second
 * forward, and the outputs of the block for whoever wants them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "smooth_rig.h"

static struct {
    int64_t fetches, targets;
    float y[SAMPLES][TOKENS * H];
} seen;

static bq_mat fetch(void *ctx, bq_stream_id stream, int64_t sample) {
    seen.fetches++;
    return rig_fetch(ctx, stream, sample);
}

static void target(void *ctx, int64_t sample, bq_mat y) {
    rig *r = ctx;
    assert_int_equal(sample, seen.targets++); /* in order, each once */
    r->dev.op->get(&r->dev, y, bq_mat_host(seen.y[sample], TOKENS, H, BQ_F32));
    r->dev.op->wait(&r->dev);
}

/* The pass on so many samples: what it leaves of the block. */
static uint64_t pass(int variant, int64_t samples, bq_inputs input, bool wanted, bq_scales_result *result) {
    rig *r = smooth_open(bq_family_find("llama"), 1, w4g8);
    seen.fetches = seen.targets = 0;
    r->c.samples = samples, r->c.fetch = fetch, r->c.target = wanted ? target : NULL;
    smooth_input(r, input);
    rig_watch(r);
    smooth_pass(r, variant, result);
    assert_true(rig_taken(r) <= smooth_need(r, variant) + bq_op_scratch(TOKENS, r->arch.attention, 1));
    uint64_t hash = rig_block_hash(r);
    rig_close(r);
    return hash;
}

/* Eight samples are held at a time.  Of nine with halving those of the first three rounds are 0 and 8, 4, 2
 * and 6. */
static void held_samples_are_walked_once(void **state) {
    (void)state;
    static const struct {
        int variant;
        int64_t samples, fetches;
    } cases[] = {{3, 1, 1}, {3, 8, 8},  {3, 9, 18}, {5, 8, 8},  {5, 9, 18},
                 {6, 8, 8}, {6, 9, 13}, {7, 8, 8},  {9, 9, 13}, {SMOOTH_CLIP, 8, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bq_scales_result result;
        pass(cases[i].variant, cases[i].samples, BQ_INPUTS_FP, false, &result);
        assert_int_equal(seen.fetches, cases[i].fetches);
    }
}

/* The block's outputs, bit for bit, from a walk that is made anyway; the result is what it was. */
static void targets_are_outputs(void **state) {
    (void)state;
    for (int variant = 0; variant < SMOOTH_ALL; variant++)
        for (int64_t samples = 1; samples <= SAMPLES; samples += 8) {
            bq_scales_result result = {0}, same = {0};
            uint64_t want = pass(variant, samples, BQ_INPUTS_MIX, false, &result);
            int64_t fetches = seen.fetches;
            assert_int_equal(seen.targets, 0);
            assert_true(pass(variant, samples, BQ_INPUTS_MIX, true, &same) == want);
            assert_memory_equal(&result, &same, sizeof same);
            assert_int_equal(seen.fetches, fetches);
            assert_int_equal(seen.targets, samples);
            rig *r = smooth_open(bq_family_find("llama"), 1, w4g8);
            bq_mat x = bq_arena_push(&r->dev.mem, TOKENS, H, BQ_F32),
                   y = bq_arena_push(&r->dev.mem, TOKENS, H, BQ_F32);
            for (int64_t i = 0; i < samples; i++) {
                r->dev.op->put(&r->dev, rig_fetch(r, BQ_STREAM_FP, i), x);
                bq_block_forward(&r->dev, &r->original, r->original.w, &r->work, x, y);
                assert_memory_equal(seen.y[i], y.data, bq_mat_bytes(y));
            }
            rig_close(r);
        }
}

/* Outputs of another stream are nobody's targets. */
static void no_targets_from_the_quantized_stream(void **state) {
    (void)state;
    bq_scales_result result;
    pass(3, SAMPLES, BQ_INPUTS_QT, true, &result);
    assert_int_equal(seen.targets, 0);
}

/* With codes of 8 bits and no scale an output that is compared with the block's must be near it: also where a
 * norm stands behind o and down. */
static void block_outputs_have_all_norms(void **state) {
    (void)state;
    static const char *const families[] = {"llama", "gemma2", "olmo2"};
    static const bq_scheme w8 = {8, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
    for (int i = 0; i < 3; i++) {
        rig *r = smooth_open(bq_family_find(families[i]), 1, w8);
        bq_scales_result result;
        double mean = 0;
        seen.fetches = seen.targets = 0;
        r->c.target = target;
        smooth_pass(r, 5, &result);
        for (int k = 0; k < TOKENS * H; k++) mean += fabs((double)seen.y[0][k]) / (TOKENS * H);
        for (int m = 0; m < RIG_SITES; m++)
            if (bq_fusion_there(bq_fusion_of(&r->arch, m))) assert_true(result.loss[m][0] < 0.1 * mean);
        rig_close(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_samples_are_walked_once),
        cmocka_unit_test(targets_are_outputs),
        cmocka_unit_test(no_targets_from_the_quantized_stream),
        cmocka_unit_test(block_outputs_have_all_norms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
