/* SPDX-License-Identifier: Apache-2.0 */
/* range, quantize, dequantize, round_rows and mix of the cpu backend. */
#include "same_bits.h"

#include "base/num.h"
#include "kernels/cpu/vec.h"

#include <float.h>
#include <math.h>
#include <sys/wait.h>

static bq_dev dev;

static int code_at(bq_mat m, int64_t r, int64_t c) { return *(int8_t *)bq_mat_at(m, r, c); }

/* The stored type's nearest number, by means other than base/num.h; finite and > 0. */
static float stored(double x, bq_type type) {
    float f = (float)x;
    if (type == BQ_F16) f = (float)(_Float16)f;
    if (type == BQ_BF16) {
        double step = ldexp(1, ilogb((double)f) - 7);
        f = (float)(rint((double)f / step) * step);
    }
    return f;
}

/* delta of one row: naive, and in float where the contract fixes the operations. */
static float step_oracle(bq_mat w, int64_t r, bq_scheme s) {
    float qmin = bq_qmin(s), qmax = bq_qmax(s), steps = qmax - qmin, lo = 0, hi = 0;
    for (int64_t c = 0; c < w.cols; c++) {
        if (f32(w, r, c) < lo) lo = f32(w, r, c);
        if (f32(w, r, c) > hi) hi = f32(w, r, c);
    }
    if (s.grid == BQ_GRID_ABSMAX) return hi == lo ? 0x1p-23f : (hi > -lo ? hi : -lo) / (steps / 2);
    if ((hi - lo) / steps < 0x1p-23f) {
        hi += floorf(steps / 2) * 0x1p-23f;
        lo -= ceilf(steps / 2) * 0x1p-23f;
    }
    return hi / qmax > lo / qmin ? hi / qmax : lo / qmin;
}

static int code_oracle(float w, float scale, bq_scheme s) {
    double r = rint((double)(w / scale));
    if (r < (double)bq_qmin(s)) return (int)bq_qmin(s);
    return (int)(r > (double)bq_qmax(s) ? (double)bq_qmax(s) : r);
}

static void check_shape(int64_t rows, int64_t cols, bq_scheme s, int64_t pad) {
    bq_mat w = make_filled(rows, cols, pad, 1, 0.05f), back = make(rows, cols, pad + 1, BQ_F32);
    bq_mat scale = make(rows, 1, pad, BQ_F32), code = make(rows, cols, pad + 2, BQ_I8);
    dev.op->range(&dev, w, s, scale, (bq_mat){0});
    dev.op->quantize(&dev, w, scale, (bq_mat){0}, s, code);
    dev.op->dequantize(&dev, code, scale, (bq_mat){0}, s, back);
    dev.op->wait(&dev);
    for (int64_t r = 0; r < rows; r++) {
        assert_true(f32(scale, r, 0) == stored((double)step_oracle(w, r, s), s.scale));
        for (int64_t c = 0; c < cols; c++) {
            assert_int_equal(code_at(code, r, c), code_oracle(f32(w, r, c), f32(scale, r, 0), s));
            assert_true(f32(back, r, c) == (float)code_at(code, r, c) * f32(scale, r, 0));
        }
    }
    assert_true(intact(w) && intact(scale) && intact(code) && intact(back));
    drop(w), drop(back), drop(scale), drop(code);
}

static void oracle_on_odd_shapes(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int b = 0; b < 4; b++)
                for (int t = 0; t < 6; t++) {
                    bq_scheme s = grid_of(bit_widths[b], scale_types[t % 3]);
                    s.grid = t < 3 ? BQ_GRID_AIMET : BQ_GRID_ABSMAX;
                    check_shape(few_rows[i], odd_sizes[j], s, (i + j) % 4);
                }
    check_shape(0, 33, grid_of(4, BQ_F32), 0);
    check_shape(3, 0, grid_of(4, BQ_F32), 1);
}

