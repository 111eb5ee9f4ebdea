/* SPDX-License-Identifier: Apache-2.0 */
/* fit and gptq: oracles in double, and what holds exactly (gptq.md 15.1). */
#include "gptq_problem.h"
#include "same_bits.h"

static bq_scheme grid(int bits, int64_t group, bool symmetric) {
    return (bq_scheme){bits, group, symmetric, BQ_F32, BQ_GRID_AIMET, 1, 0};
}

/* ---- fit ---- */

static double naive_error(const layer *l, int64_t r, const float *h, double scale) {
    double z = l->zero.data ? at(l->zero, r, 0) : 0, sum = 0;
    for (int64_t j = 0; j < l->group; j++) {
        double w = at(grouped(l, l->w), r, j), q = rint(w / scale) + z;
        q = fmin(fmax(q, (double)bq_qmin(l->s)), (double)bq_qmax(l->s)) - z;
        double d = fabs(q * scale - w);
        sum += (double)h[j] * d * d;
    }
    return sum;
}

/* The scale is one of the candidates, and none is better. */
static void check_fit(int bits, int64_t k, int64_t group, bool symmetric, bq_grid_kind kind) {
    layer l = open_layer(19, k, 40, (bq_scheme){bits, group, symmetric, BQ_F32, kind, 1, 0}, BQ_ORDER_NONE);
    bq_mat h = make(l.groups, l.group, 0, BQ_F32), range = clone(l.scale), zero = clone(l.zero);
    for (int64_t c = 0; c < k; c++) bq_f32(h)[c] = *ptr(l.h, c, c);
    dev.op->range(&dev, grouped(&l, l.w), l.s, range, l.zero.data ? zero : l.zero);
    dev.op->fit(&dev, grouped(&l, l.w), h, l.s, l.scale, l.zero);
    if (l.zero.data) assert_true(same(zero, l.zero));
    for (int64_t r = 0; r < l.scale.rows; r++) {
        const float *weight = bq_mat_at(h, r % l.groups, 0);
        double got = naive_error(&l, r, weight, at(l.scale, r, 0)), least = INFINITY;
        bool there = false;
        for (int i = 0; i < 80; i++) {
            float s = *ptr(range, r, 0) * ((float)(100 - i) / 100);
            there |= s == *ptr(l.scale, r, 0);
            least = fmin(least, naive_error(&l, r, weight, (double)s));
        }
        assert_true(there && got <= least * (1 + 1e-5) + 1e-20);
    }
    drop(h), drop(range), drop(zero), close_layer(&l);
}

static void fit_is_the_best_of_its_scales(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        bq_grid_kind kind = (bq_grid_kind)k;
        check_fit(4, 1, -1, true, kind), check_fit(4, 33, -1, true, kind);
        check_fit(3, 257, -1, false, kind), check_fit(2, 600, -1, true, kind);
        check_fit(4, 96, 32, false, kind), check_fit(8, 64, 8, true, kind);
    }
}

static void fit_of_nothing_is_range(void **state) {
    (void)state;
    float w[24] = {0}, one[8] = {1, 1, 1, 1, 1, 1, 1, 1}, scale[3], range[3];
    w[8] = NAN;
    bq_mat m = bq_mat_host(w, 3, 8, BQ_F32), s = bq_mat_host(scale, 3, 1, BQ_F32);
    dev.op->fit(&dev, m, bq_mat_host(one, 1, 8, BQ_F32), grid(4, -1, true), s, (bq_mat){0});
    dev.op->range(&dev, m, grid(4, -1, true), bq_mat_host(range, 3, 1, BQ_F32), (bq_mat){0});
    assert_memory_equal(scale, range, sizeof scale);
}

/* ---- the loop ---- */

static const bq_order kinds[] = {BQ_ORDER_NONE, BQ_ORDER_ACT, BQ_ORDER_GAR};

