/* SPDX-License-Identifier: Apache-2.0 */
/* Grid searches of the cpu backend: range_shrunk, range_mse, range_better, range_levels. */
#include "same_bits.h"

#include "base/num.h"
#include "kernels/cpu/vec.h"

#include <float.h>
#include <math.h>

static const bq_scheme schemes[] = {
    {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},  {4, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0},
    {2, -1, true, BQ_BF16, BQ_GRID_AIMET, 1, 0}, {3, -1, false, BQ_F16, BQ_GRID_AIMET, 1, 0},
    {8, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},  {8, -1, false, BQ_BF16, BQ_GRID_AIMET, 1, 0},
    {4, -1, true, BQ_F16, BQ_GRID_ABSMAX, 1, 0}};
#define SCHEMES ((int)(sizeof schemes / sizeof *schemes))
static bq_dev dev;

static bq_mat zeros_of(bq_scheme s, int64_t rows) {
    return s.symmetric ? (bq_mat){0} : make(rows, 1, 1, BQ_F32);
}
static bool guarded(bq_mat m) { return !m.data || intact(m); }

/* What the grid makes of x, from the contracts of quantize and dequantize. */
static float made_of(float x, float scale, float zero, bq_scheme s) {
    double q = rint((double)(x / scale)) + (double)zero;
    q = q < (double)bq_qmin(s) ? (double)bq_qmin(s) : q > (double)bq_qmax(s) ? (double)bq_qmax(s) : q;
    return (float)(q - (double)zero) * scale;
}

/* The min-max grids of a row whose ends are shrunk, `count` times: `range` itself on rows of two ends. */
enum { MOST = 300 };
static void grids_of(bq_mat w, int64_t r, const float *shrink, int count, bq_scheme s, float *scale,
                     float *zero) {
    float lo = 0, hi = 0, ends[MOST][2];
    for (int64_t c = 0; c < w.cols; c++) {
        float x = *(float *)bq_mat_at(w, r, c);
        lo = x < lo ? x : lo, hi = x > hi ? x : hi;
    }
    for (int i = 0; i < count; i++) ends[i][0] = lo * shrink[i], ends[i][1] = hi * shrink[i], zero[i] = 0;
    dev.op->range(&dev, bq_mat_host(ends, count, 2, BQ_F32), s, bq_mat_host(scale, count, 1, BQ_F32),
                  s.symmetric ? (bq_mat){0} : bq_mat_host(zero, count, 1, BQ_F32));
}

static void check_shrunk(int64_t rows, int64_t cols, bq_scheme s, float shrink, int64_t pad) {
    bq_mat w = make_filled(rows, cols, pad, 1, 0.05f), e = make(rows, cols, pad + 1, BQ_F32);
    bq_mat scale = make(rows, 1, 2, BQ_F32), zero = zeros_of(s, rows), again = make(rows, 1, 0, BQ_F32);
    dev.op->range_shrunk(&dev, w, s, shrink, scale, zero, e);
    dev.op->range_shrunk(&dev, w, s, shrink, again, zero, (bq_mat){0});
    for (int64_t r = 0; r < rows; r++) {
        float want, code;
        grids_of(w, r, &shrink, 1, s, &want, &code);
        assert_true(f32(scale, r, 0) == want && f32(again, r, 0) == want);
        assert_true(s.symmetric || f32(zero, r, 0) == code);
        for (int64_t c = 0; c < cols; c++) {
            float x = *(float *)bq_mat_at(w, r, c);
            assert_true((float)at(e, r, c) == made_of(x, want, code, s) - x);
        }
    }
    assert_true(intact(e) && intact(scale) && guarded(zero) && intact(again));
    drop(w), drop(e), drop(scale), drop(zero), drop(again);
}

static void shrunk_on_odd_shapes(void **state) {
    (void)state;
    static const float shrinks[] = {1, 0.95f, 0.5f, 0.05f};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int k = 0; k < SCHEMES; k++)
                check_shrunk(few_rows[i], odd_sizes[j], schemes[k], shrinks[(i + j + k) % 4], j % 3);
    check_shrunk(0, 33, schemes[0], 1, 0);
    check_shrunk(3, 0, schemes[1], 0.5f, 1);
}

static double loss_of(bq_mat w, int64_t r, float scale, float zero, bq_scheme s, bq_norm norm) {
    double sum = 0;
    for (int64_t c = 0; c < w.cols; c++) {
        float x = *(float *)bq_mat_at(w, r, c);
        sum += pow(fabs((double)(made_of(x, scale, zero, s) - x)), norm == BQ_NORM_2 ? 2 : 2.4);
    }
    return sum;
}

