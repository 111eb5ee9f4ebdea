/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary frequencies against the published values of models.md, and the table against its definition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "block/model/rope.h"

static void near(double have, double want, double relative) {
    if (!(fabs(have - want) <= relative * fabs(want))) fail_msg("%.12g, expected %.12g", have, want);
}

static bq_rope llama3(int64_t dim, double factor) {
    return (bq_rope){.kind = BQ_ROPE_LLAMA3,
                     .dim = dim,
                     .theta = 5e5,
                     .factor = factor,
                     .low = 1,
                     .high = 4,
                     .original = 8192,
                     .attention = 1};
}

static void check_llama3(bq_angles angles) {
    double f[BQ_ROPE_MAX], plain[BQ_ROPE_MAX];
    bq_rope r = llama3(128, 8), base = r;
    base.kind = BQ_ROPE_DEFAULT;
    bq_rope_frequencies(&r, angles, 2048, f);
    bq_rope_frequencies(&base, angles, 2048, plain);
    for (int i = 0; i < 29; i++) assert_true(f[i] == plain[i]);
    near(plain[29], 2.61609925e-3, 1e-6);
    near(f[29], 2.16657076e-3, 1e-6);
    near(f[34], 1.78507813e-4, 1e-6);
    for (int i = 35; i < 64; i++) near(f[i], plain[i] / 8, 1e-7);
    near(f[63], 3.06892599e-7, 1e-6);
    r = llama3(64, 32);
    bq_rope_frequencies(&r, angles, 2048, f);
    near(f[15], 1.29054793e-3, 1e-6);
    near(f[16], 4.29556797e-4, 1e-6);
    near(f[17], 9.7082878e-5, 1e-6);
    r = llama3(128, 32);
    bq_rope_frequencies(&r, angles, 2048, f);
    near(f[29], 2.118407e-3, 1e-6);
}

static void llama3_frequencies(void **state) {
    (void)state;
    check_llama3(BQ_ANGLES_HF);
    check_llama3(BQ_ANGLES_EXACT);
}

static void longrope_picks_by_length(void **state) {
    (void)state;
    bq_rope r = {.kind = BQ_ROPE_LONG, .dim = 8, .theta = 1e4, .original = 64, .attention = 1.25};
    double f[BQ_ROPE_MAX];
    for (int i = 0; i < 4; i++) r.short_factor[i] = 1 + i, r.long_factor[i] = 10 + i;
    bq_rope_frequencies(&r, BQ_ANGLES_EXACT, 64, f);
    for (int i = 0; i < 4; i++) near(f[i], 1 / ((1 + i) * pow(1e4, i / 4.0)), 1e-14);
    bq_rope_frequencies(&r, BQ_ANGLES_EXACT, 65, f);
    for (int i = 0; i < 4; i++) near(f[i], 1 / ((10 + i) * pow(1e4, i / 4.0)), 1e-14);
}

/* The numbers of gpt-oss, whose ramp has ends between indices, and of DeepSeek-V3, whose ramp is rounded. */
static void yarn_frequencies(void **state) {
    (void)state;
    static const struct {
        double theta, factor;
        bool truncate;
        int last; /* from here on all is divided */
        struct {
            int at;
            double f;
        } value[3];
    } model[] = {
        {150000, 32, false, 18, {{8, 0.0508132726}, {12, 6.79495931e-3}, {17, 1.29318694e-4}}},
        {1e4, 40, true, 23, {{10, 0.0562341288}, {12, 0.0268793609}, {18, 2.24936521e-3}}},
    };
    for (int i = 0; i < 4; i++) {
        bq_angles angles = i / 2 ? BQ_ANGLES_HF : BQ_ANGLES_EXACT;
        bq_rope r = {.kind = BQ_ROPE_YARN,
                     .dim = 64,
                     .theta = model[i % 2].theta,
                     .factor = model[i % 2].factor,
                     .truncate = model[i % 2].truncate,
                     .low = 1,
                     .high = 32,
                     .original = 4096,
                     .attention = 1},
                plain = r;
        double f[BQ_ROPE_MAX], whole[BQ_ROPE_MAX];
        plain.kind = BQ_ROPE_DEFAULT;
        bq_rope_frequencies(&r, angles, 2048, f);
        bq_rope_frequencies(&plain, angles, 2048, whole);
        for (int k = 0; k < 8; k++) assert_true(f[k] == whole[k]);
        for (int k = 0; k < 3; k++) near(f[model[i % 2].value[k].at], model[i % 2].value[k].f, 1e-6);
        for (int k = model[i % 2].last; k < 32; k++) near(f[k], whole[k] / r.factor, 2e-7);
        assert_true(f[model[i % 2].last - 1] > 1.01 * whole[model[i % 2].last - 1] / r.factor);
    }
}