/* Codes equal LDLQ's but for a row at a tie; the weights kept explain the codes; W - Q = E U. */
static void check_layer(int64_t rows, int64_t k, int64_t group, int bits, bool symmetric, bq_order kind,
                        bool dynamic, bq_clip clip) {
    layer l = open_layer(rows, k, k + 9, grid(bits, group, symmetric), kind);
    assert_true(run_layer(&l, 2.0, 0.01, dynamic, clip));
    assert_true(rows_unlike_ldlq(&l) <= rows / 50);
    double *e = zeros(k), worst = 0, all = 0, sum = 0;
    for (int64_t n = 0; n < rows; n++) {
        for (int64_t j = 0; j < k; j++) {
            int64_t c = order_at(l.order, j), g = n * l.groups + c / l.group;
            double d = at(l.w, n, c) - at(l.what, n, c), s = at(l.scale, g, 0);
            for (int64_t i = 0; i < j; i++) d -= e[i] * at(l.u, j, i);
            e[j] = d / at(l.u, j, j), sum += e[j] * e[j];
            double away = d + at(l.what, n, c) - at(l.fold, n, c); /* 0 where nothing clips */
            int8_t q = *(int8_t *)bq_mat_at(l.code, n, c);
            bool end = q == (int8_t)bq_qmin(l.s) || q == (int8_t)bq_qmax(l.s);
            if (!end) worst = fmax(worst, fabs(away) / s);
            assert_true(fabs(at(l.fold, n, c) - at(l.what, n, c)) <= 0.5 * s * (1 + 1e-4));
        }
        all += row_loss(&l, n, l.what);
    }
    /* in steps; a float's rounding grows with the number of steps that weights are away from 0 */
    assert_true(worst < 1e-4 + 1e-6 * (1 << bits) && fabs(sum - all) < 1e-4 * all + 1e-12);
    free(e), close_layer(&l);
}

static void equals_ldlq(void **state) {
    (void)state;
    for (int o = 0; o < 3; o++) {
        check_layer(1, 1, -1, 4, true, kinds[o], false, BQ_CLIP_MINMAX);
        check_layer(31, 33, -1, 3, false, kinds[o], false, BQ_CLIP_MINMAX);
        check_layer(130, 127, -1, 4, true, kinds[o], false, BQ_CLIP_MINMAX);
        check_layer(5, 129, -1, 2, true, kinds[o], false, BQ_CLIP_MINMAX);
        check_layer(17, 288, 32, 4, false, kinds[o], false, BQ_CLIP_MINMAX);
        check_layer(129, 257, -1, 8, true, kinds[o], false, BQ_CLIP_MINMAX);
    }
}

static void grids_fitted_on_the_way(void **state) {
    (void)state;
    static const int64_t cases[][2] = {{64, 8}, {96, 32}, {256, 128}, {480, 96}, {480, 160}, {400, 200}};
    for (int i = 0; i < 6; i++) {
        check_layer(9, cases[i][0], cases[i][1], 4, true, BQ_ORDER_NONE, true, BQ_CLIP_MINMAX);
        check_layer(9, cases[i][0], cases[i][1], 3, false, BQ_ORDER_GAR, true, BQ_CLIP_HESSIAN);
        check_layer(9, cases[i][0], cases[i][1], 4, true, BQ_ORDER_GAR, true, BQ_CLIP_MSE);
    }
}

/* The grid of a group is the range of its weights as they then are, in natural order W - E U of the columns
 * before. */
static void grids_see_the_updated_weights(void **state) {
    (void)state;
    static const int64_t groups[] = {24, 96, 240};
    for (int i = 0; i < 3; i++) {
        int64_t k = 480, g = groups[i];
        layer l = open_layer(4, k, 500, grid(4, g, true), BQ_ORDER_NONE);
        assert_true(run_layer(&l, 1, 0.01, true, BQ_CLIP_MINMAX));
        double *now = zeros(k);
        for (int64_t n = 0; n < 4; n++) {
            for (int64_t c = 0; c < k; c++) now[c] = at(l.w, n, c);
            for (int64_t c = 0; c < k; c++) {
                if (c % g == 0) {
                    double lo = 0, hi = 0;
                    for (int64_t j = c; j < c + g; j++) lo = fmin(lo, now[j]), hi = fmax(hi, now[j]);
                    assert_true(fabs(fmax(hi / 7, lo / -8) / at(l.scale, n * l.groups + c / g, 0) - 1) <
                                1e-4);
                }
                double e = (now[c] - at(l.what, n, c)) / at(l.u, c, c);
                for (int64_t j = c; j < k; j++) now[j] -= e * at(l.u, j, c);
            }
        }
        free(now), close_layer(&l);
    }
}

