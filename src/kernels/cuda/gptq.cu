/* GPTQ's loop over the columns.  The weights are stored transposed, with the columns in processing order, so
 * a column is one line of memory; a thread has a row.  One kernel quantizes a column block of up to 128
 * columns and keeps its errors.  Another subtracts them from all later columns, one by one in their order,
 * as the contract says.  A sum of errors is never formed apart from a weight, so every cut into column
 * blocks gives the same bits. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

enum { COLUMNS = 128, LANES = 64, TILE = 64, DEPTH = 32, PITCH = TILE + 4 };

struct layer {
    bq_rows<float> w, fold, ut, scale, zero;
    bq_rows<int32_t> order;
    bq_rows<float> diag;
    int64_t rows, k, group, groups, pitch; /* pitch: floats from line to line */
    float *line, *error;                   /* k lines of weights; COLUMNS lines of errors */
    bq_scheme s;
};

static __device__ int64_t column_at(const layer &a, int64_t i) { return *bq_row(a.order, i); }

/* Copy the weights to lines in processing order; columns whose diagonal is 0 become 0. */
static __global__ void load(layer a) {
    const int64_t r = bq_column();
    for (int64_t i = blockIdx.y; i < a.k && r < a.rows; i += gridDim.y) {
        const int64_t c = column_at(a, i);
        a.line[i * a.pitch + r] = *bq_row(a.diag, c) == 0 ? 0 : bq_row(a.w, r)[c];
    }
}

static __global__ void store(layer a) {
    const int64_t r = bq_column();
    for (int64_t i = blockIdx.y; i < a.k && r < a.rows; i += gridDim.y)
        bq_row(a.fold, r)[column_at(a, i)] = a.line[i * a.pitch + r];
}

/* Copy `count` columns from `begin` on to the rows of a matrix, and their weights for `fit`. */
static __global__ void gather(layer a, int64_t begin, int64_t count, bq_rows<float> to, float *weight) {
    const int64_t j = bq_column();
    for (int64_t r = blockIdx.y; r < a.rows && j < count; r += gridDim.y) {
        bq_row(to, r)[j] = a.line[(begin + j) * a.pitch + r];
        if (r == 0) weight[j] = bq_diagonal(a.diag.data, a.diag.ld, column_at(a, begin + j));
    }
}

/* One weight: *w becomes the weight that is kept; returns the error for the later columns. */
static __device__ float quantize(float *w, float scale, float zero, bq_scheme s, float d) {
    const bq_row_grid g = bq_row_grid_of(s, scale, zero);
    const float x = *w, error = (x - bq_on_code_grid(x, g)) / d;
    const float least = (g.qmin - 0.5f) * scale, most = (g.qmax + 0.5f) * scale, kept = x > least ? x : least;
    *w = kept < most ? kept : most;
    return error;
}

static __global__ void __launch_bounds__(LANES) quantize_block(layer a, int64_t begin, int count) {
    __shared__ float error[COLUMNS][LANES]; /* a thread uses its own column only */
    const int64_t r = (int64_t)blockIdx.x * LANES + threadIdx.x;
    if (r >= a.rows) return; /* allowed: no barrier follows */
    for (int i = 0; i < count; i++) {
        const float *u = bq_row(a.ut, begin + i) + begin;
        float x = a.line[(begin + i) * a.pitch + r];
        for (int j = 0; j < i; j++) x -= error[j][threadIdx.x] * u[j];
        const int64_t g = r * a.groups + column_at(a, begin + i) / a.group;
        const float e = quantize(&x, *bq_row(a.scale, g), bq_zero_of(a.zero, g), a.s, u[i]);
        a.line[(begin + i) * a.pitch + r] = x;
        a.error[i * a.pitch + r] = error[i][threadIdx.x] = e;
    }
}

/* Subtract the errors of `count` columns from `begin` from all columns behind them.  A thread block has a
 * tile of 64 columns x 64 rows; a thread has 4 x 4 of it. */
