/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "base/num.h"
#include "kernels/cpu/vec.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* With fewer elements it does not pay to wake threads. */
enum { PARALLEL = 1 << 15 };

static float zero_of(bq_mat zero, int64_t row) { return zero.data ? *(float *)bq_mat_at(zero, row, 0) : 0; }

void bq_cpu_mix(bq_dev *dev, bq_mat fp, bq_mat qt, double p, bq_rng_key at, bq_mat out) {
    int64_t rows = out.rows, cols = out.cols;
    BQ_CHECK(p >= 0 && p <= 1 && rows * cols <= INT64_C(4) << 32, "mix: probability %g, %ld x %ld", p,
             (long)rows, (long)cols);
    BQ_WANT(dev, rows, cols, fp, qt, out);
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
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_WANT_AS(dev, BQ_I8, w.rows, w.cols, code);
    const bq_vec_table *vec = bq_vec();
    const bq_element e = bq_element_of(s.element);
    const bq_row_grid unit = bq_row_grid_unit(s);
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++) {
        float z = zero_of(zero, r);
        const bq_row_grid grid = bq_row_grid_at(unit, *(float *)bq_mat_at(scale, r, 0), z);
        if (grid.number.mantissa)
            vec->quantize_float(bq_mat_at(w, r, 0), w.cols, grid, e, bq_mat_at(code, r, 0));
        else
            vec->quantize(bq_mat_at(w, r, 0), w.cols, &grid, bq_code_origin(s, z), bq_mat_at(code, r, 0));
    }
}

void bq_cpu_dequantize(bq_dev *dev, bq_mat code, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat w) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_WANT_AS(dev, BQ_I8, w.rows, w.cols, code);
    const bq_vec_table *vec = bq_vec();
    const bq_element e = bq_element_of(s.element);
#pragma omp parallel for schedule(static) if (w.rows * w.cols > PARALLEL)
    for (int64_t r = 0; r < w.rows; r++) {
        const float by = *(float *)bq_mat_at(scale, r, 0);
        if (e.number.mantissa)
            vec->dequantize_float(bq_mat_at(code, r, 0), w.cols, by, e, bq_mat_at(w, r, 0));
        else if (bq_scheme_offset(s))
            vec->dequantize_offset(bq_mat_at(code, r, 0), w.cols, by, zero_of(zero, r), bq_mat_at(w, r, 0));
        else
            vec->dequantize(bq_mat_at(code, r, 0), w.cols, by, (int)zero_of(zero, r), bq_mat_at(w, r, 0));
    }
}

/* The largest scale of the rows of a tile in column g. */
static float largest(bq_mat scale, int64_t first, int64_t rows, int64_t g) {
    float most = 0;
    for (int64_t r = first; r < first + rows; r++) {
        const float x = *(float *)bq_mat_at(scale, r, g);
        most = x > most || x != x ? x : most; /* NaN stays, whatever follows */
    }
    return most;
}

void bq_cpu_share_scales(bq_dev *dev, bq_mat scale, bq_scheme s) {
    int64_t tile = s.rows < 0 ? scale.rows : s.rows;
    BQ_WANT(dev, scale.rows, scale.cols, scale);
    BQ_CHECK(tile >= 1, "share_scales: tiles of %ld rows", (long)tile);
#pragma omp parallel for schedule(static) if (scale.rows * scale.cols > PARALLEL)
    for (int64_t first = 0; first < scale.rows; first += tile)
        for (int64_t g = 0; g < scale.cols; g++) {
            int64_t rows = scale.rows - first < tile ? scale.rows - first : tile;
            const float shared = bq_tile_scale(largest(scale, first, rows, g), s);
            for (int64_t r = first; r < first + rows; r++) *(float *)bq_mat_at(scale, r, g) = shared;
        }
}