/* With `mse` the grid of the first group is range_mse's of the weights as they stand, with the ends given. */
static void grids_are_searched_on_the_way(void **state) {
    (void)state;
    layer l = open_layer(7, 96, 120, grid(4, 32, true), BQ_ORDER_NONE);
    bq_mat want = make(7, 1, 0, BQ_F32), wide = clone(want);
    assert_true(run_layer(&l, 1, 0.01, true, BQ_CLIP_MSE));
    dev.op->range_mse(&dev, bq_mat_cols(l.w, 0, 32), l.s, few_ends, want, (bq_mat){0});
    dev.op->range(&dev, bq_mat_cols(l.w, 0, 32), l.s, wide, (bq_mat){0});
    for (int64_t n = 0; n < 7; n++) assert_true(at(l.scale, n * 3, 0) == at(want, n, 0));
    assert_false(same(want, wide));
    drop(want), drop(wide), close_layer(&l);
}

/* TICO's fixed point: after k steps of dense arithmetic column k is exact. */
static void equals_the_fixed_point(void **state) {
    (void)state;
    int64_t k = 40, rows = 12;
    layer l = open_layer(rows, k, 60, grid(4, -1, true), BQ_ORDER_ACT);
    assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
    double *now = zeros(k), *next = zeros(k);
    for (int64_t n = 0; n < rows; n++) {
        for (int64_t c = 0; c < k; c++) now[c] = at(l.w, n, order_at(l.order, c));
        for (int64_t step = 0; step < k; step++) {
            for (int64_t j = 0; j < k; j++) {
                next[j] = at(l.w, n, order_at(l.order, j));
                for (int64_t i = 0; i < j; i++)
                    next[j] -= (now[i] - on_grid(&l, n, order_at(l.order, i), now[i])) / at(l.u, i, i) *
                               at(l.u, j, i);
            }
            memcpy(now, next, (size_t)k * sizeof *now);
        }
        for (int64_t j = 0; j < k; j++) {
            int64_t c = order_at(l.order, j);
            assert_true(fabs(on_grid(&l, n, c, now[j]) - at(l.what, n, c)) < 1e-6);
        }
    }
    free(now), free(next), close_layer(&l);
}

static void beats_rounding(void **state) {
    (void)state;
    for (int o = 0; o < 3; o++) {
        layer l = open_layer(64, 200, 300, grid(3, -1, true), kinds[o]);
        assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
        double mine = loss(&l, l.what);
        encode(&l, l.w);
        assert_true(mine < 0.8 * loss(&l, l.what));
        close_layer(&l);
    }
}

/* The same with floats, in groups, and in tiles. */
static void floats_beat_rounding(void **state) {
    (void)state;
    static const int element[] = {BQ_E2M1, BQ_E3M2, BQ_E4M3};
    for (int e = 0; e < 6; e++) {
        bq_scheme s = {element[e / 2], 40, true, BQ_F32, BQ_GRID_ABSMAX, e % 2 ? 40 : 1, 0};
        layer l = open_layer(70, 200, 300, s, kinds[e / 2]);
        assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
        double mine = loss(&l, l.what);
        encode(&l, l.w);
        assert_true(mine < 0.9 * loss(&l, l.what));
        close_layer(&l);
    }
}

/* Babai's bound: a row in which no code clips loses at most a quarter of sum (scale / u_ii)^2. */
static void within_babais_bound(void **state) {
    (void)state;
    layer l = open_layer(64, 96, 200, grid(8, -1, true), BQ_ORDER_ACT);
    int counted = 0;
    l.widen = 1.25f;
    assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
    for (int64_t n = 0; n < l.rows; n++) {
        double bound = 0;
        bool clips = false;
        for (int64_t c = 0; c < l.k; c++) {
            int8_t q = *(int8_t *)bq_mat_at(l.code, n, c);
            clips |= q == 127 || q == -128;
            bound += 0.25 * pow(at(l.scale, n, 0) / at(l.u, c, c), 2);
        }
        if (clips) continue;
        counted++;
        assert_true(row_loss(&l, n, l.what) <= bound * (1 + 1e-6));
    }
    assert_true(counted > 10);
    close_layer(&l);
}