/* The scale of one row that holds the two numbers. */
static float scale_on(float a, float b, bq_scheme s) {
    float row[2] = {a, b}, scale;
    dev.op->range(&dev, bq_mat_host(row, 1, 2, BQ_F32), s, bq_mat_host(&scale, 1, 1, BQ_F32), (bq_mat){0});
    return scale;
}

static float scale_of(float a, float b, int bits, bq_type type) {
    return scale_on(a, b, grid_of(bits, type));
}

static void absmax_of_special_rows(void **state) {
    (void)state;
    bq_scheme four = {4, -1, true, BQ_F32, BQ_GRID_ABSMAX, 1, 0},
              two = {2, -1, true, BQ_F16, BQ_GRID_ABSMAX, 1, 0};
    assert_true(scale_on(0, -0.0f, four) == 0x1p-23f && scale_on(0, 0, two) == 0x1p-23f);
    assert_true(scale_on(0.75f, -0.1f, four) == 0.1f && scale_on(-0.75f, 0.1f, four) == 0.1f);
    assert_true(scale_on(0x1p-40f, 0, four) == 0x1p-40f / 7.5f); /* nothing is widened */
    assert_true(scale_on(1, -1.5f, two) == 1 && scale_on(1e6f, 0, two) == 65504);
    assert_true(scale_on(NAN, -7.5f, four) == 1 && scale_on(INFINITY, 0, four) == FLT_MAX);
}

static void range_of_special_rows(void **state) {
    (void)state;
    for (int b = 0; b < 4; b++)
        for (int t = 0; t < 3; t++)
            assert_true(scale_of(0, -0.0f, bit_widths[b], scale_types[t]) == 0x1p-23f);
    assert_true(scale_of(0.7f, 0.1f, 4, BQ_F32) == 0.7f / 7);
    assert_true(scale_of(-0.8f, -0.1f, 4, BQ_F32) == 0.8f / 8);
    assert_true(scale_of(-0.8f, 0.1f, 4, BQ_F32) == 0.8f / 8); /* not 0.8 / 7 */
    assert_true(scale_of(0.5f, 0.1f, 2, BQ_F32) == 0.5f);      /* the positive divisor is 1 */
    assert_true(scale_of(-0.5f, 0.1f, 2, BQ_F32) == 0.25f);
    assert_true(scale_of(127, -1, 8, BQ_F32) == 1 && scale_of(1, -128, 8, BQ_F32) == 1);
    /* just below the guard and just above it */
    assert_true(scale_of(0x1p-24f, 0, 4, BQ_F32) == (0x1p-24f + 7 * 0x1p-23f) / 7);
    assert_true(scale_of(15 * 0x1p-23f, 0, 4, BQ_F32) == 15 * 0x1p-23f / 7);
}

static void scales_stay_positive_and_finite(void **state) {
    (void)state;
    assert_true(bq_scale_round(0, BQ_F32) == FLT_TRUE_MIN && bq_scale_round(-1, BQ_F32) == FLT_TRUE_MIN);
    assert_true(bq_scale_round(0x1p-140f, BQ_BF16) == 0x1p-133f && bq_scale_round(1e-9f, BQ_F16) == 0x1p-24f);
    assert_true(bq_scale_round(INFINITY, BQ_F32) == FLT_MAX && bq_scale_round(1e6f, BQ_F16) == 65504);
    assert_true(bq_scale_round(FLT_MAX, BQ_BF16) == 0x1.FEp127f);
    assert_true(isnan(bq_scale_round(NAN, BQ_F32)) && isnan(bq_scale_round(NAN, BQ_BF16)));
    assert_true(isnan(bq_scale_round(NAN, BQ_F16)));
    assert_true(bq_scale_round(0.1f, BQ_F32) == 0.1f &&
                bq_scale_round(0.1f, BQ_F16) == (float)(_Float16)0.1f);
    assert_true(scale_of(INFINITY, -1, 4, BQ_F32) == FLT_MAX && scale_of(1e6f, -1, 4, BQ_F16) == 65504);
    assert_true(scale_of(NAN, -0.8f, 4, BQ_F32) == 0.8f / 8);
}