/* The choice is one of the grids, none is better by more than rounding, and none that is wider is as good. */
static void check_mse(int64_t rows, int64_t cols, bq_scheme s, bq_shrink ends, int64_t pad) {
    bq_mat w = make_filled(rows, cols, pad, 2, 0.05f), scale = make(rows, 1, 1, BQ_F32),
           zero = zeros_of(s, rows);
    float shrink[MOST];
    for (int i = 0; i < ends.count; i++) shrink[i] = (float)(1 - (double)i / ends.steps);
    dev.op->range_mse(&dev, w, s, ends, scale, zero);
    for (int64_t r = 0; r < rows; r++) {
        float chosen = f32(scale, r, 0), code = s.symmetric ? 0 : f32(zero, r, 0), step[MOST], z[MOST];
        double loss = loss_of(w, r, chosen, code, s, ends.norm);
        int found = 0;
        grids_of(w, r, shrink, ends.count, s, step, z);
        for (int i = 0; i < ends.count; i++) {
            double other = loss_of(w, r, step[i], z[i], s, ends.norm);
            found += step[i] == chosen && z[i] == code;
            assert_true(loss <= other * (1 + 4e-6));
            assert_true(found || loss < other * (1 + 4e-6));
        }
        assert_true(found >= 1);
    }
    assert_true(intact(scale) && guarded(zero));
    drop(w), drop(scale), drop(zero);
}

static void mse_on_odd_shapes(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int k = 0; k < SCHEMES; k++)
                for (int norm = few_cases() ? (i + j + k) % 2 : 0; norm < 2; norm += few_cases() ? 2 : 1)
                    check_mse(few_rows[i], odd_sizes[j], schemes[k],
                              (bq_shrink){100, 80, norm ? BQ_NORM_24 : BQ_NORM_2}, j % 3);
    check_mse(0, 33, schemes[0], (bq_shrink){100, 80, BQ_NORM_2}, 0);
    check_mse(3, 0, schemes[1], (bq_shrink){100, 80, BQ_NORM_24}, 0);
    check_mse(5, 700, schemes[0], (bq_shrink){300, 300, BQ_NORM_24}, 0); /* more grids than one call takes */
    check_mse(5, 127, schemes[1], (bq_shrink){1000, 257, BQ_NORM_2}, 0);
    check_mse(3, 129, schemes[0], (bq_shrink){1, 1, BQ_NORM_2}, 0);
}

/* Clipping does help: a row with one far weight is cut below it. */
static void mse_clips_a_far_weight(void **state) {
    (void)state;
    bq_mat w = make_filled(1, 512, 0, 3, 0.01f), scale = make(1, 1, 0, BQ_F32), plain = make(1, 1, 0, BQ_F32);
    *(float *)bq_mat_at(w, 0, 100) = 0.06f;
    dev.op->range(&dev, w, schemes[0], plain, (bq_mat){0});
    for (int norm = 0; norm < 2; norm++) {
        bq_norm n = norm ? BQ_NORM_24 : BQ_NORM_2;
        dev.op->range_mse(&dev, w, schemes[0], (bq_shrink){100, 80, n}, scale, (bq_mat){0});
        assert_true(f32(scale, 0, 0) < 0.9f * f32(plain, 0, 0));
        assert_true(loss_of(w, 0, f32(scale, 0, 0), 0, schemes[0], n) <
                    0.8 * loss_of(w, 0, f32(plain, 0, 0), 0, schemes[0], n));
    }
    drop(w), drop(scale), drop(plain);
}

static void special_rows_keep_min_max(void **state) {
    (void)state;
    static const float row[][3] = {{0, 0, 0},
                                   {NAN, 0.5f, -0.3f},
                                   {INFINITY, 1, 0},
                                   {7, -8, 3} /* on the grid: no error */,
                                   {1e-30f, -1e-30f, 0}};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 2; k++) {
            float scale[2], zero[2] = {0, 0}, w[3];
            memcpy(w, row[i], sizeof w);
            bq_mat m = bq_mat_host(w, 1, 3, BQ_F32), none = {0};
            dev.op->range(&dev, m, schemes[k], bq_mat_host(scale, 1, 1, BQ_F32),
                          k ? bq_mat_host(zero, 1, 1, BQ_F32) : none);
            dev.op->range_mse(&dev, m, schemes[k], (bq_shrink){100, 80, BQ_NORM_24},
                              bq_mat_host(scale + 1, 1, 1, BQ_F32),
                              k ? bq_mat_host(zero + 1, 1, 1, BQ_F32) : none);
            assert_true(scale[0] == scale[1] && zero[0] == zero[1] && scale[0] > 0);
        }
}

