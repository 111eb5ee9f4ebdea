/* SPDX-License-Identifier: Apache-2.0 */
/* Weight schemes of torchao: scales, zero points and codes of its primitives and configurations, made again
 * by blockq's ops.  The tables say which case is which scheme, and which cases blockq has no counterpart
 * of. */
#include "golden/torchao.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define EPS       1.1920928955078125e-7
#define AO        BQ_GRID_TORCHAO
#define SYM(bits) .element = bits, .symmetric = true, .scale = BQ_F32, .grid = AO

static const torchao_case cases[] = {
    {"affine/sym_i4_g32", "W", {SYM(4), .group = 32, .eps = FLT_MIN}},
    {"affine/sym_i4_g32_eps", "W", {SYM(4), .group = 32, .eps = EPS}},
    {"affine/none_i4_g32", "W", {SYM(4), .group = 32, .eps = EPS}},
    {"affine/sym_u4_g32", "W", {SYM(4), .group = 32, .eps = EPS}},
    {"affine/sym_i4_b2x16", "W", {SYM(4), .group = 16, .rows = 2, .eps = EPS}},
    {"affine/sym_i8_ch", "B", {SYM(8), .group = -1, .eps = EPS}},
    {"affine/asym_i4_g32", "W", {.element = 4, .group = 32, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"affine/asym_u4_g32", "W", {.element = 4, .group = 32, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"affine/asym_u4_g32_fz", "W", {.element = 4, .group = 32, .scale = BQ_F32, .grid = AO, .eps = 1e-6}},
    {"affine/asym_i8_tok", "X", {.element = 8, .group = -1, .scale = BQ_F32, .grid = AO, .eps = FLT_MIN}},
    {"affine/asym_i8_tok_eps", "X", {.element = 8, .group = -1, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"affine/asym_i8_tensor", "X", {.element = 8, .group = 896, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"affine/noclip_i8_ch", "B", {.element = 8, .group = -1, .symmetric = true, .scale = BQ_F32}},
    {"affine/noclip_i4_g32", "W", {.element = 4, .group = 32, .symmetric = true, .scale = BQ_F32}},
    {"affine/int_zero", "W", {.element = 4, .group = 32, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"affine/float_zero",
     "W",
     {.element = 4, .group = 32, .scale = BQ_F32, .zero = BQ_ZERO_FLOAT, .eps = 1e-6}},
    {"cfg/int8wo/W", "W", {SYM(8), .group = -1, .eps = EPS}},
    {"cfg/int8wo/B", "B", {SYM(8), .group = -1, .eps = EPS}},
    {"cfg/int8wo_g32/W", "W", {SYM(8), .group = 32, .eps = EPS}},
    {"cfg/int8wo_g32/B", "B", {SYM(8), .group = 32, .eps = EPS}},
    {"cfg/int8wo_tensor/W", "W", {SYM(8), .group = -1, .rows = -1, .eps = EPS}},
    {"cfg/int8wo_tensor/B", "B", {SYM(8), .group = -1, .rows = -1, .eps = EPS}},
    {"cfg/int8dq/W", "W", {SYM(8), .group = -1, .eps = EPS}},
    {"cfg/int8dq_asym/W", "W", {SYM(8), .group = -1, .eps = EPS}},
    {"cfg/int8dq_reduced/W", "W", {SYM(7), .group = -1, .eps = EPS}},
    {"cfg/8da4w/W", "W", {SYM(4), .group = 32, .eps = FLT_MIN}},
    {"cfg/8da8w/W", "W", {SYM(8), .group = -1, .eps = FLT_MIN}},
    {"cfg/intx1_sym_g32/W", "W", {SYM(1), .group = 32, .eps = FLT_MIN}},
    {"cfg/intx2_sym_g32/W", "W", {SYM(2), .group = 32, .eps = FLT_MIN}},
    {"cfg/intx3_sym_g32/W", "W", {SYM(3), .group = 32, .eps = FLT_MIN}},
    {"cfg/intx4_sym_g32/W", "W", {SYM(4), .group = 32, .eps = FLT_MIN}},
    {"cfg/intx5_sym_g32/W", "W", {SYM(5), .group = 32, .eps = FLT_MIN}},
    {"cfg/intx6_sym_g32/W", "W", {SYM(6), .group = 32, .eps = FLT_MIN}},
    {"cfg/intx7_sym_g32/W", "W", {SYM(7), .group = 32, .eps = FLT_MIN}},
    {"cfg/intx8_sym_g32/W", "W", {SYM(8), .group = 32, .eps = FLT_MIN}},
    {"cfg/intx2_asym_ch/B", "B", {.element = 2, .group = -1, .scale = BQ_F32, .grid = AO, .eps = FLT_MIN}},
    {"cfg/intx3_asym_ch/B", "B", {.element = 3, .group = -1, .scale = BQ_F32, .grid = AO, .eps = FLT_MIN}},
    {"cfg/intx4_asym_ch/B", "B", {.element = 4, .group = -1, .scale = BQ_F32, .grid = AO, .eps = FLT_MIN}},
    {"cfg/intx5_asym_ch/B", "B", {.element = 5, .group = -1, .scale = BQ_F32, .grid = AO, .eps = FLT_MIN}},
    {"cfg/intx6_asym_ch/B", "B", {.element = 6, .group = -1, .scale = BQ_F32, .grid = AO, .eps = FLT_MIN}},
    {"cfg/intx7_asym_ch/B", "B", {.element = 7, .group = -1, .scale = BQ_F32, .grid = AO, .eps = FLT_MIN}},
    {"cfg/intx8_asym_ch/B", "B", {.element = 8, .group = -1, .scale = BQ_F32, .grid = AO, .eps = FLT_MIN}},
    {"cfg/fp8wo/W", "W", {SYM(BQ_E4M3), .group = -1}},
    {"cfg/fp8wo/B", "B", {SYM(BQ_E4M3), .group = -1}},
    {"cfg/fp8wo_e5m2/W", "W", {SYM(BQ_E5M2), .group = -1}},
    {"cfg/fp8wo_tensor/W", "W", {SYM(BQ_E4M3), .group = -1, .rows = -1}},
    {"tinygemm/W_g32",
     "W",
     {.element = 4, .group = 32, .scale = BQ_F32, .zero = BQ_ZERO_FLOAT, .eps = FLT_MIN}},
    {"tinygemm/W_g64",
     "W",
     {.element = 4, .group = 64, .scale = BQ_F32, .zero = BQ_ZERO_FLOAT, .eps = FLT_MIN}},
    {"tinygemm/W_g128",
     "W",
     {.element = 4, .group = -1, .scale = BQ_F32, .zero = BQ_ZERO_FLOAT, .eps = FLT_MIN}},
    {"int8wo/W", "W", {SYM(8), .group = -1, .eps = EPS}},
    {"uintx/1_g64", "W", {.element = 1, .group = 64, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"uintx/2_g64", "W", {.element = 2, .group = 64, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"uintx/3_g64", "W", {.element = 3, .group = 64, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"uintx/4_g64", "W", {.element = 4, .group = 64, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"uintx/5_g64", "W", {.element = 5, .group = 64, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"uintx/6_g64", "W", {.element = 6, .group = 64, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"uintx/7_g64", "W", {.element = 7, .group = 64, .scale = BQ_F32, .grid = AO, .eps = EPS}},
    {"fpx/e3m2_W", "W", {SYM(BQ_E3M2), .group = -1, .eps = (double)(1e-12f / 28)}},
    {"fpx/e3m2_B", "B", {SYM(BQ_E3M2), .group = -1, .eps = (double)(1e-12f / 28)}},
    {"fpx/e2m3_W", "W", {SYM(BQ_E2M3), .group = -1, .eps = (double)(1e-12f / 7.5f)}},
    {"fpx/e2m3_B", "B", {SYM(BQ_E2M3), .group = -1, .eps = (double)(1e-12f / 7.5f)}},
    {"fpx/e2m1_W", "W", {SYM(BQ_E2M1), .group = -1, .eps = (double)(1e-12f / 6)}},
    {"fpx/e2m1_B", "B", {SYM(BQ_E2M1), .group = -1, .eps = (double)(1e-12f / 6)}},
};

/* What blockq has no counterpart of, by the start of a name. */
static const struct {
    const char *start, *why;
} others[] = {
    {"affine/asym_u4_col", "a scale for each column: blockq has rows, groups and tiles"},
    {"affine/nozero_u4_g32",
     "zero points that are codes, of ranges that need not hold 0: 0 is on all such grids"},
    {"affine/sym_i8_ch127", "codes from -127: elements are two's complement"},
    {"affine/float_zero_keep0", "zero points that are floats, of ranges that hold 0"},
    {"affine/sym_i4_g32_bf16", "arithmetic in bfloat16"},
    {"affine/asym_i8_tok_bf16", "arithmetic in bfloat16"},
    {"cfg/8da4w_bf16scale", "a reciprocal rounded to bfloat16"},
    {"cfg/8da4w/W_bf16", "arithmetic in bfloat16"},
    {"cfg/int8wo/W_bf16", "arithmetic in bfloat16"},
    {"cfg/int8wo_g32/W_bf16", "arithmetic in bfloat16"},
    {"cfg/int8wo_tensor/W_bf16", "arithmetic in bfloat16"},
    {"cfg/int8dq/W_bf16", "arithmetic in bfloat16"},
    {"cfg/fp8wo/W_bf16", "arithmetic in bfloat16"},
    {"tinygemm/W_bf16", "arithmetic in bfloat16"},
    {"tinygemm_hqq/W_bf16", "arithmetic in bfloat16"},
    {"int4wo/", "arithmetic in bfloat16"},
    {"int8wo/W_bf16", "arithmetic in bfloat16"},
    {"fpx/e2m2", "no such element"},
    {"fpx/e3m2_Whalf", "arithmetic in float16"},
    {"floatx/e2m2", "no such element"},
    {"floatx/e4m3x", "no such element: e4m3 has NaN"},
    {"hqq/W_4_g64_axis0", "groups down the columns"},
    {"uintx/2_g8_hqq", "codes of the loop before torchao makes its zero points floats"},
    {"uintx/4_g64_hqq", "codes of the loop before torchao makes its zero points floats"},
    {"in/", "inputs"},
};

void golden_torchao(golden *g, bq_comm *comm, golden_report *r) {
    (void)comm;
    bq_dev dev;
    golden_require(bq_dev_open(&dev, "cpu", 1, 1 << 20));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (golden_has(g, "%s/q", cases[i].name)) torchao_check(g, r, &dev, &cases[i]);
    torchao_floats(g, r, &dev);
    torchao_blocks(g, r, &dev);
    torchao_loops(g, r, &dev);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        bool there = false;
        for (int k = 0; k < bq_weights_count(g->file); k++)
            there |= strncmp(bq_weights_at(g->file, k)->name, others[i].start, strlen(others[i].start)) == 0;
        r->left += there && strcmp(others[i].why, "inputs") != 0;
        golden_pass_over(g, "%s", others[i].start);
    }
    bq_dev_close(&dev);
}
