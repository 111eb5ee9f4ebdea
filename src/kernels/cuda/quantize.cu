/* SPDX-License-Identifier: Apache-2.0 */
/* Codes from numbers, and numbers from codes. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

static __global__ void encode(bq_rows<float> w, bq_rows<float> scale, bq_rows<float> zero, bq_scheme s,
                              bq_rows<int8_t> code, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) {
        const float z = bq_zero_of(zero, r);
        const bq_row_grid g = bq_row_grid_of(s, *bq_row(scale, r), z);
        const float q = bq_grid_code_of(bq_row(w, r)[c], g);
        bq_row(code, r)[c] = g.number.mantissa ? bq_float_code(bq_element_of(s.element), q)
                                               : (int8_t)((int)q + bq_code_origin(s, z));
    }
}

static __global__ void decode(bq_rows<int8_t> code, bq_rows<float> scale, bq_rows<float> zero, bq_scheme s,
                              bq_rows<float> w, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    const bq_element e = bq_element_of(s.element);
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) {
        const int8_t q = bq_row(code, r)[c];
        const float z = bq_zero_of(zero, r), by = *bq_row(scale, r);
        if (bq_scheme_offset(s))
            bq_row(w, r)[c] = (float)q * by + z;
        else
            bq_row(w, r)[c] = (e.number.mantissa ? bq_float_value(e, q) : (float)(q - (int)z)) * by;
    }
}

/* A thread has a column of a tile. */
static __global__ void share(bq_rows<float> scale, bq_scheme s, int64_t tile, int64_t rows, int64_t cols) {
    const int64_t g = bq_column();
    for (int64_t first = blockIdx.y * tile; first < rows && g < cols; first += gridDim.y * tile) {
        const int64_t end = first + tile < rows ? first + tile : rows;
        float most = 0;
        for (int64_t r = first; r < end; r++) {
            const float x = bq_row(scale, r)[g];
            most = x > most || x != x ? x : most;
        }
        const float shared = bq_tile_scale(most, s);
        for (int64_t r = first; r < end; r++) bq_row(scale, r)[g] = shared;
    }
}

void bq_cuda_quantize(bq_dev *dev, bq_mat w, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat code) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_WANT_AS(dev, BQ_I8, w.rows, w.cols, code);
    bq_launch(dev, bq_grid_elements(w.rows, w.cols), BQ_THREADS, encode, w, scale, zero, s, code, w.rows,
              w.cols);
}

void bq_cuda_dequantize(bq_dev *dev, bq_mat code, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat w) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_WANT_AS(dev, BQ_I8, w.rows, w.cols, code);
    bq_launch(dev, bq_grid_elements(w.rows, w.cols), BQ_THREADS, decode, code, scale, zero, s, w, w.rows,
              w.cols);
}

void bq_cuda_share_scales(bq_dev *dev, bq_mat scale, bq_scheme s) {
    const int64_t tile = s.rows < 0 ? scale.rows : s.rows;
    BQ_WANT(dev, scale.rows, scale.cols, scale);
    BQ_CHECK(tile >= 1, "share_scales: tiles of %ld rows", (long)tile);
    bq_launch(dev, bq_grid_elements((scale.rows + tile - 1) / tile, scale.cols), BQ_THREADS, share, scale, s,
              tile, scale.rows, scale.cols);
}