/* A ramp without width is a step. */
static void yarn_without_a_ramp(void **state) {
    (void)state;
    bq_rope
        r = {.kind = BQ_ROPE_YARN, .dim = 8, .theta = 1e4, .factor = 4, .low = 1, .high = 2, .attention = 1},
        plain = r;
    double f[BQ_ROPE_MAX], whole[BQ_ROPE_MAX];
    plain.kind = BQ_ROPE_DEFAULT;
    bq_rope_frequencies(&plain, BQ_ANGLES_EXACT, 64, whole);
    r.truncate = true, r.original = 6; /* both ends at 0 */
    bq_rope_frequencies(&r, BQ_ANGLES_EXACT, 64, f);
    near(f[0], whole[0], 1e-14);
    for (int i = 1; i < 4; i++) near(f[i], whole[i] / 4, 1e-14);
}

static void table_has_attention_scaling(void **state) {
    (void)state;
    enum { T = 37, D = 5 };
    bq_rope r = {.kind = BQ_ROPE_LINEAR, .dim = 2 * D, .theta = 1e4, .factor = 4, .attention = 1.5};
    float c[T * D], s[T * D];
    bq_rope_table(&r, BQ_ANGLES_EXACT, T, bq_mat_host(c, T, D, BQ_F32), bq_mat_host(s, T, D, BQ_F32));
    for (int t = 0; t < T; t++)
        for (int i = 0; i < D; i++) {
            double angle = t * pow(1e4, -2.0 * i / (2 * D)) / 4;
            assert_true(fabs((double)c[t * D + i] - 1.5 * cos(angle)) < 2e-7);
            assert_true(fabs((double)s[t * D + i] - 1.5 * sin(angle)) < 2e-7);
        }
}

/* float32 angles are off by up to an ulp of the angle: visible far out, never more than that. */
static void hf_angles_are_float32(void **state) {
    (void)state;
    enum { T = 2048, D = 32 };
    static float c[2][T * D], s[2][T * D];
    bq_rope r = {.kind = BQ_ROPE_DEFAULT, .dim = 2 * D, .theta = 1e5, .attention = 1};
    for (int k = 0; k < 2; k++)
        bq_rope_table(&r, k ? BQ_ANGLES_EXACT : BQ_ANGLES_HF, T, bq_mat_host(c[k], T, D, BQ_F32),
                      bq_mat_host(s[k], T, D, BQ_F32));
    double worst = 0;
    for (int i = 0; i < T * D; i++) worst = fmax(worst, fabs((double)c[0][i] - (double)c[1][i]));
    assert_true(worst > 1e-6 && worst < 4e-4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(llama3_frequencies),
                                       cmocka_unit_test(longrope_picks_by_length),
                                       cmocka_unit_test(yarn_frequencies),
                                       cmocka_unit_test(yarn_without_a_ramp),
                                       cmocka_unit_test(table_has_attention_scaling),
                                       cmocka_unit_test(hf_angles_are_float32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
