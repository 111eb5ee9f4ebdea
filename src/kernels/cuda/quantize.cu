/* Codes from numbers, and numbers from codes. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

static __global__ void encode(bq_rows<float> w, bq_rows<float> scale, bq_rows<float> zero, bq_scheme s,
                              bq_rows<int8_t> code, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y) {
        const float z = bq_zero_of(zero, r);
        const bq_row_grid g = bq_row_grid_of(s, *bq_row(scale, r), z);
        const float q = bq_nearest(g.element, bq_clamp_code(bq_row(w, r)[c] / g.scale, g.qmin, g.qmax));
        bq_row(code, r)[c] = (int8_t)((int)q + (int)z);
    }
}

static __global__ void decode(bq_rows<int8_t> code, bq_rows<float> scale, bq_rows<float> zero,
                              bq_rows<float> w, int64_t rows, int64_t cols) {
    const int64_t c = bq_column();
    for (int64_t r = blockIdx.y; r < rows && c < cols; r += gridDim.y)
        bq_row(w, r)[c] = (float)(bq_row(code, r)[c] - (int)bq_zero_of(zero, r)) * *bq_row(scale, r);
}

static __global__ void fake_rows(bq_rows<float> x, bq_scheme s, bq_rows<float> y, int64_t rows,
                                 int64_t cols) {
    BQ_EACH_ROW(r, rows) {
        const int64_t n = r < rows ? cols : 0;
        float lo, hi, zero = 0;
        bq_team_ends(bq_row(x, r), n, &lo, &hi);
        const bq_row_grid grid = bq_row_grid_fit(lo, hi, s, &zero);
        for (int64_t c = bq_lane(); c < n; c += BQ_LANES) bq_row(y, r)[c] = bq_on_grid(bq_row(x, r)[c], grid);
    }
}

void bq_cuda_quantize(bq_dev *dev, bq_mat w, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat code) {
    BQ_WANT_GRID(dev, w, s, scale, zero);
    BQ_WANT_AS(dev, BQ_I8, w.rows, w.cols, code);
    bq_launch(dev, bq_grid_elements(w.rows, w.cols), BQ_THREADS, encode, w, scale, zero, s, code, w.rows,
              w.cols);
}

void bq_cuda_dequantize(bq_dev *dev, bq_mat code, bq_mat scale, bq_mat zero, bq_mat w) {
    BQ_WANT(dev, code.rows, code.cols, w);
    BQ_WANT_AS(dev, BQ_I8, w.rows, w.cols, code);
    BQ_WANT(dev, w.rows, 1, scale);
    if (zero.data) BQ_WANT(dev, w.rows, 1, zero);
    bq_launch(dev, bq_grid_elements(w.rows, w.cols), BQ_THREADS, decode, code, scale, zero, w, w.rows,
              w.cols);
}

void bq_cuda_fake_quantize_rows(bq_dev *dev, bq_mat x, int bits, bq_mat y) {
    const bq_scheme s = bq_scheme_of_tokens(bits);
    BQ_CHECK(bq_scheme_valid(s, false), "fake_quantize_rows: no grid of %d bits", bits);
    BQ_WANT(dev, x.rows, x.cols, x, y);
    bq_launch(dev, bq_grid_teams(x.rows), BQ_THREADS, fake_rows, x, s, y, x.rows, x.cols);
}
