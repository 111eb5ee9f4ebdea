/* SPDX-License-Identifier: Apache-2.0 */
/* The iterations of half_quadratic against torchao and hqq (tests/vectors/README.md).  Their zero points are
 * fractions, so the loop is compared before blockq rounds them. */
#include "golden.h"

#include "kernels/ops.h"

static golden g;
static bq_dev dev;

/* All values of a tensor, and how many. */
static void *values(const char *name, bq_type type, int64_t *count) {
    bq_mat m = golden_read(&g, type, -1, -1, "%s", name);
    if (count) *count = m.rows * m.cols;
    return m.data;
}

static void *read_of(const char *name, const char *key, bq_type type, int64_t *count) {
    char full[96];
    snprintf(full, sizeof full, "%s/%s", name, key);
    return values(full, type, count);
}

static float code_of(float w, float scale, float zero, bq_scheme s) {
    return fminf(fmaxf(rintf(w / scale + zero), bq_qmin(s)), bq_qmax(s));
}

static const struct {
    const char *name, *input;
    int bits;
    int64_t group;
    double kappa;
} zeros[] = {{"hqq_ao/W_4_g64", "in/W", 4, 64, 1.01}, {"hqq_ao/W_3_g32", "in/W", 3, 32, 1.01},
             {"hqq_ao/B_3_g32", "in/B", 3, 32, 1.01}, {"hqq_ao/W_2_g32", "in/W", 2, 32, 1.01},
             {"hqq_ao/B_2_g32", "in/B", 2, 32, 1.01}, {"hqq/W_4_g64", "in/W", 4, 64, 1},
             {"hqq/W_4_g64_rz", "in/W", 4, 64, 1},    {"hqq/W_3_g32", "in/W", 3, 32, 1},
             {"hqq/W_2_g16", "in/W", 2, 16, 1}};

/* Every zero point of every iteration, and every code; the peers' codes and zero points are unsigned. */
static void zero_points(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof zeros / sizeof *zeros; k++) {
        bq_scheme s = {zeros[k].bits, -1, false, BQ_F32, BQ_GRID_AIMET, 1, 0};
        int64_t count, rows, all;
        float *w = values(zeros[k].input, BQ_F32, &count),
              *inv = read_of(zeros[k].name, "inv_scale", BQ_F32, &rows),
              *first = read_of(zeros[k].name, "zero0", BQ_F32, NULL),
              *want = read_of(zeros[k].name, "zero_iter", BQ_F32, &all);
        uint8_t *code = read_of(zeros[k].name, "q", BQ_U8, NULL);
        float *scale = malloc((size_t)rows * sizeof *scale), *zero = malloc((size_t)rows * sizeof *zero);
        int iterations = (int)(all / rows);
        assert_true(scale && zero && rows * zeros[k].group == count && iterations > 5);
        for (int i = 1; i <= iterations; i++) {
            for (int64_t r = 0; r < rows; r++) scale[r] = 1 / inv[r], zero[r] = first[r] + bq_qmin(s);
            bq_quadratic o = {
                .solve = BQ_SOLVE_ZERO, .iterations = i, .p = 0.7, .beta = 10, .kappa = zeros[k].kappa};
            dev.op->half_quadratic(&dev, bq_mat_host(w, rows, zeros[k].group, BQ_F32), s, o,
                                   bq_mat_host(scale, rows, 1, BQ_F32), bq_mat_host(zero, rows, 1, BQ_F32));
            for (int64_t r = 0; r < rows; r++) {
                float z = want[r * iterations + i - 1] + bq_qmin(s);
                if (!(fabsf(zero[r] - z) <= 2e-6f + 3e-7f * fabsf(z)))
                    fail_msg("%s, iteration %d, group %ld: zero %.8g, not %.8g", zeros[k].name, i, (long)r,
                             (double)zero[r], (double)z);
            }
        }
        for (int64_t i = 0; i < count; i++) {
            int64_t r = i / zeros[k].group;
            if (code_of(w[i], scale[r], zero[r], s) != (float)code[i] + bq_qmin(s))
                fail_msg("%s: code %ld differs", zeros[k].name, (long)i);
        }
        free(scale), free(zero);
    }
}

/* torchao's HQQ_SCALE_ONLY leaves out no error: beta is next to nothing. */
static void scales(void **state) {
    (void)state;
    static const char *const names[] = {"cfg/intx4_hqqscale_g32/W", "cfg/intx3_hqqscale_g32/B"},
                             *const inputs[] = {"in/W", "in/B"};
    for (int k = 0; k < 2; k++) {
        bq_scheme s = {4 - k, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0};
        int64_t count, rows;
        float *w = values(inputs[k], BQ_F32, &count), *want = read_of(names[k], "scale", BQ_F32, &rows);
        int8_t *code = read_of(names[k], "q", BQ_I8, NULL), *made = malloc((size_t)count);
        float *scale = malloc((size_t)rows * sizeof *scale);
        assert_true(made && scale && count == rows * 32);
        for (int64_t r = 0; r < rows; r++) {
            float most = 0;
            for (int64_t c = 0; c < 32; c++) most = fmaxf(most, fabsf(w[r * 32 + c]));
            scale[r] = fmaxf(most / -bq_qmin(s), FLT_EPSILON);
        }
        bq_quadratic o = {.solve = BQ_SOLVE_SCALE, .iterations = 20, .p = 0.7, .beta = 1e-30, .kappa = 1};
        bq_mat m = bq_mat_host(w, rows, 32, BQ_F32), to = bq_mat_host(scale, rows, 1, BQ_F32), none = {0};
        dev.op->half_quadratic(&dev, m, s, o, to, none);
        dev.op->quantize(&dev, m, to, none, s, bq_mat_host(made, rows, 32, BQ_I8));
        for (int64_t r = 0; r < rows; r++)
            if (!(fabsf(scale[r] - want[r]) <= 3e-7f * want[r]))
                fail_msg("%s: scale %ld is %.8g, not %.8g", names[k], (long)r, (double)scale[r],
                         (double)want[r]);
        assert_memory_equal(made, code, (size_t)count);
        free(made), free(scale);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(zero_points), cmocka_unit_test(scales)};
    if (golden_open(&g, BQ_VECTORS "/peer_hqq.safetensors")) return 1;
    if (bq_dev_open(&dev, "cpu", 2, 0)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bq_dev_close(&dev);
    golden_close(&g);
    return failed;
}
