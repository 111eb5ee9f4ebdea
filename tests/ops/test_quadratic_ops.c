/* SPDX-License-Identifier: Apache-2.0 */
/* half_quadratic of the cpu backend. */
#include "same_bits.h"

#include <math.h>

static const bq_scheme schemes[] = {
    {4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},   {4, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0},
    {2, -1, false, BQ_BF16, BQ_GRID_AIMET, 1, 0}, {3, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0},
    {8, -1, true, BQ_F16, BQ_GRID_ABSMAX, 1, 0},  {2, -1, true, BQ_F32, BQ_GRID_ABSMAX, 1, 0}};
#define SCHEMES ((int)(sizeof schemes / sizeof *schemes))
enum { STEPS = 6, MOST = 17 };
static bq_dev dev;

static float value(bq_mat m, int64_t r) { return m.data ? f32(m, r, 0) : 0; }
static bool guarded(bq_mat m) { return !m.data || intact(m); }
static bq_quadratic options(bq_solve solve) {
    return (bq_quadratic){.solve = solve, .iterations = 1, .p = 0.7, .beta = 10, .kappa = 1.01};
}

/* The code of x and its error, from the contract. */
static double error_of(float x, float scale, float zero, bq_scheme s, double *code) {
    double q = (double)rintf(x / scale + zero);
    q = q < (double)bq_qmin(s) ? (double)bq_qmin(s) : q > (double)bq_qmax(s) ? (double)bq_qmax(s) : q;
    *code = q;
    return (double)x - (q - (double)zero) * (double)scale;
}

static double loss_of(bq_mat w, int64_t r, float scale, float zero, bq_scheme s) {
    double sum = 0, q;
    for (int64_t c = 0; c < w.cols; c++) sum += fabs(error_of((float)at(w, r, c), scale, zero, s, &q));
    return sum;
}

/* One iteration of a row in double: the new scale, or the new zero point. */
static double step_of(bq_mat w, int64_t r, float scale, float zero, bq_scheme s, bq_quadratic o) {
    double top = 0, below = 0, q;
    for (int64_t c = 0; c < w.cols; c++) {
        double x = at(w, r, c), d = error_of((float)x, scale, zero, s, &q), size = fabs(d);
        double left = size > 0 ? fmax(size - pow(size, o.p - 1) / o.beta, 0) : 0, k = q - (double)zero;
        double fitted = x - copysign(left, d);
        top += o.solve == BQ_SOLVE_ZERO ? q - fitted / (double)scale : fitted * k;
        below += o.solve == BQ_SOLVE_ZERO ? 1 : k * k;
    }
    if (o.solve == BQ_SOLVE_ZERO) return top / below;
    return below > 0 && top > 0 ? (double)bq_scale_round((float)(top / below), s.scale) : (double)scale;
}

/* The grids of single iterations from min-max; beta grows as in one call. */
static void check_steps(bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero,
                        float (*grid)[MOST][2]) {
    for (int i = 0; i < STEPS; i++, o.beta *= o.kappa) {
        for (int64_t r = 0; r < w.rows; r++) grid[i][r][0] = value(scale, r), grid[i][r][1] = value(zero, r);
        dev.op->half_quadratic(&dev, w, s, o, scale, zero);
        for (int64_t r = 0; r < w.rows; r++) {
            double was[2] = {(double)grid[i][r][0], (double)grid[i][r][1]},
                   want = step_of(w, r, grid[i][r][0], grid[i][r][1], s, o), fine = 1e-5 * fabs(want) + 1e-30;
            if (s.scale == BQ_BF16) fine = 0x1p-8 * want; /* a sum between two numbers of the type */
            if (s.scale == BQ_F16) fine = 0x1p-10 * want + 0x1p-24;
            if (o.solve == BQ_SOLVE_ZERO) fine = 2e-5;
            assert_true(fabs((double)(o.solve == BQ_SOLVE_ZERO ? value(zero, r) : value(scale, r)) - want) <=
                        fine);
            assert_true((double)(o.solve == BQ_SOLVE_ZERO ? value(scale, r) : value(zero, r)) ==
                        was[o.solve == BQ_SOLVE_SCALE]);
        }
    }
}