static void check_better(int64_t rows, int64_t cols, bool zeros, int64_t pad) {
    bq_mat a = make_filled(rows, cols, pad, 4, 1), b = make_filled(rows, cols, pad + 2, 5, 1);
    bq_mat column[4], loss = make(rows, 1, 1, BQ_F64), none = {0};
    for (int k = 0; k < 4; k++) column[k] = make_filled(rows, 1, (int64_t)k, 10 + (uint32_t)k, 1);
    bq_mat scale = column[0], zero = zeros ? column[1] : none, best = column[2],
           best_zero = zeros ? column[3] : none;
    bq_mat was = clone(best), was_zero = clone(column[3]);
    double *want = malloc((size_t)(rows + 1) * sizeof *want);
    if (!want) abort();
    for (int64_t r = 0; r < rows;
         r++) { /* some better than the candidate, some worse, by little and by much */
        want[r] = 0;
        for (int64_t c = 0; c < cols; c++) want[r] += at(a, r, c) * at(b, r, c);
        *(double *)bq_mat_at(loss, r, 0) = want[r] + (r % 2 ? 1 : -1) * (r % 3 ? 1e-9 : 10);
    }
    dev.op->range_better(&dev, false, a, b, scale, zero, loss, best, best_zero);
    for (int64_t r = 0; r < rows; r++) {
        assert_true(f32(best, r, 0) == (r % 2 ? f32(scale, r, 0) : f32(was, r, 0)));
        assert_true(f32(column[3], r, 0) == (zeros && r % 2 ? f32(zero, r, 0) : f32(was_zero, r, 0)));
        double now = *(double *)bq_mat_at(loss, r, 0);
        assert_true(fabs(now - (r % 2 ? want[r] : want[r] - (r % 3 ? 1e-9 : 10))) < 1e-11);
    }
    dev.op->range_better(&dev, true, a, b, scale, zero, loss, best, best_zero);
    for (int64_t r = 0; r < rows; r++)
        assert_true(f32(best, r, 0) == f32(scale, r, 0) &&
                    fabs(*(double *)bq_mat_at(loss, r, 0) - want[r]) < 1e-11);
    assert_true(intact(loss) && intact(best) && intact(column[3]));
    drop(a), drop(b), drop(loss), drop(was), drop(was_zero), free(want);
    for (int k = 0; k < 4; k++) drop(column[k]);
}

static void better_replaces_what_is_worse(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++) check_better(few_rows[i], odd_sizes[j], j % 2 != 0, j % 3);
    check_better(0, 5, true, 0);
    check_better(2, 0, false, 0);
    /* an equal loss and one that is no number change nothing */
    float row[2] = {1, 2}, scale = 3, best = 4;
    double loss = 5;
    for (int k = 0; k < 2; k++, row[0] = NAN) {
        dev.op->range_better(&dev, false, bq_mat_host(row, 1, 2, BQ_F32), bq_mat_host(row, 1, 2, BQ_F32),
                             bq_mat_host(&scale, 1, 1, BQ_F32), (bq_mat){0}, bq_mat_host(&loss, 1, 1, BQ_F64),
                             bq_mat_host(&best, 1, 1, BQ_F32), (bq_mat){0});
        assert_true(best == 4 && loss == 5);
    }
}

static const int digits[] = {24, 8, 11};

static float rounded(float x, bq_type type) {
    return type == BQ_F32 ? x : type == BQ_BF16 ? bq_from_bf16(bq_to_bf16(x)) : bq_from_f16(bq_to_f16(x));
}