static int code_of(float w, float scale, int bits) {
    float row[40]; /* the same number in every lane and in the tail */
    int8_t code[40];
    for (int i = 0; i < 40; i++) row[i] = w;
    dev.op->quantize(&dev, bq_mat_host(row, 1, 40, BQ_F32), bq_mat_host(&scale, 1, 1, BQ_F32), (bq_mat){0},
                     grid_of(bits, BQ_F32), bq_mat_host(code, 1, 40, BQ_I8));
    for (int i = 1; i < 40; i++) assert_int_equal(code[i], code[0]);
    return code[0];
}

static void ties_clamps_and_true_division(void **state) {
    (void)state;
    assert_int_equal(code_of(-3.5f, 1, 4), -4);
    assert_int_equal(code_of(-0.5f, 1, 4), 0);
    assert_int_equal(code_of(2.5f, 1, 4), 2);
    assert_int_equal(code_of(-8.5f, 1, 4), -8);
    assert_int_equal(code_of(-9, 1, 4), -8);
    assert_int_equal(code_of(7.5f, 1, 4), 7);
    assert_int_equal(code_of(126.5f, 1, 8), 126);
    assert_int_equal(code_of(-127.5f, 1, 8), -128);
    /* adascale.md case C: multiplying by the reciprocal gives 7, 3, -8 */
    assert_int_equal(code_of(0.194999993f, 0.0299999993f, 4), 6);
    assert_int_equal(code_of(0.38499999f, 0.109999999f, 4), 4);
    assert_int_equal(code_of(-2.25f, 0.300000012f, 4), -7);
    /* beyond what rounding by addition can hold, and no numbers at all */
    assert_int_equal(code_of(1e30f, 1e-3f, 4), 7);
    assert_int_equal(code_of(-1e30f, 1e-30f, 4), -8);
    assert_int_equal(code_of(INFINITY, 1, 8), 127);
    assert_int_equal(code_of(-INFINITY, 1, 8), -128);
    assert_int_equal(code_of(NAN, 1, 4), -8);
    assert_int_equal(code_of(4194304.5f, 1, 2), 1);
}

/* Groups are rows of a reshaped view: each equals a matrix of its own; one group a row is the plain case. */
static void groups_are_short_rows(void **state) {
    (void)state;
    enum { ROWS = 5, COLS = 96 };
    static const int64_t groups[] = {8, 32, COLS};
    bq_scheme s = grid_of(4, BQ_BF16);
    bq_mat w = make_filled(ROWS, COLS, 0, 3, 1), code = make(ROWS, COLS, 0, BQ_I8),
           one = make(1, COLS, 0, BQ_I8);
    for (int i = 0; i < 3; i++) {
        int64_t group = groups[i], count = ROWS * COLS / group;
        bq_mat scale = make(count, 1, 0, BQ_F32), own = make(1, 1, 0, BQ_F32),
               short_rows = bq_mat_reshape(w, group);
        dev.op->range(&dev, short_rows, s, scale, (bq_mat){0});
        dev.op->quantize(&dev, short_rows, scale, (bq_mat){0}, s, bq_mat_reshape(code, group));
        for (int64_t g = 0; g < count; g++) {
            bq_mat alone = bq_mat_rows(short_rows, g, 1), codes = bq_mat_cols(one, 0, group);
            dev.op->range(&dev, alone, s, own, (bq_mat){0});
            dev.op->quantize(&dev, alone, own, (bq_mat){0}, s, codes);
            assert_true(f32(own, 0, 0) == f32(scale, g, 0));
            assert_memory_equal(codes.data, bq_mat_at(bq_mat_reshape(code, group), g, 0), (size_t)group);
        }
        assert_true(intact(scale) && intact(code) && intact(one));
        drop(scale), drop(own);
    }
    drop(w), drop(code), drop(one);
}

