#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "base/num.h"
#include "kernels/cpu/vec.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* With fewer elements it does not pay to wake threads. */
enum { PARALLEL = 1 << 15 };

static void check_rows(bq_mat w, bq_mat of_row, const char *what, const char *op) {
    BQ_CHECK(w.type == BQ_F32 && of_row.type == BQ_F32 && of_row.rows == w.rows && of_row.cols == 1,
             "%s: %ld x %ld %s with %ld x %ld %s", op, (long)w.rows, (long)w.cols, bq_type_name(w.type),
             (long)of_row.rows, (long)of_row.cols, what);
}

void bq_grid_check(bq_scheme s, bq_mat w, bq_mat scale, bq_mat zero, const char *op) {
    BQ_CHECK(bq_scheme_valid(s, zero.data), "%s: no grid of %s with scales in %s and %d zero points", op,
             bq_element_name(s.element), bq_type_name(s.scale), zero.data != NULL);
    check_rows(w, scale, "scales", op);
    if (zero.data) check_rows(w, zero, "zero points", op);
}

static float zero_of(bq_mat zero, int64_t row) { return zero.data ? *(float *)bq_mat_at(zero, row, 0) : 0; }

static void check_codes(bq_mat code, bq_mat w, const char *op) {
    BQ_CHECK(code.type == BQ_I8 && code.rows == w.rows && code.cols == w.cols,
             "%s: %ld x %ld %s codes of %ld x %ld", op, (long)code.rows, (long)code.cols,
             bq_type_name(code.type), (long)w.rows, (long)w.cols);
}

void bq_cpu_mix(bq_dev *dev, bq_mat fp, bq_mat qt, double p, bq_rng_key at, bq_mat out) {
    (void)dev;
    int64_t rows = out.rows, cols = out.cols;
    BQ_CHECK(p >= 0 && p <= 1, "mix: probability %g", p);
    BQ_CHECK(fp.type == BQ_F32 && qt.type == BQ_F32 && out.type == BQ_F32 && fp.rows == rows &&
                 qt.rows == rows && fp.cols == cols && qt.cols == cols && rows * cols <= INT64_C(4) << 32,
             "mix: %ld x %ld and %ld x %ld to %ld x %ld", (long)fp.rows, (long)fp.cols, (long)qt.rows,
             (long)qt.cols, (long)rows, (long)cols);
    double words = ceil(p * 0x1p32); /* so many of the 2^32 values of a word take qt: those
                                        with word < p * 2^32 */
    uint32_t last = words > 0 ? (uint32_t)(words - 1) : 0;
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (rows * cols > PARALLEL)
    for (int64_t r = 0; r < rows; r++) {
        const float *a = bq_mat_at(fp, r, 0), *b = bq_mat_at(qt, r, 0);
        float *to = bq_mat_at(out, r, 0);
        if (words <= 0 || words >= 0x1p32)
            memcpy(to, words <= 0 ? a : b, (size_t)cols * sizeof *to);
        else
            vec->mix(a, b, cols, r * cols, last, at, to);
    }
}

void bq_cpu_quantize(bq_dev *dev, bq_mat w, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat code) {
    (void)dev;
    bq_grid_check(s, w, scale, zero, "quantize");
    check_codes(code, w, "quantize");
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++) {
        float z = zero_of(zero, r);
        bq_row_grid grid = bq_row_grid_of(s, *(float *)bq_mat_at(scale, r, 0), z);
        vec->quantize(bq_mat_at(w, r, 0), w.cols, grid, (int)z, bq_mat_at(code, r, 0));
    }
}

void bq_cpu_dequantize(bq_dev *dev, bq_mat code, bq_mat scale, bq_mat zero, bq_mat w) {
    (void)dev;
    check_rows(w, scale, "scales", "dequantize");
    if (zero.data) check_rows(w, zero, "zero points", "dequantize");
    check_codes(code, w, "dequantize");
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++)
        vec->dequantize(bq_mat_at(code, r, 0), w.cols, *(float *)bq_mat_at(scale, r, 0),
                        (int)zero_of(zero, r), bq_mat_at(w, r, 0));
}

void bq_cpu_fake_quantize_rows(bq_dev *dev, bq_mat x, int bits, bq_mat y) {
    (void)dev;
    bq_scheme s = bq_scheme_of_tokens(bits);
    BQ_CHECK(bq_scheme_valid(s, false), "fake_quantize_rows: no grid of %d bits", bits);
    BQ_CHECK(x.type == BQ_F32 && y.type == BQ_F32 && x.rows == y.rows && x.cols == y.cols,
             "fake_quantize_rows: %ld x %ld to %ld x %ld", (long)x.rows, (long)x.cols, (long)y.rows,
             (long)y.cols);
    const bq_vec_table *vec = bq_vec();
#pragma omp parallel for schedule(static) if (x.rows * x.cols > PARALLEL)
    for (int64_t r = 0; r < x.rows; r++) {
        float lo, hi, zero = 0;
        vec->minmax(bq_mat_at(x, r, 0), x.cols, &lo, &hi);
        bq_row_grid grid = bq_row_grid_fit(lo, hi, s, &zero);
        vec->fake_quantize(bq_mat_at(x, r, 0), x.cols, grid, bq_mat_at(y, r, 0));
    }
}