static void check_levels(int64_t rows, int64_t groups, int levels, int t, float size) {
    bq_type type = scale_types[t];
    bq_mat scale = make_filled(rows, groups, 3, 6, size);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < groups; g++) {
            float *x = bq_mat_at(scale, r, g);
            *x = rounded(fabsf(*x) + size * 1e-3f, type);
        }
    bq_mat was = clone(scale);
    dev.op->range_levels(&dev, scale, levels, type);
    for (int64_t r = 0; r < rows; r++) {
        double most = 0, top = 0;
        for (int64_t g = 0; g < groups; g++) {
            most = at(was, r, g) > most ? at(was, r, g) : most;
            top = at(scale, r, g) > top ? at(scale, r, g) : top;
        }
        double unit = top / levels;
        assert_true(top <= most && most - top <= most * ldexp(levels, 1 - digits[t]));
        for (int64_t g = 0; g < groups; g++) {
            double k = at(scale, r, g) / unit, exact = at(was, r, g) / unit;
            assert_true(k == rint(k) && k >= 1 && k <= levels); /* whole, without a tolerance */
            assert_true((float)at(scale, r, g) == rounded((float)at(scale, r, g), type));
            assert_true(fabs(k - exact) <= 0.5 * (1 + 1e-6) || (k == 1 && exact < 1) ||
                        (k == levels && exact > k));
        }
    }
    assert_true(intact(scale));
    drop(scale), drop(was);
}

static void levels_are_whole(void **state) {
    (void)state;
    static const int64_t group_counts[] = {1, 2, 9, 31, 128};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 5; j++)
            for (int t = 0; t < 3; t++)
                for (int levels = 1; levels <= 64; levels *= 2)
                    check_levels(few_rows[i], group_counts[j], levels, t, t == 2 ? 0.3f : 0.003f);
    check_levels(0, 4, 16, 0, 1);
    /* the example of adascale.md 6.3 */
    float row[2] = {0.1f, 0.12f};
    dev.op->range_levels(&dev, bq_mat_host(row, 1, 2, BQ_F32), 16, BQ_F32);
    assert_true(row[0] * 16 == 13 * row[1] && fabsf(row[1] - 0.12f) < 1e-6f);
    /* ends of the types, and no number */
    float ends[4] = {FLT_MAX, 65504, FLT_TRUE_MIN, NAN};
    for (int k = 0; k < 4; k++)
        dev.op->range_levels(&dev, bq_mat_host(ends + k, 1, 1, BQ_F32), 16, k == 1 ? BQ_F16 : BQ_F32);
    assert_true(ends[0] <= FLT_MAX && ends[0] > 0.99f * FLT_MAX);
    assert_true(ends[1] <= 65504 && ends[1] > 65000 && rounded(ends[1], BQ_F16) == ends[1]);
    assert_true(ends[2] == FLT_TRUE_MIN && isnan(ends[3]));
}

/* All outputs on a matrix that threads share. */
static uint64_t all_bits(void) {
    uint64_t bits = 1;
    bq_mat w = make_filled(131, 257, 3, 4, 0.03f), e = make(131, 257, 1, BQ_F32);
    bq_mat scale = make(131, 1, 0, BQ_F32), best = make(131, 1, 0, BQ_F32), loss = make(131, 1, 0, BQ_F64);
    *(float *)bq_mat_at(w, 7, 250) = INFINITY, *(float *)bq_mat_at(w, 8, 1) = -1e20f;
    for (int k = 0; k < SCHEMES; k++) {
        bq_mat zero = zeros_of(schemes[k], 131), best_zero = zeros_of(schemes[k], 131);
        for (int i = 4; i > 0; i--) {
            dev.op->range_shrunk(&dev, w, schemes[k], (float)i / 4, scale, zero, e);
            dev.op->range_better(&dev, i == 4, e, w, scale, zero, loss, best, best_zero);
            bits = bits_of(bits_of(bits, e), loss);
        }
        bits = bits_of(bits, best);
        dev.op->range_mse(&dev, w, schemes[k], (bq_shrink){50, 40, k % 2 ? BQ_NORM_2 : BQ_NORM_24}, scale,
                          zero);
        bits = bits_of(bits, scale);
        if (zero.data) bits = bits_of(bits_of(bits, zero), best_zero);
        dev.op->range_levels(&dev, bq_mat_host(scale.data, 1, 131, BQ_F32), 16, schemes[k].scale);
        bits = bits_of(bits, scale);
        drop(zero), drop(best_zero);
    }
    drop(w), drop(e), drop(scale), drop(best), drop(loss);
    return bits;
}

int main(void) {
    dev = cpu_with(2, 0);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shrunk_on_odd_shapes),
        cmocka_unit_test(mse_on_odd_shapes),
        cmocka_unit_test(mse_clips_a_far_weight),
        cmocka_unit_test(special_rows_keep_min_max),
        cmocka_unit_test(better_replaces_what_is_worse),
        cmocka_unit_test(levels_are_whole),
        SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