/* One row by hand: what compressed-tensors computes in float, operation by operation. */
static void check_fake(int64_t rows, int64_t cols, int bits, int64_t pad) {
    bq_mat x = make_filled(rows, cols, pad, 7, 3), y = make(rows, cols, pad + 1, BQ_F32), same = clone(x);
    float least = -(float)(1 << (bits - 1)), most = -least - 1;
    dev.op->round_rows(&dev, x, bq_rounding_of_tokens(bits), (bq_mat){0}, y);
    dev.op->round_rows(&dev, same, bq_rounding_of_tokens(bits), (bq_mat){0}, same);
    dev.op->wait(&dev);
    for (int64_t r = 0; r < rows; r++) {
        float top = 0;
        for (int64_t c = 0; c < cols; c++) top = fmaxf(top, fabsf(f32(x, r, c)));
        float scale = top / ((most - least) / 2);
        for (int64_t c = 0; c < cols; c++) {
            float code = rintf(fminf(fmaxf(f32(x, r, c) / scale, least), most));
            assert_true(f32(y, r, c) == code * scale && f32(same, r, c) == code * scale);
        }
    }
    assert_true(intact(x) && intact(y) && intact(same));
    drop(x), drop(y), drop(same);
}

static void fake_quantization_has_a_scale_a_row(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int b = 0; b < 4; b++) check_fake(few_rows[i], odd_sizes[j], bit_widths[b], (i + j) % 4);
    check_fake(0, 33, 8, 0);
    check_fake(3, 0, 8, 1);
    /* 127.5 steps: the largest is not its own value, unlike the grid of weights; and a row of zeros */
    float x[3][4] = {{255, -2, 1, 3}, {0, -0.0f, 0, 0}, {-255, 0, 0, 0}}, y[3][4];
    dev.op->round_rows(&dev, bq_mat_host(x, 3, 4, BQ_F32), bq_rounding_of_tokens(8), (bq_mat){0},
                       bq_mat_host(y, 3, 4, BQ_F32));
    static const float want[3][4] = {{254, -2, 0, 4}, {0}, {-256, 0, 0, 0}};
    for (int i = 0; i < 12; i++) assert_true(y[i / 4][i % 4] == want[i / 4][i % 4]);
}

static uint32_t word_at(bq_rng_key key, int64_t element) {
    uint32_t word[4];
    bq_philox(key, (uint32_t)(element / 4), word);
    return word[element % 4];
}

static const bq_rng_key place = {
    .seed = 0x123456789abcdef0u, .sweep = 2, .phase = 3, .block = 29, .iteration = 1000, .sample = 77};

/* Elements of out that differ from `word < p * 2^32 ? qt : fp`; *taken counts qt. */
static int64_t mixed_wrongly(int64_t rows, int64_t cols, int64_t pad, double p, int64_t *taken) {
    bq_mat fp = make_filled(rows, cols, pad, 1, 1), qt = make_filled(rows, cols, pad + 1, 2, 1);
    bq_mat out = make(rows, cols, pad + 3, BQ_F32);
    int64_t wrong = 0;
    *taken = 0;
    dev.op->mix(&dev, fp, qt, p, place, out);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            bool want = (double)word_at(place, r * cols + c) < p * 0x1p32;
            wrong += bq_bits(f32(out, r, c)) != bq_bits(f32(want ? qt : fp, r, c));
            *taken += want;
        }
    assert_true(intact(out));
    drop(fp), drop(qt), drop(out);
    return wrong;
}

static void mix_draws_by_element(void **state) {
    (void)state;
    static const double p[] = {0, 1, 0.5, 0.25, 1e-12, 1 - 1e-12, 0.999};
    int64_t taken;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < ODD_SIZES; j++)
            for (int k = 0; k < 7; k++)
                assert_int_equal(mixed_wrongly(few_rows[i], odd_sizes[j], j % 3, p[k], &taken), 0);
    assert_int_equal(mixed_wrongly(129, 1023, 0, 0.5, &taken), 0); /* rows longer than a block of numbers */
    double n = 129 * 1023;
    assert_true(fabs((double)taken - n / 2) < 5 * sqrt(n / 4));
    assert_int_equal(mixed_wrongly(129, 1023, 0, 0, &taken), 0);
    assert_int_equal(taken, 0);
    assert_int_equal(mixed_wrongly(129, 1023, 0, 1, &taken), 0);
    assert_int_equal(taken, 129 * 1023);
}