static __global__ void __launch_bounds__(BQ_THREADS) update(layer a, int64_t begin, int count) {
    __shared__ float u[DEPTH][PITCH], e[DEPTH][PITCH];
    const int64_t first = begin + count + (int64_t)blockIdx.x * TILE, row = (int64_t)blockIdx.y * TILE;
    const int y = (int)threadIdx.x / 16 * 4, x = (int)threadIdx.x % 16 * 4;
    float sum[4][4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const bool in = first + y + i < a.k && row + x + j < a.rows;
            sum[i][j] = in ? a.line[(first + y + i) * a.pitch + row + x + j] : 0;
        }
    for (int at = 0; at < count; at += DEPTH) {
        const int depth = count - at < DEPTH ? count - at : (int)DEPTH;
        __syncthreads(); /* all threads have read u and e */
        for (int n = (int)threadIdx.x; n < DEPTH * TILE; n += BQ_THREADS) {
            const int64_t c = first + n / DEPTH, r = row + n % TILE;
            u[n % DEPTH][n / DEPTH] =
                c < a.k && n % DEPTH < depth ? bq_row(a.ut, c)[begin + at + n % DEPTH] : 0;
            e[n / TILE][n % TILE] =
                r < a.rows && n / TILE < depth ? a.error[(at + n / TILE) * a.pitch + r] : 0;
        }
        __syncthreads(); /* both are there */
        for (int d = 0; d < depth; d++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sum[i][j] -= e[d][x + j] * u[d][y + i];
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            if (first + y + i < a.k && row + x + j < a.rows)
                a.line[(first + y + i) * a.pitch + row + x + j] = sum[i][j];
}

/* Fit the grids of the group whose columns are at begin, begin + 1, ... to the weights as they are now. */
static void fit_group(bq_dev *dev, const layer &a, const bq_gptq *p, int64_t group, int64_t begin) {
    const size_t mark = bq_arena_mark(&dev->mem);
    const bq_mat w = bq_arena_push(&dev->mem, a.rows, a.group, BQ_F32),
                 weight = bq_arena_push(&dev->mem, 1, a.group, BQ_F32);
    bq_mat scale = bq_mat_rows(p->scale, group, a.rows), zero = p->zero;
    scale.ld *= a.groups;
    if (zero.data) zero = bq_mat_rows(zero, group, a.rows), zero.ld *= a.groups;
    bq_launch(dev, bq_grid_elements(a.rows, a.group), BQ_THREADS, gather, a, begin, a.group, w,
              bq_f32(weight));
    if (p->clip == BQ_CLIP_MINMAX)
        bq_cuda_range(dev, w, a.s, scale, zero);
    else if (p->clip == BQ_CLIP_MSE)
        bq_cuda_range_mse(dev, w, a.s, p->ends, scale, zero);
    else
        bq_cuda_fit(dev, w, weight, a.s, scale, zero);
    bq_arena_reset(&dev->mem, mark);
}

static layer layer_of(bq_dev *dev, const bq_gptq *p, bq_scheme s, bq_mat fold) {
    const int64_t rows = p->w.rows, k = p->w.cols, group = s.group > 0 ? s.group : k;
    BQ_CHECK(k > 0 && k <= INT32_MAX && k % group == 0 && bq_scheme_valid(s, p->zero.data),
             "gptq: %ld columns in groups of %ld, %s", (long)k, (long)group, bq_element_name(s.element));
    BQ_WANT(dev, rows, k, p->w, fold);
    BQ_WANT(dev, k, k, p->ut);
    BQ_WANT_AS(dev, BQ_I32, k, 1, p->order);
    BQ_WANT(dev, k, 1, p->diag);
    BQ_WANT(dev, rows * (k / group), 1, p->scale);
    if (p->zero.data) BQ_WANT(dev, rows * (k / group), 1, p->zero);
    const bq_mat line = bq_arena_push(&dev->mem, k, rows, BQ_F32),
                 error = bq_arena_push(&dev->mem, COLUMNS, rows, BQ_F32);
    return {p->w, fold,  p->ut,     p->scale, p->zero,      p->order,      p->diag, rows,
            k,    group, k / group, line.ld,  bq_f32(line), bq_f32(error), s};
}

/* With `dynamic` a group begins a column block: then all errors before it have been subtracted. */
static void columns(bq_dev *dev, const layer &a, const bq_gptq *p, const int32_t *order) {
    for (int64_t begin = 0, count; begin < a.k; begin += count) {
        count = a.k - begin < COLUMNS ? a.k - begin : (int64_t)COLUMNS;
        if (p->dynamic) {
            const int64_t rest = a.group - begin % a.group;
            if (begin % a.group == 0) fit_group(dev, a, p, order[begin] / a.group, begin);
            count = count < rest ? count : rest;
        }
        bq_launch(dev, dim3(bq_pieces(a.rows, LANES)), LANES, quantize_block, a, begin, (int)count);
        bq_launch(dev, dim3(bq_pieces(a.k - begin - count, TILE), bq_pieces(a.rows, TILE)), BQ_THREADS,
                  update, a, begin, (int)count);
    }
}

void bq_cuda_gptq(bq_dev *dev, const bq_gptq *p, bq_scheme s, bq_mat fold) {
    if (p->w.rows == 0) return;
    const size_t mark = bq_arena_mark(&dev->mem);
    const layer a = layer_of(dev, p, s, fold);
    const int32_t *order = NULL;
    if (p->dynamic) { /* the host must know which group comes when */
        bq_mat there = bq_mat_host(dev->op->stage(dev, (size_t)a.k * sizeof *order), a.k, 1, BQ_I32);
        bq_cuda_get(dev, p->order, there);
        dev->op->wait(dev);
        order = (const int32_t *)there.data;
    }
    bq_launch(dev, bq_grid_elements(a.k, a.rows), BQ_THREADS, load, a);
    columns(dev, a, p, order);
    bq_launch(dev, bq_grid_elements(a.k, a.rows), BQ_THREADS, store, a);
    bq_arena_reset(&dev->mem, mark);
}
