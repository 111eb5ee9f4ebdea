/* SPDX-License-Identifier: Apache-2.0 */
/* HQQ on a whole block: its grids are those of the op, never worse than those that it starts from, and valid.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "block/passes/search.h"
#include "gptq_rig.h"

static const bq_quadratic scales = {
    .solve = BQ_SOLVE_SCALE, .iterations = 20, .p = 0.7, .beta = 10, .kappa = 1.01, .early_stop = true};

/* Weights with tails, which clipping serves. */
static rig *open_rig(const bq_scheme *scheme, int schemes) {
    rig *r = gptq_open(scheme, schemes, 2);
    for (int k = 0; k < RIG_SITES; k++)
        for (int64_t i = 0; i < r->arch.site[k].rows * r->arch.site[k].cols; i++) {
            float x = bq_f32(r->blk.w[k])[i];
            bq_f32(r->blk.w[k])[i] = 4 * x * x * x;
        }
    return r;
}

static void run(rig *r, bool grid, const bq_quadratic *o) {
    const struct {
        bq_quadratic o;
        int stop;
    } pass = {*o, 0};
    r->c.grid = grid;
    assert_int_equal(bq_pass_kind_at(bq_pass_kind_find("hqq"))->run(&r->c, &pass), 0);
    r->c.grid = false;
}

/* The mean error of each group of linear i; their sum. */
static double errors(rig *r, int i, double *each) {
    bq_mat w = bq_linear_grouped(&r->arch, r->q.scheme, i, r->blk.w),
           what = bq_linear_grouped(&r->arch, r->q.scheme, i, r->q.w_hat);
    double all = 0;
    for (int64_t row = 0; row < w.rows; row++, all += each[row - 1]) {
        each[row] = 0;
        for (int64_t c = 0; c < w.cols; c++)
            each[row] +=
                fabs((double)*(float *)bq_mat_at(what, row, c) - (double)*(float *)bq_mat_at(w, row, c)) /
                (double)w.cols;
    }
    return all;
}

enum { LEAST_GROUP = 8 };
static double *room(rig *r, int i) {
    double *d = calloc((size_t)(r->arch.linear[i].rows * r->arch.linear[i].cols / LEAST_GROUP), sizeof *d);
    assert_non_null(d);
    return d;
}

/* Against min-max, and against grids that are clipped for the weights' error. */
static void no_group_gets_worse(void **state) {
    (void)state;
    for (int clipped = 0; clipped < 2; clipped++) {
        rig *r = open_rig(rig_mixed, 5);
        double *before[BQ_ARCH_LINEARS], sum[BQ_ARCH_LINEARS];
        if (clipped)
            bq_pass_rtn_mse(&r->c, (bq_shrink){100, 80, BQ_NORM_2});
        else
            bq_pass_rtn(&r->c);
        for (int i = 0; i < r->arch.linears; i++) before[i] = room(r, i), sum[i] = errors(r, i, before[i]);
        run(r, clipped, &scales);
        for (int i = 0; i < r->arch.linears; i++) {
            double *after = room(r, i), now = errors(r, i, after);
            for (int64_t k = 0; k < r->q.scale[i].rows; k++)
                assert_true(after[k] <= before[i][k] * (1 + 1e-5));
            if (!clipped) print_message("%s: %.3f of min-max\n", r->arch.linear[i].name, now / sum[i]);
            if (!clipped && r->q.scheme[i].element < BQ_INT8) assert_true(now < 0.99 * sum[i]);
            free(after), free(before[i]);
        }
        rig_close(r);
    }
}

/* Codes are those of the grids, zero points are codes.  The zero points of HQQ's loop, once rounded, are
 * about as good as those of min-max. */
static void grids_are_valid(void **state) {
    (void)state;
    rig *r = open_rig(rig_mixed, 5);
    for (int solve = 0; solve < 2; solve++) {
        bq_quadratic o = scales;
        double *each[2] = {room(r, 1), room(r, 1)};
        bq_pass_rtn(&r->c);
        double rounded = errors(r, 1, each[0]);
        o.solve = (bq_solve)solve;
        run(r, false, &o);
        double fitted = errors(r, 1, each[1]);
        assert_true(!r->q.scheme[1].symmetric && (solve ? fitted < 1.05 * rounded : fitted < 0.99 * rounded));
        for (int i = 0; i < r->arch.linears; i++)
            for (int64_t k = 0; k < r->q.zero[i].rows && r->q.zero[i].data; k++) {
                float z = bq_f32(r->q.zero[i])[k];
                assert_true(z == rintf(z) && z >= bq_qmin(r->q.scheme[i]) && z <= bq_qmax(r->q.scheme[i]));
            }
        for (int m = 0; m < RIG_SITES; m++) {
            size_t bytes = bq_mat_bytes(r->q.code[m]);
            int8_t *code = malloc(bytes);
            assert_non_null(code);
            memcpy(code, r->q.code[m].data, bytes);
            bq_quantized_encode(&r->dev, &r->q);
            assert_memory_equal(code, r->q.code[m].data, bytes);
            assert_memory_equal(r->q.fold[m].data, r->blk.w[m].data, bq_mat_bytes(r->q.fold[m]));
            free(code);
        }
        free(each[0]), free(each[1]);
    }
    rig_close(r);
}

/* A symmetric grid has no zero point to solve for. */
static void symmetric_grids_stay(void **state) {
    (void)state;
    rig *r = open_rig(rig_mixed, 1);
    bq_quadratic o = scales;
    bq_pass_rtn(&r->c);
    float first = bq_f32(r->q.scale[0])[0];
    o.solve = BQ_SOLVE_ZERO;
    run(r, true, &o);
    assert_true(bq_f32(r->q.scale[0])[0] == first);
    run(r, true, &scales);
    assert_true(bq_f32(r->q.scale[0])[0] != first);
    rig_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_group_gets_worse),
                                       cmocka_unit_test(grids_are_valid),
                                       cmocka_unit_test(symmetric_grids_stay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
