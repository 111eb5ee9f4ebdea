/* SPDX-License-Identifier: Apache-2.0 */
/* Ops on rows.  Threads share the rows and a vector function computes each row, so results cannot depend on
 * the number of threads. */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/cpu/vec.h"

#include <math.h>
#include <string.h>

#define XENT_ROWS 128 /* rows of logits at a time: enough for the GEMM to use its packed head again */

/* To wake threads costs as much as some ten thousand numbers of work. */
static bool worth_threads(bq_mat m) { return m.rows * m.cols > 1 << 14; }

static float *row(bq_mat m, int64_t r) { return (float *)m.data + r * m.ld; }

/* add, where one of the matrices is f64: the sum is in double. */
static void add_wide(bq_dev *dev, bq_mat x, bq_mat y) {
    bool narrow = y.type == BQ_F32;
    BQ_WANT_AS(dev, x.type == BQ_F32 ? BQ_F32 : BQ_F64, y.rows, y.cols, x);
    BQ_WANT_AS(dev, narrow ? BQ_F32 : BQ_F64, y.rows, y.cols, y);
#pragma omp parallel for schedule(static) if (worth_threads(y))
    for (int64_t r = 0; r < y.rows; r++)
        for (int64_t c = 0; c < y.cols; c++) {
            double sum = bq_cpu_number(y, r, c) + bq_cpu_number(x, r, c);
            if (narrow)
                *(float *)bq_mat_at(y, r, c) = (float)sum;
            else
                *(double *)bq_mat_at(y, r, c) = sum;
        }
}

void bq_cpu_add(bq_dev *dev, bq_mat x, bq_mat y) {
    if (x.type != BQ_F32 || y.type != BQ_F32) {
        add_wide(dev, x, y);
        return;
    }
    BQ_WANT(dev, y.rows, y.cols, x, y);
#pragma omp parallel for schedule(static) if (worth_threads(y))
    for (int64_t r = 0; r < y.rows; r++) bq_vec()->add(y.cols, row(x, r), row(y, r));
}

void bq_cpu_bias(bq_dev *dev, bq_mat bias, bq_mat y) {
    BQ_WANT(dev, 1, y.cols, bias);
    BQ_WANT(dev, y.rows, y.cols, y);
#pragma omp parallel for schedule(static) if (worth_threads(y))
    for (int64_t r = 0; r < y.rows; r++) bq_vec()->add(y.cols, row(bias, 0), row(y, r));
}

/* The columns that are normalized together. */
static int64_t run_of(const bq_dev *dev, bq_mat x, bq_mat weight) {
    BQ_WANT(dev, 1, weight.cols, weight);
    BQ_CHECK(weight.cols > 0 && x.cols % weight.cols == 0, "rmsnorm: %ld columns, a weight of %ld",
             (long)x.cols, (long)weight.cols);
    return weight.cols;
}

void bq_cpu_rmsnorm(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat y) {
    BQ_WANT(dev, y.rows, y.cols, x, y);
    int64_t n = run_of(dev, y, weight);
#pragma omp parallel for schedule(static) if (worth_threads(y))
    for (int64_t r = 0; r < y.rows; r++)
        for (int64_t c = 0; c < y.cols; c += n)
            bq_vec()->rmsnorm(n, row(x, r) + c, row(weight, 0), eps, row(y, r) + c);
}

void bq_cpu_rmsnorm_bwd(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat dy, bq_mat dx) {
    BQ_WANT(dev, dx.rows, dx.cols, x, dy, dx);
    int64_t n = run_of(dev, x, weight);
#pragma omp parallel for schedule(static) if (worth_threads(dx))
    for (int64_t r = 0; r < dx.rows; r++)
        for (int64_t c = 0; c < dx.cols; c += n)
            bq_vec()->rmsnorm_bwd(n, row(x, r) + c, row(weight, 0), eps, row(dy, r) + c, row(dx, r) + c);
}

void bq_cpu_rope(bq_dev *dev, bq_mat x, int64_t heads, int64_t head_dim, bq_mat cos, bq_mat sin,
                 unsigned how) {
    int64_t skip = how & BQ_TURN_LAST ? head_dim - 2 * cos.cols : 0;
    BQ_WANT(dev, x.rows, heads * head_dim, x);
    BQ_WANT(dev, x.rows, cos.cols, cos, sin);
    BQ_CHECK(2 * cos.cols <= head_dim, "rope: %ld angles, heads of %ld", (long)cos.cols, (long)head_dim);
#pragma omp parallel for schedule(static) if (worth_threads(x))
    for (int64_t r = 0; r < x.rows; r++)
        bq_vec()->rope(heads, head_dim, cos.cols, row(cos, r), row(sin, r), how, row(x, r) + skip);
}

void bq_cpu_glu(bq_dev *dev, bq_act act, float limit, bq_mat g, bq_mat u, bq_mat z) {
    BQ_WANT(dev, z.rows, z.cols, g, u, z);
#pragma omp parallel for schedule(static) if (worth_threads(z))
    for (int64_t r = 0; r < z.rows; r++) bq_vec()->glu(z.cols, act, limit, row(g, r), row(u, r), row(z, r));
}

