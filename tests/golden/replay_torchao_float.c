/* SPDX-License-Identifier: Apache-2.0 */
/* Casts to small floats, MX blocks and NVFP4 by torchao. */
#include "golden/torchao.h"

#include <string.h>

static void compare_bytes(golden *g, golden_report *r, const char *row, const char *name, const uint8_t *have,
                          int64_t n) {
    bq_mat want = golden_read(g, BQ_U8, n, 1, "%s", name);
    golden_compare(golden_codes_of(r, row, 0, 0), GOLDEN_ABSOLUTE,
                   bq_mat_host((void *)(uintptr_t)have, n, 1, BQ_U8), want, name);
}

static void cast(golden *g, golden_report *r, bq_dev *dev, const char *name, int element) {
    const bq_scheme s = {element, -1, true, BQ_F32, BQ_GRID_ABSMAX, 1, 0};
    char part[96];
    float one = 1;
    if (!golden_has(g, "%s/probe", name)) return;
    bq_mat probe = golden_read(g, BQ_F32, -1, -1, "%s/probe", name),
           values = golden_read(g, BQ_F32, -1, -1, "%s/values", name);
    const int64_t n = probe.rows * probe.cols, all = values.rows * values.cols;
    uint8_t *code = golden_keep(g, (size_t)n), *number = golden_keep(g, (size_t)all);
    float *made = golden_keep(g, (size_t)all * sizeof *made), *want = values.data;
    bq_mat scale = bq_mat_host(&one, 1, 1, BQ_F32), none = {0};
    dev->op->quantize(dev, bq_mat_host(probe.data, 1, n, BQ_F32), scale, none, s,
                      bq_mat_host(code, 1, n, BQ_I8));
    snprintf(part, sizeof part, "%s/code", name);
    for (int64_t i = 0; i < n; i++) code[i] = (uint8_t)(code[i] & ((1 << bq_code_bits(s)) - 1));
    compare_bytes(g, r, "codes", part, code, n);
    for (int64_t i = 0; i < all; i++) number[i] = (uint8_t)i;
    dev->op->dequantize(dev, bq_mat_host(number, 1, all, BQ_I8), scale, none, s,
                        bq_mat_host(made, 1, all, BQ_F32));
    for (int64_t i = 0; i < all; i++) /* codes of NaN and infinity, which are not used */
        if (!(want[i] - want[i] == 0)) made[i] = want[i] = 0;
    golden_compare(golden_codes_of(r, "values", 0, 0), GOLDEN_ABSOLUTE,
                   bq_mat_host(made, values.rows, values.cols, BQ_F32), values, name);
}

void torchao_floats(golden *g, golden_report *r, bq_dev *dev) {
    cast(g, r, dev, "floatx/e2m1", BQ_E2M1), cast(g, r, dev, "floatx/e2m3", BQ_E2M3);
    cast(g, r, dev, "floatx/e3m2", BQ_E3M2), cast(g, r, dev, "float8/e4m3", BQ_E4M3);
    cast(g, r, dev, "float8/e5m2", BQ_E5M2);
}

/* The same values as inputs of a linear: all must be those of the weights, which torchao has. */
static void as_inputs(golden *g, golden_report *r, bq_dev *dev, const char *name, bq_mat w_hat,
                      const char *input, bq_scheme s) {
    const bq_rounding how = {
        s.element, true, false, BQ_ROUND_RECIPROCAL, s.group, s.scale, 0, s.power,
    };
    float factor[2] = {s.outer, 0};
    torchao_made m = torchao_room(g, input, s);
    dev->op->round_rows(dev, m.w, how, bq_mat_host(factor, 1, 2, BQ_F32), m.w);
    golden_compare(golden_row_of(r, "rounded inputs", 0, 0), GOLDEN_ABSOLUTE, m.w, w_hat, name);
}

/* Blocks with scales of one byte.  outer: of NVFP4. */
static void block(golden *g, golden_report *r, bq_dev *dev, const char *name, const char *input,
                  bq_scheme s) {
    char part[96];
    if (!golden_has(g, "%s/q", name)) return;
    torchao_made m = torchao_room(g, input, s);
    dev->op->range(dev, m.w, s, m.scale, m.zero);
    dev->op->quantize(dev, m.w, m.scale, m.zero, s, m.code);
    dev->op->dequantize(dev, m.code, m.scale, m.zero, s, m.w_hat);
    uint8_t *scale = golden_keep(g, (size_t)m.w.rows);
    for (int64_t i = 0; i < m.w.rows; i++) {
        const float x = ((float *)m.scale.data)[i];
        scale[i] = s.scale == BQ_F8_E8M0 ? (uint8_t)(bq_bits(x) >> 23)
                                         : (uint8_t)bq_float_code(bq_element_of(BQ_E4M3),
                                                                  bq_inner_scale(x / bq_outer_times(s)));
    }
    snprintf(part, sizeof part, "%s/scale", name);
    compare_bytes(g, r, "scales", part, scale, m.w.rows);
    torchao_compare_codes(g, r, &m, s, name);
    as_inputs(g, r, dev, name, m.w_hat, input, s);
}

static void nvfp4(golden *g, golden_report *r, bq_dev *dev, const char *input) {
    bq_scheme s = {BQ_E2M1, 16, true, BQ_F8_E4M3, BQ_GRID_TORCHAO, 1, 1, .levels = BQ_OUTER_NONE};
    char name[64];
    snprintf(name, sizeof name, "nvfp4/one_%s", input);
    block(g, r, dev, name, input, s);
    snprintf(name, sizeof name, "nvfp4/two_%s", input);
    if (!golden_has(g, "%s/q", name)) return;
    torchao_made m = torchao_room(g, input, s);
    float most = 0;
    for (int64_t i = 0; i < m.w.rows * m.w.cols; i++)
        most = ((float *)m.w.data)[i] > most    ? ((float *)m.w.data)[i]
               : -((float *)m.w.data)[i] > most ? -((float *)m.w.data)[i]
                                                : most;
    s.outer = most / (BQ_SCALE_MAX * 6), s.levels = BQ_OUTER_SHARED;
    golden_compare(golden_codes_of(r, "scales", 0, 0), GOLDEN_ABSOLUTE, bq_mat_host(&s.outer, 1, 1, BQ_F32),
                   golden_read(g, BQ_F32, 1, 1, "%s/global", name), name);
    block(g, r, dev, name, input, s);
}

void torchao_blocks(golden *g, golden_report *r, bq_dev *dev) {
    static const struct {
        const char *name;
        int element;
    } kinds[] = {{"fp4", BQ_E2M1},
                 {"fp6_e2m3", BQ_E2M3},
                 {"fp6_e3m2", BQ_E3M2},
                 {"fp8_e4m3", BQ_E4M3},
                 {"fp8_e5m2", BQ_E5M2}};
    static const char *const rules[] = {"even", "floor", "ceil", "rceil"}, *const inputs[] = {"W", "B",
                                                                                              "W_bf16"};
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 5; k++)
            for (int m = 0; m < 4; m++) {
                const bq_scheme s = {kinds[k].element, 32, true, BQ_F8_E8M0,
                                     BQ_GRID_TORCHAO,  1,  0,    .power = (bq_power_rule)m};
                char name[64];
                snprintf(name, sizeof name, "mx/%s_%s_%s", kinds[k].name, rules[m], inputs[i]);
                block(g, r, dev, name, inputs[i], s);
            }
        nvfp4(g, r, dev, inputs[i]);
    }
}
