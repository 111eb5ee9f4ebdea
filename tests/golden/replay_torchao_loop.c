/* SPDX-License-Identifier: Apache-2.0 */
/* HQQ's loop by torchao and hqq: how many iterations it takes, its zero points and codes. */
#include "golden/torchao.h"

#include "block/passes/search.h"

static const struct {
    const char *name, *input;
    int bits;
    int64_t group;
    double kappa;
} loops[] = {{"hqq_ao/W_4_g64", "W", 4, 64, 1.01}, {"hqq_ao/W_3_g32", "W", 3, 32, 1.01},
             {"hqq_ao/B_3_g32", "B", 3, 32, 1.01}, {"hqq_ao/W_2_g32", "W", 2, 32, 1.01},
             {"hqq_ao/B_2_g32", "B", 2, 32, 1.01}, {"hqq/W_4_g64", "W", 4, 64, 1},
             {"hqq/W_4_g64_rz", "W", 4, 64, 1},    {"hqq/W_3_g32", "W", 3, 32, 1},
             {"hqq/B_3_g32", "B", 3, 32, 1},       {"hqq/W_2_g16", "W", 2, 16, 1},
             {"hqq/B_2_g16", "B", 2, 16, 1}};

static bq_quadratic options(double kappa) {
    return (bq_quadratic){.solve = BQ_SOLVE_ZERO, .iterations = 20, .p = 0.7, .beta = 10, .kappa = kappa};
}

static bq_scheme scheme(int bits, int64_t group, double eps) {
    return (bq_scheme){bits, group, false, BQ_F32, BQ_GRID_TORCHAO, 1, 0, BQ_ZERO_FLOAT, eps};
}

/* The loop counts zero points in unsigned codes: they may be as far from each other as these are rounded. */
static void compare(golden_report *r, const torchao_made *m, const float *want, float middle, bool codes,
                    const char *name) {
    golden_row *row = golden_row_of(r, "zero points of loops, in codes", 1e-6, 0);
    for (int64_t i = 0; i < m->w.rows; i++) {
        const double step = (double)((float *)m->scale.data)[i], zero = (double)((float *)m->zero.data)[i],
                     have = (double)middle - zero / step,
                     of = codes ? (double)want[i] : (double)middle - (double)want[i] / step;
        const double size = of < 0 ? -of : of;
        golden_note(row, (have < of ? of - have : have - of) / (1 + size), "%s group %lld", name,
                    (long long)i);
    }
}

static void loop(golden *g, golden_report *r, bq_dev *dev, int k) {
    const bq_scheme s = scheme(loops[k].bits, loops[k].group, 0);
    const char *name = loops[k].name;
    torchao_made m = torchao_room(g, loops[k].input, s);
    const float *inv = golden_read(g, BQ_F32, m.w.rows, 1, "%s/inv_scale", name).data,
                *zero0 = golden_read(g, BQ_F32, m.w.rows, 1, "%s/zero0", name).data,
                *want = golden_read(g, BQ_F32, m.w.rows, 1, "%s/zero", name).data, middle = -bq_qmin(s);
    for (int64_t i = 0; i < m.w.rows; i++) {
        ((float *)m.scale.data)[i] = 1 / inv[i];
        ((float *)m.zero.data)[i] = (middle - zero0[i]) * (1 / inv[i]);
    }
    bq_mat scale = golden_read(g, BQ_F32, m.w.rows, 1, "%s/scale", name);
    golden_compare(golden_codes_of(r, "scales", 0, 0), GOLDEN_ABSOLUTE, m.scale, scale, name);
    int32_t n = bq_hqq_matrix(dev, m.w, s, options(loops[k].kappa), m.scale, m.zero, m.code, m.w_hat);
    int32_t all = (int32_t)golden_read(g, BQ_F64, 1, -1, "%s/err_iter", name).cols;
    golden_compare(golden_codes_of(r, "iterations", 0, 0), GOLDEN_ABSOLUTE, bq_mat_host(&n, 1, 1, BQ_I32),
                   bq_mat_host(&all, 1, 1, BQ_I32), name);
    compare(r, &m, want, middle, true, name);
    dev->op->quantize(dev, m.w, m.scale, m.zero, s, m.code);
    torchao_compare_codes(g, r, &m, s, name);
    golden_pass_over(g, "%s/zero_iter", name);
}

/* From min-max to the end, as the configuration runs it.  Its scales are reciprocals of reciprocals, so the
 * loop is given them. */
static void whole(golden *g, golden_report *r, bq_dev *dev, int64_t group) {
    const bq_scheme s = scheme(4, group, 1 / 2e4);
    char name[64];
    snprintf(name, sizeof name, "tinygemm_hqq/W_g%lld", (long long)group);
    if (!golden_has(g, "%s/q", name)) return;
    torchao_made m = torchao_room(g, "W", s);
    bq_quadratic o = options(1.01);
    o.start = true;
    dev->op->range(dev, m.w, s, m.scale, m.zero);
    const bq_mat scale = golden_read(g, BQ_F32, m.w.rows, 1, "%s/scale", name),
                 zero = golden_read(g, BQ_F32, m.w.rows, 1, "%s/zero", name);
    golden_compare(golden_row_of(r, "scales of loops", 3e-7, 0), GOLDEN_RELATIVE, m.scale, scale, name);
    dev->op->copy(dev, scale, m.scale);
    bq_hqq_matrix(dev, m.w, s, o, m.scale, m.zero, m.code, m.w_hat);
    dev->op->quantize(dev, m.w, m.scale, m.zero, s, m.code);
    compare(r, &m, zero.data, -bq_qmin(s), false, name);
    torchao_compare_codes(g, r, &m, s, name);
}

void torchao_loops(golden *g, golden_report *r, bq_dev *dev) {
    for (int k = 0; k < (int)(sizeof loops / sizeof *loops); k++)
        if (golden_has(g, "%s/q", loops[k].name)) loop(g, r, dev, k);
    for (int64_t group = 32; group <= 128; group *= 2) whole(g, r, dev, group);
}