/* ---- exact ---- */

static void unrelated_inputs_are_rounding(void **state) {
    (void)state;
    layer l = open_layer(37, 150, 10, grid(4, 50, true), BQ_ORDER_ACT);
    for (int64_t i = 0; i < l.k; i++)
        for (int64_t j = 0; j < l.k; j++) *ptr(l.h, i, j) = i == j ? 3.7f : 0;
    assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
    bq_mat code = clone(l.code);
    encode(&l, l.w);
    assert_true(same(code, l.code));
    drop(code), close_layer(&l);
}

static void scale_of_h_does_not_matter(void **state) {
    (void)state;
    layer l = open_layer(140, 150, 200, grid(4, -1, true), BQ_ORDER_ACT);
    assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
    bq_mat fold = clone(l.fold);
    assert_true(run_layer(&l, 0x1p-12, 0.01, false, BQ_CLIP_MINMAX));
    assert_true(same(fold, l.fold));
    for (int64_t i = 0; i < l.k; i++)
        for (int64_t j = 0; j < l.k; j++) *ptr(l.h, i, j) *= 0x1p8f;
    assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
    assert_true(same(fold, l.fold));
    drop(fold), close_layer(&l);
}

/* Columns of W and H shuffled together. */
static void shuffled_columns(void **state) {
    (void)state;
    int64_t k = 150;
    layer l = open_layer(40, k, 200, grid(4, -1, true), BQ_ORDER_ACT);
    layer m = open_layer(40, k, 200, grid(4, -1, true), BQ_ORDER_ACT);
    for (int64_t i = 0; i < k; i++) {
        for (int64_t n = 0; n < 40; n++) *ptr(m.w, n, i) = *ptr(l.w, n, i * 7 % k);
        for (int64_t j = 0; j < k; j++) *ptr(m.h, i, j) = *ptr(l.h, i * 7 % k, j * 7 % k);
    }
    assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
    assert_true(run_layer(&m, 1, 0.01, false, BQ_CLIP_MINMAX));
    for (int64_t n = 0; n < 40; n++)
        for (int64_t i = 0; i < k; i++) assert_true(*ptr(m.fold, n, i) == *ptr(l.fold, n, i * 7 % k));
    close_layer(&l), close_layer(&m);
}

static void dead_columns_become_zero(void **state) {
    (void)state;
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        layer l = open_layer(20, 140, 200, grid(4, -1, symmetric), BQ_ORDER_ACT);
        for (int64_t t = 0; t < l.x.rows; t++) *ptr(l.x, t, 77) = 0;
        dev.op->gram(&dev, l.x, l.h);
        assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
        for (int64_t n = 0; n < 20; n++) assert_true(*ptr(l.what, n, 77) == 0);
        for (int64_t i = 0; i < 20 * 140; i++) assert_true(isfinite(bq_f32(l.fold)[i]));
        assert_true(rows_unlike_ldlq(&l) == 0);
        close_layer(&l);
    }
}

/* Equal rows get equal codes wherever they stand, and panels may be done one by one. */
static void rows_do_not_interact(void **state) {
    (void)state;
    layer l = open_layer(300, 200, 250, grid(4, 40, false), BQ_ORDER_GAR);
    memcpy(bq_mat_at(l.w, 299, 0), bq_mat_at(l.w, 3, 0), 200 * sizeof(float));
    for (int dynamic = 0; dynamic < 2; dynamic++) {
        assert_true(run_layer(&l, 1, 0.01, dynamic, BQ_CLIP_HESSIAN));
        assert_memory_equal(bq_mat_at(l.fold, 299, 0), bq_mat_at(l.fold, 3, 0), 200 * sizeof(float));
        bq_mat fold = clone(l.w), scale = clone(l.scale), zero = clone(l.zero);
        for (int64_t first = 0, count; first < 300; first += count) {
            count = first ? 300 - first : BQ_GPTQ_ROWS;
            bq_gptq p = {.w = bq_mat_rows(fold, first, count),
                         .ut = l.u,
                         .order = l.order,
                         .diag = l.diag,
                         .scale = bq_mat_rows(scale, first * 5, count * 5),
                         .zero = bq_mat_rows(zero, first * 5, count * 5),
                         .dynamic = dynamic,
                         .clip = BQ_CLIP_HESSIAN};
            dev.op->gptq(&dev, &p, l.s, p.w); /* in place */
        }
        assert_true(same(fold, l.fold) && same(scale, l.scale) && same(zero, l.zero));
        drop(fold), drop(scale), drop(zero);
    }
    close_layer(&l);
}

