/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_bench_nmse - how far a device's products are from the same products in f64 on the host.
 *
 *     gpu_bench_nmse BACKEND TOKENS OUT IN...
 *
 * For each IN, and each way of computing that the device has, a line `way,IN,NMSE`: inputs (TOKENS, IN) times
 * weights (OUT, IN), of which some rows are compared.  The numbers are normal, but for one input in 500, which
 * is 60 times as large. */
#include "base/die.h"
#include "kernels/ops.h"
#include "kernels/restart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 4 }; /* that are compared */

static uint64_t state = 1;

/* Nearly normal: the sum of four uniform numbers of variance 1/12. */
static float normal(void) {
    double sum = 0;
    for (int k = 0; k < 4; k++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        sum += (double)(state >> 32) * 0x1p-32 - 0.5;
    }
    return (float)(sum * sqrt(3));
}

static float *numbers(int64_t rows, int64_t cols, int64_t outlier) {
    float *x = malloc((size_t)(rows * cols) * sizeof *x);
    BQ_CHECK(x, "no memory for %ld x %ld", (long)rows, (long)cols);
    for (int64_t i = 0; i < rows * cols; i++) x[i] = normal() * (outlier && i % outlier == 7 ? 60 : 1);
    return x;
}

static bq_mat put(bq_dev *dev, float *host, int64_t rows, int64_t cols) {
    bq_mat m = bq_arena_push(&dev->mem, rows, cols, BQ_F32);
    dev->op->put(dev, bq_mat_host(host, rows, cols, BQ_F32), m);
    dev->op->wait(dev);
    return m;
}

/* Of rows 0, T / ROWS, ... of y, whose exact values are in `exact`. */
static double nmse(bq_dev *dev, bq_mat y, float *host, const double *exact) {
    double off = 0, all = 0;
    for (int r = 0; r < ROWS; r++) {
        dev->op->get(dev, bq_mat_rows(y, r * (y.rows / ROWS), 1), bq_mat_host(host, 1, y.cols, BQ_F32));
        dev->op->wait(dev);
        for (int64_t o = 0; o < y.cols; o++) {
            double e = exact[r * y.cols + o];
            off += ((double)host[o] - e) * ((double)host[o] - e), all += e * e;
        }
    }
    return off / all;
}

static void measure(const char *backend, int64_t T, int64_t out, int64_t in) {
    size_t scratch = 1 << 20;
    for (bq_compute c = 0; c < BQ_COMPUTES; c++) scratch += bq_gemm_scratch(c, T, out, in);
    bq_dev dev;
    int code = bq_dev_open(&dev, backend, 1, 4 * (size_t)(T * in + out * in + T * out) + scratch);
    if (code) exit(code);
    float *x = numbers(T, in, 500), *w = numbers(out, in, 0), *host = numbers(1, out, 0);
    double *exact = calloc((size_t)(ROWS * out), sizeof *exact);
    BQ_CHECK(exact, "no memory for %ld numbers", (long)(ROWS * out));
    for (int64_t i = 0; i < ROWS * out; i++)
        for (int64_t k = 0; k < in; k++)
            exact[i] += (double)x[i / out * (T / ROWS) * in + k] * (double)w[i % out * in + k];
    bq_mat a = put(&dev, x, T, in), b = put(&dev, w, out, in), y = bq_arena_push(&dev.mem, T, out, BQ_F32);
    for (bq_compute c = 0; c < BQ_COMPUTES; c++) {
        if (bq_dev_compute(&dev, c) != c) continue;
        dev.compute = c;
        dev.op->gemm(&dev, false, true, 1, a, b, 0, y);
        printf("%s,%ld,%.2e\n", bq_compute_name(c), (long)in, nmse(&dev, y, host, exact));
        fflush(stdout);
    }
    bq_dev_close(&dev);
    free(x), free(w), free(host), free(exact);
}

int main(int argc, char **argv) {
    bq_restart(argv);
    int64_t tokens = argc > 2 ? atol(argv[2]) : 0, out = argc > 3 ? atol(argv[3]) : 0;
    if (argc < 5 || tokens < ROWS || out < 1)
        return fprintf(stderr, "usage: gpu_bench_nmse BACKEND TOKENS OUT IN...\n"), 2;
    for (int i = 4; i < argc; i++) {
        if (atol(argv[i]) < 1) return fprintf(stderr, "gpu_bench_nmse: %s columns\n", argv[i]), 2;
        measure(argv[1], tokens, out, atol(argv[i]));
    }
    return 0;
}