/* With early_stop a row ends with the last grid up to which the errors fall. */
static void check_stop(bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero, float (*grid)[MOST][2]) {
    for (int64_t r = 0; r < w.rows; r++) {
        int end = 0;
        while (end < STEPS && (value(scale, r) != grid[end][r][0] || value(zero, r) != grid[end][r][1]))
            end++;
        assert_true(end < STEPS);
        double loss[STEPS], fine = 0;
        for (int64_t c = 0; c < w.cols; c++) fine += 2e-7 * fabs(at(w, r, c)); /* errors are in f32 */
        for (int i = 0; i < STEPS; i++) loss[i] = loss_of(w, r, grid[i][r][0], grid[i][r][1], s);
        for (int i = 1; i <= end; i++) assert_true(loss[i] < loss[i - 1] + fine);
        assert_true(end == STEPS - 1 || loss[end + 1] >= loss[end] - fine);
    }
}

static void check(int64_t rows, int64_t cols, bq_scheme s, bq_solve solve, float deviation, int64_t pad) {
    bq_mat w = make_filled(rows, cols, pad, 1, deviation), scale = make(rows, 1, 1, BQ_F32), none = {0};
    bq_mat zero = s.symmetric ? none : make(rows, 1, 2, BQ_F32);
    float grid[STEPS][MOST][2];
    bq_quadratic o = options(solve);
    dev.op->range(&dev, w, s, scale, zero);
    bq_mat start = clone(scale), start_zero = zero.data ? clone(zero) : none;
    check_steps(w, s, o, scale, zero, grid);
    bq_mat last = clone(scale), last_zero = zero.data ? clone(zero) : none;
    o.iterations = STEPS;
    for (int k = 0; k < 3; k++) { /* in one call; rounded at the end; with the stop */
        dev.op->copy(&dev, start, scale);
        if (zero.data) dev.op->copy(&dev, start_zero, zero);
        o.whole = k == 1, o.early_stop = k == 2;
        dev.op->half_quadratic(&dev, w, s, o, scale, zero);
        if (k < 2) assert_true(same(scale, last));
        for (int64_t r = 0; zero.data && k < 2 && r < rows; r++)
            assert_true(value(zero, r) ==
                        (k ? bq_quadratic_whole(s, value(last_zero, r)) : value(last_zero, r)));
        if (k == 2) check_stop(w, s, scale, zero, grid);
    }
    assert_true(intact(scale) && guarded(zero));
    drop(w), drop(scale), drop(zero), drop(start), drop(start_zero), drop(last), drop(last_zero);
}

static void on_odd_shapes(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int k = 0; k < SCHEMES; k++)
                for (int solve = BQ_SOLVE_SCALE; solve <= (schemes[k].symmetric ? 0 : BQ_SOLVE_ZERO); solve++)
                    for (int big = few_cases() ? (i + j + k) % 2 : 0; big < 2; big += few_cases() ? 2 : 1)
                        check(few_rows[i], odd_sizes[j], schemes[k], (bq_solve)solve, big ? 1 : 0.05f, j % 3);
    check(0, 33, schemes[0], BQ_SOLVE_SCALE, 1, 0);
}

/* The shrinkage counts: with it, another grid than without. */
static void large_errors_are_left_out(void **state) {
    (void)state;
    bq_mat w = make_filled(3, 127, 0, 2, 1), scale[3];
    for (int k = 0; k < 3; k++) {
        bq_quadratic o = options(BQ_SOLVE_SCALE);
        scale[k] = make(3, 1, 0, BQ_F32);
        dev.op->range(&dev, w, schemes[5], scale[k], (bq_mat){0});
        if (k == 1) o.beta = 1e-30; /* a plain least squares fit */
        if (k == 2) o.p = 1;
        dev.op->half_quadratic(&dev, w, schemes[5], o, scale[k], (bq_mat){0});
    }
    for (int64_t r = 0; r < 3; r++)
        assert_true(value(scale[0], r) != value(scale[1], r) && value(scale[2], r) != value(scale[1], r));
    drop(w), drop(scale[0]), drop(scale[1]), drop(scale[2]);
}