void bq_cpu_glu_bwd(bq_dev *dev, bq_act act, float limit, bq_mat g, bq_mat u, bq_mat dz, bq_mat dg,
                    bq_mat du) {
    BQ_WANT(dev, dz.rows, dz.cols, g, u, dz, dg, du);
#pragma omp parallel for schedule(static) if (worth_threads(dz))
    for (int64_t r = 0; r < dz.rows; r++)
        bq_vec()->glu_bwd(dz.cols, act, limit, row(g, r), row(u, r), row(dz, r), row(dg, r), row(du, r));
}

size_t bq_cpu_mse_scratch(int64_t tokens) { return bq_arena_need(tokens, 1, BQ_F64); }

static double errors(bq_dev *dev, bq_mat y, bq_mat target, double factor, bool relative, bq_mat dy) {
    BQ_WANT(dev, y.rows, y.cols, y, target);
    if (dy.data) BQ_WANT(dev, y.rows, y.cols, dy);
    size_t mark = bq_arena_mark(&dev->mem);
    double *sums = bq_arena_push(&dev->mem, y.rows, 1, BQ_F64).data, sum = 0;
#pragma omp parallel for schedule(static) if (worth_threads(y))
    for (int64_t r = 0; r < y.rows; r++) {
        double times = relative ? bq_relative(bq_vec()->squares(y.cols, row(target, r)), y.cols) : 1;
        sums[r] = times * bq_vec()->mse(y.cols, row(y, r), row(target, r), (float)(2 * factor * times),
                                        dy.data ? row(dy, r) : NULL);
    }
    for (int64_t r = 0; r < y.rows; r++) sum += sums[r];
    bq_arena_reset(&dev->mem, mark);
    return factor * sum;
}

void bq_cpu_mse(bq_dev *dev, bq_mat y, bq_mat target, double factor, bq_mat dy, double *loss) {
    loss[0] = errors(dev, y, target, factor, false, dy);
}

void bq_cpu_mse_there(bq_dev *dev, bq_mat y, bq_mat target, double factor, bool relative, bq_mat dy,
                      bq_mat loss) {
    BQ_WANT_AS(dev, BQ_F64, 1, 1, loss);
    *(double *)loss.data = errors(dev, y, target, factor, relative, dy);
}

static int64_t xent_rows(int64_t tokens) { return tokens < XENT_ROWS ? tokens : XENT_ROWS; }

size_t bq_cpu_xent_scratch(int64_t tokens, int64_t vocab) {
    return bq_arena_need(xent_rows(tokens), vocab, BQ_F32);
}

void bq_cpu_xent(bq_dev *dev, bq_mat x, bq_mat head, float cap, bq_mat next, double *nll) {
    BQ_WANT(dev, next.rows, head.cols, x);
    BQ_WANT(dev, head.rows, x.cols, head);
    BQ_WANT_AS(dev, BQ_I32, x.rows, 1, next);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat logits = bq_arena_push(&dev->mem, xent_rows(x.rows), head.rows, BQ_F32);
    for (int64_t first = 0; first < x.rows; first += XENT_ROWS) {
        int64_t rows = x.rows - first < XENT_ROWS ? x.rows - first : XENT_ROWS;
        bq_mat part = bq_mat_rows(logits, 0, rows);
        bq_cpu_gemm(dev, false, true, 1, bq_mat_rows(x, first, rows), head, 0, part);
#pragma omp parallel for schedule(static) if (worth_threads(part))
        for (int64_t r = 0; r < rows; r++) {
            int32_t id = ((const int32_t *)next.data)[(first + r) * next.ld];
            BQ_CHECK(id >= 0 && id < head.rows, "xent: token %d of %ld", (int)id, (long)head.rows);
            if (cap != 0) bq_vec()->cap(head.rows, cap, row(part, r));
            float max;
            double sum = bq_vec()->sum_exp(head.rows, row(part, r), &max);
            nll[first + r] = log(sum) + ((double)max - (double)row(part, r)[id]);
        }
    }
    bq_arena_reset(&dev->mem, mark);
}

void bq_cpu_distill(bq_dev *dev, bq_mat x, bq_mat y, bq_mat head, float cap, double factor, bq_mat dx,
                    double *kl) {
    BQ_WANT(dev, x.rows, head.cols, x, y, dx);
    BQ_WANT(dev, head.rows, x.cols, head);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_mat logits[2];
    for (int k = 0; k < 2; k++) logits[k] = bq_arena_push(&dev->mem, xent_rows(x.rows), head.rows, BQ_F32);
    for (int64_t first = 0; first < x.rows; first += XENT_ROWS) {
        int64_t rows = x.rows - first < XENT_ROWS ? x.rows - first : XENT_ROWS;
        bq_mat q = bq_mat_rows(logits[0], 0, rows), p = bq_mat_rows(logits[1], 0, rows);
        bq_cpu_gemm(dev, false, true, 1, bq_mat_rows(x, first, rows), head, 0, q);
        bq_cpu_gemm(dev, false, true, 1, bq_mat_rows(y, first, rows), head, 0, p);
#pragma omp parallel for schedule(static) if (worth_threads(q))
        for (int64_t r = 0; r < rows; r++) {
            if (cap != 0) bq_vec()->cap(head.rows, cap, row(q, r)), bq_vec()->cap(head.rows, cap, row(p, r));
            kl[first + r] = bq_vec()->distill(head.rows, cap, (float)factor, row(q, r), row(p, r));
        }
        bq_cpu_gemm(dev, false, false, 1, q, head, 0, bq_mat_rows(dx, first, rows));
    }
    bq_arena_reset(&dev->mem, mark);
}