/* p * 2^32 equal to an element's number leaves that element with fp; any more gives it qt. */
static void mix_compares_strictly(void **state) {
    (void)state;
    float fp[7] = {0}, qt[7] = {1, 1, 1, 1, 1, 1, 1}, out[7];
    for (int i = 0; i < 7; i++) {
        for (double more = 0; more <= 1; more += 0.5) {
            double p = (word_at(place, i) + more) * 0x1p-32;
            dev.op->mix(&dev, bq_mat_host(fp, 1, 7, BQ_F32), bq_mat_host(qt, 1, 7, BQ_F32), p, place,
                        bq_mat_host(out, 1, 7, BQ_F32));
            assert_true(out[i] == (more > 0 ? 1 : 0));
        }
    }
}

/* All outputs of the five ops on a matrix that is large enough for threads to share. */
static uint64_t all_bits(void) {
    uint64_t bits = 1;
    bq_mat w = make_filled(131, 257, 3, 4, 0.03f), qt = make_filled(131, 257, 0, 5, 1), out = clone(w);
    bq_mat scale = make(131, 1, 0, BQ_F32), code = make(131, 257, 1, BQ_I8);
    bq_mat whole = bq_mat_rows(w, 0, 131);
    *(float *)bq_mat_at(w, 7, 250) = INFINITY, *(float *)bq_mat_at(w, 8, 1) = -1e20f;
    for (int b = 0; b < 4; b++) {
        bq_scheme s = grid_of(bit_widths[b], scale_types[b % 3]);
        dev.op->range(&dev, whole, s, scale, (bq_mat){0});
        dev.op->quantize(&dev, whole, scale, (bq_mat){0}, s, code);
        dev.op->dequantize(&dev, code, scale, (bq_mat){0}, s, out);
        bits = bits_of(bits_of(bits_of(bits, scale), code), out);
    }
    dev.op->mix(&dev, w, qt, 0.37, place, out);
    bits = bits_of(bits, out);
    dev.op->round_rows(&dev, qt, bq_rounding_of_tokens(8), (bq_mat){0}, out);
    bits = bits_of(bits, out);
    drop(w), drop(qt), drop(out), drop(scale), drop(code);
    return bits;
}

/* Exit code of a child that quantizes a 2 x 3 matrix with a wrong argument. */
static int refused(bq_scheme s, int64_t scales) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        float w[6] = {0}, scale[6] = {1, 1, 1, 1, 1, 1};
        int8_t code[6];
        if (!freopen("/dev/null", "w", stderr)) _exit(9);
        dev.op->quantize(&dev, bq_mat_host(w, 2, 3, BQ_F32), bq_mat_host(scale, scales, 1, BQ_F32),
                         (bq_mat){0}, s, bq_mat_host(code, 2, 3, BQ_I8));
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void wrong_arguments_die(void **state) {
    (void)state;
    assert_int_equal(refused(grid_of(4, BQ_F32), 2), 0);
    assert_int_equal(refused(grid_of(4, BQ_F32), 3), 1);
    assert_int_equal(refused(grid_of(9, BQ_F32), 2), 1);
    assert_int_equal(refused(grid_of(0, BQ_F32), 2), 1);
    assert_int_equal(refused((bq_scheme){4, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0}, 2), 1);
}

int main(void) {
    dev = cpu_with(2, 0);
    if (isa_child()) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oracle_on_odd_shapes),
        cmocka_unit_test(range_of_special_rows),
        cmocka_unit_test(absmax_of_special_rows),
        cmocka_unit_test(scales_stay_positive_and_finite),
        cmocka_unit_test(ties_clamps_and_true_division),
        cmocka_unit_test(groups_are_short_rows),
        cmocka_unit_test(fake_quantization_has_a_scale_a_row),
        cmocka_unit_test(mix_draws_by_element),
        cmocka_unit_test(mix_compares_strictly),
        SAME_BITS,
        cmocka_unit_test(wrong_arguments_die),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    return failed;
}