/* What a zero point wins by its fraction is lost when it is rounded. */
static void fractions_are_the_gain(void **state) {
    (void)state;
    enum { ROWS = 100 };
    bq_mat w = make_filled(ROWS, 64, 0, 3, 0.05f), scale = make(ROWS, 1, 0, BQ_F32),
           zero = make(ROWS, 1, 0, BQ_F32);
    double loss[3] = {0};
    for (int k = 0; k < 3; k++) {
        bq_quadratic o = options(BQ_SOLVE_ZERO);
        o.iterations = 20, o.early_stop = true, o.whole = k == 2;
        dev.op->range(&dev, w, schemes[1], scale, zero);
        if (k > 0) dev.op->half_quadratic(&dev, w, schemes[1], o, scale, zero);
        for (int64_t r = 0; r < ROWS; r++)
            loss[k] += loss_of(w, r, value(scale, r), value(zero, r), schemes[1]);
    }
    print_message("of the error of min-max: %.3f, rounded %.3f\n", loss[1] / loss[0], loss[2] / loss[0]);
    assert_true(loss[1] < 0.96 * loss[0] && loss[2] > 0.99 * loss[0] && loss[2] < 1.01 * loss[0]);
    drop(w), drop(scale), drop(zero);
}

static void special_rows_keep_their_grid(void **state) {
    (void)state;
    static const float row[][3] = {
        {0, 0, 0}, {NAN, 0.5f, -0.3f}, {INFINITY, 1, 0}, {-INFINITY, 1, 0}, {7, -8, 3} /* no error */};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 4; k++) {
            float w[3], scale[2], zero[2] = {0, 0};
            bq_mat m = bq_mat_host(w, 1, 3, BQ_F32), none = {0};
            bq_quadratic o = options(k < 3 ? BQ_SOLVE_SCALE : BQ_SOLVE_ZERO);
            o.iterations = 20, o.early_stop = k != 1;
            memcpy(w, row[i], sizeof w);
            for (int at = 0; at < 2; at++) {
                bq_mat z = k < 2 ? none : bq_mat_host(zero + at, 1, 1, BQ_F32);
                dev.op->range(&dev, m, schemes[k < 2 ? 0 : 1], bq_mat_host(scale + at, 1, 1, BQ_F32), z);
                if (at == 1)
                    dev.op->half_quadratic(&dev, m, schemes[k < 2 ? 0 : 1], o,
                                           bq_mat_host(scale + 1, 1, 1, BQ_F32), z);
            }
            assert_true(scale[0] == scale[1] && zero[0] == zero[1]);
        }
}

/* All outputs on a matrix that threads share. */
static uint64_t all_bits(void) {
    uint64_t bits = 1;
    bq_mat w = make_filled(37, 517, 3, 4, 0.5f), scale = make(37, 1, 0, BQ_F32), none = {0};
    *(float *)bq_mat_at(w, 7, 250) = INFINITY, *(float *)bq_mat_at(w, 8, 1) = -1e20f;
    for (int k = 0; k < SCHEMES; k++)
        for (int solve = 0; solve < (schemes[k].symmetric ? 1 : 2); solve++)
            for (int stop = 0; stop < 2; stop++) {
                bq_mat zero = schemes[k].symmetric ? none : make(37, 1, 1, BQ_F32);
                bq_quadratic o = options((bq_solve)solve);
                o.iterations = few_cases() ? 3 : 9, o.early_stop = stop, o.whole = stop;
                dev.op->range(&dev, w, schemes[k], scale, zero);
                dev.op->half_quadratic(&dev, w, schemes[k], o, scale, zero);
                bits = bits_of(bits, scale);
                if (zero.data) bits = bits_of(bits, zero);
                drop(zero);
            }
    drop(w), drop(scale);
    return bits;
}

int main(void) {
    dev = cpu_with(2, 0);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_odd_shapes),
        cmocka_unit_test(large_errors_are_left_out),
        cmocka_unit_test(fractions_are_the_gain),
        cmocka_unit_test(special_rows_keep_their_grid),
        SAME_BITS,
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