static void scales_are_rounded_first(void **state) {
    (void)state;
    layer l = open_layer(20, 64, 100, (bq_scheme){4, 32, true, BQ_F16, BQ_GRID_AIMET, 1, 0}, BQ_ORDER_ACT);
    assert_true(run_layer(&l, 1, 0.01, false, BQ_CLIP_MINMAX));
    assert_true(rows_unlike_ldlq(&l) == 0); /* of the scales as they are stored */
    close_layer(&l);
}

static uint64_t bits_with(int threads) {
    uint64_t sum = 1;
    for (int n = 0; n < 3; n++) {
        layer l = open_layer(270, n == 2 ? 300 : 180, 200, grid(n + 2, n ? 60 : -1, n != 1), kinds[n]);
        bq_dev keep = dev;
        dev = cpu_with(threads, bq_gptq_scratch(270, l.k, l.s.group) + bq_factor_scratch(l.k));
        assert_true(run_layer(&l, 1, 0.01, n == 2, BQ_CLIP_MSE));
        bq_dev_close(&dev);
        dev = keep;
        sum = bits_of(bits_of(sum, l.fold), l.scale);
        close_layer(&l);
    }
    return sum;
}

/* Given the factor, which comes out of a BLAS. */
static uint64_t all_bits(void) {
    uint64_t sum = 1;
    int64_t k = 300;
    bq_mat h = make_filled(1, k, 0, 8, 0.1f);
    for (int n = 0; n < 2; n++) {
        static const bq_grid_kind kind[] = {BQ_GRID_AIMET, BQ_GRID_ABSMAX};
        layer l = open_layer(90, k, 5, grid(3, -1, true), BQ_ORDER_NONE);
        for (int64_t i = 0; i < k; i++) {
            *ptr(l.diag, i, 0) = fabsf(*ptr(h, 0, i)), *(int32_t *)bq_mat_at(l.order, i, 0) = (int32_t)i;
            for (int64_t j = 0; j < k; j++) *ptr(l.u, j, i) = i == j ? 2 : j > i ? *ptr(h, 0, j - i) : 0;
        }
        l.s.grid = kind[n];
        dev.op->fit(&dev, l.w, bq_mat_host(l.diag.data, 1, k, BQ_F32), l.s, l.scale, l.zero);
        bq_gptq p = {.w = l.w, .ut = l.u, .order = l.order, .diag = l.diag, .scale = l.scale, .zero = l.zero};
        dev.op->gptq(&dev, &p, l.s, l.fold);
        sum = bits_of(bits_of(sum, l.fold), l.scale);
        close_layer(&l);
    }
    drop(h);
    return sum;
}

static void threads_change_no_layer(void **state) {
    (void)state;
    if (few_cases()) return;
    uint64_t one = bits_with(1);
    for (int i = 2; i <= THREAD_COUNTS; i++) assert_true(one == bits_with(i));
}

int main(void) {
    dev = cpu_with(2, (size_t)16 << 20);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fit_is_the_best_of_its_scales),
        cmocka_unit_test(fit_of_nothing_is_range),
        cmocka_unit_test(equals_ldlq),
        cmocka_unit_test(grids_fitted_on_the_way),
        cmocka_unit_test(grids_see_the_updated_weights),
        cmocka_unit_test(grids_are_searched_on_the_way),
        cmocka_unit_test(equals_the_fixed_point),
        cmocka_unit_test(beats_rounding),
        cmocka_unit_test(floats_beat_rounding),
        cmocka_unit_test(within_babais_bound),
        cmocka_unit_test(unrelated_inputs_are_rounding),
        cmocka_unit_test(scale_of_h_does_not_matter),
        cmocka_unit_test(shuffled_columns),
        cmocka_unit_test(dead_columns_become_zero),
        cmocka_unit_test(rows_do_not_interact),
        cmocka_unit_test(scales_are_rounded_first),
        cmocka_unit_test(threads_change_no_layer),
        SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
