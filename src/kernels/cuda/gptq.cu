/* SPDX-License-Identifier: Apache-2.0 */
/* GPTQ's loop over the columns.  The weights are stored transposed, with the columns in processing order, so
 * a column is one line of memory; a thread has a row.  One kernel quantizes a column block of up to 128
 * columns, 32 at a time in registers, and keeps its errors.  Another subtracts them from all later columns.
 * A weight takes the errors one by one in their order, as the contract says.  A sum of errors is never formed
 * apart from a weight, so every cut into column blocks gives the same bits. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

enum { COLUMNS = 128, STEP = 32, LANES = 64, STEP_PITCH = STEP + 4 };
/* A tile of the update: WIDE columns x HIGH rows.  A thread has EACH x MORE of it. */
enum { WIDE = 64, HIGH = 128, DEPTH = 32, EACH = 4, MORE = 8 };

struct layer {
    bq_rows<float> w, fold, ut, scale, zero;
    bq_rows<int32_t> order;
    bq_rows<float> diag;
    int64_t rows, k, group, groups, pitch; /* pitch: floats from line to line */
    float *line, *error;                   /* k lines of weights; COLUMNS lines of errors */
    bq_scheme s;
    bq_sparse sparse;
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

/* One weight: *w becomes the weight that is kept; returns the error for the later columns.  g: the grid with
 * scale 1 and zero 0. */
static __device__ float quantize(float *w, float scale, float zero, bq_row_grid g, float d) {
    g = bq_row_grid_at(g, scale, zero);
    const float error = (*w - bq_on_code_grid(*w, g)) / d;
    *w = bq_near_grid(*w, g);
    return error;
}

/* Which of 4 weights in processing order stay, as bits; d: their divisors. */
static __device__ unsigned choose(const float *x, const float *d) {
    const float m0 = bq_importance(x[0] / d[0]), m1 = bq_importance(x[1] / d[1]),
                m2 = bq_importance(x[2] / d[2]), m3 = bq_importance(x[3] / d[3]);
    return (bq_stays(m0, m1, m2, m3, 0) ? 1u : 0u) | (bq_stays(m1, m0, m2, m3, 1) ? 2u : 0u) |
           (bq_stays(m2, m0, m1, m3, 2) ? 4u : 0u) | (bq_stays(m3, m0, m1, m2, 3) ? 8u : 0u);
}

/* What the columns of a step share: u[i][j] multiplies error i in column j; the diagonal of U; groups. */
struct step_memory {
    alignas(16) float u[STEP][STEP_PITCH];
    float diagonal[STEP];
    int64_t group[STEP];
};

/* Fill in what multiplies the errors of the STEP columns from `from` on, in `count` columns from `begin` on;
 * 0 in columns behind them.  The columns' own errors: j counts from the column behind i, and the diagonal and
 * groups are filled in, too. */
static __device__ void stage(step_memory *m, const layer &a, int64_t from, int64_t begin, int count) {
    const bool own = from == begin;
    __syncthreads(); /* all threads have read what was there */
    for (int n = (int)threadIdx.x; n < STEP * STEP; n += LANES) {
        const int i = n % STEP, j = n / STEP, c = own ? i + 1 + j : j;
        m->u[i][j] = c < count ? bq_row(a.ut, begin + c)[from + i] : 0;
        if (!own || n >= count) continue;
        m->diagonal[n] = bq_row(a.ut, begin + n)[begin + n];
        m->group[n] = column_at(a, begin + n) / a.group;
    }
    __syncthreads(); /* all of it is there */
}

/* DIVIDES: codes are made by a division: the inner loop need not ask.
 * Column i is always x[0]: when its error is subtracted from the columns behind it, each of them moves one
 * place to the front.  So registers have constant indices, and the loop's code is short. */
template <bool DIVIDES>
static __global__ void __launch_bounds__(LANES) quantize_block(layer a, int64_t begin, int count) {
    __shared__ float error[COLUMNS][LANES]; /* a thread uses its own column only */
    __shared__ step_memory m;
    const int me = (int)threadIdx.x;
    const int64_t row = (int64_t)blockIdx.x * LANES + me, r = row < a.rows ? row : a.rows - 1;
    const bq_row_grid unit = bq_row_grid_unit(a.s),
                      grid = DIVIDES ? bq_row_grid_by(unit, BQ_WAY_DIVIDE) : unit;
    for (int at = 0; at < count; at += STEP) {
        const int n = count - at < STEP ? count - at : (int)STEP;
        float *line = a.line + (begin + at) * a.pitch + r, x[STEP];
        for (int j = 0; j < STEP; j++) x[j] = j < n ? line[j * a.pitch] : 0;
        for (int from = 0; from < at; from += STEP) {
            stage(&m, a, begin + from, begin + at, n);
            for (int i = 0; i < STEP; i++)
                for (int j = 0; j < STEP; j++) x[j] -= error[from + i][me] * m.u[i][j];
        }
        stage(&m, a, begin + at, begin + at, n);
        int64_t g = r * a.groups + m.group[0];
        float scale = *bq_row(a.scale, g), zero = bq_zero_of(a.zero, g);
        unsigned stay = 0; /* bit 0: of the column at hand */
        for (int i = 0; i < n; i++) {
            const float now = scale, origin = zero, before = x[0];
            stay >>= 1;
            if (a.sparse == BQ_SPARSE_TWO && i % 4 == 0) stay = choose(x, m.diagonal + i);
            if (a.sparse == BQ_SPARSE_KEPT)
                stay = bq_row(a.w, r)[column_at(a, begin + at + i)] != 0 ? 1u : 0u;
            g = r * a.groups + m.group[i + 1 < n ? i + 1 : i]; /* loaded while this column is computed */
            scale = *bq_row(a.scale, g), zero = bq_zero_of(a.zero, g);
            float e = quantize(&x[0], now, origin, grid, m.diagonal[i]);
            if (a.sparse != BQ_SPARSE_NONE && !(stay & 1u)) x[0] = 0, e = before / m.diagonal[i];
            error[at + i][me] = e;
            if (row < a.rows) line[i * a.pitch] = x[0], a.error[(at + i) * a.pitch + r] = e;
            for (int j = 0; j + 1 < STEP; j++) x[j] = x[j + 1] - e * m.u[i][j];
        }
    }
}

/* Row j of a thread's 8 rows in a tile: two runs of 4. */
static __device__ int place(int j, int first) { return j / 4 * (HIGH / 2) + first + j % 4; }

/* Subtract the errors of `count` columns from `begin` from all columns behind them.  A thread block has a
 * tile. */
static __global__ void __launch_bounds__(BQ_THREADS, 2) update(layer a, int64_t begin, int count) {
    alignas(16) __shared__ float u[DEPTH][WIDE + 4];
    alignas(16) __shared__ float e[DEPTH][HIGH + 4];
    const int64_t first = begin + count + (int64_t)blockIdx.x * WIDE, row = (int64_t)blockIdx.y * HIGH;
    const int y = (int)threadIdx.x / 16 * 4, x = (int)threadIdx.x % 16 * 4;
    float sum[EACH][MORE];
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < MORE; j++) {
            const int64_t c = first + y + i, r = row + place(j, x);
            sum[i][j] = c < a.k && r < a.rows ? a.line[c * a.pitch + r] : 0;
        }
    for (int at = 0; at < count; at += DEPTH) {
        const int depth = count - at < DEPTH ? count - at : (int)DEPTH;
        __syncthreads(); /* all threads have read u and e */
        for (int n = (int)threadIdx.x; n < DEPTH * WIDE; n += BQ_THREADS) {
            const int64_t c = first + n / DEPTH, d = n % DEPTH;
            u[d][n / DEPTH] = c < a.k && d < depth ? bq_row(a.ut, c)[begin + at + d] : 0;
        }
        for (int n = (int)threadIdx.x; n < DEPTH * HIGH; n += BQ_THREADS) {
            const int64_t r = row + n % HIGH, d = n / HIGH;
            e[d][n % HIGH] = r < a.rows && d < depth ? a.error[(at + d) * a.pitch + r] : 0;
        }
        __syncthreads(); /* both are there */
        for (int d = 0; d < depth; d++) {
            float us[EACH], es[MORE];
            for (int i = 0; i < EACH; i++) us[i] = u[d][y + i];
            for (int j = 0; j < MORE; j++) es[j] = e[d][place(j, x)];
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < MORE; j++) sum[i][j] -= es[j] * us[i];
        }
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < MORE; j++) {
            const int64_t c = first + y + i, r = row + place(j, x);
            if (c < a.k && r < a.rows) a.line[c * a.pitch + r] = sum[i][j];
        }
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
    BQ_CHECK(p->sparse != BQ_SPARSE_TWO || (k % 4 == 0 && group % 4 == 0),
             "gptq: %ld columns in groups of %ld, 2:4", (long)k, (long)group);
    BQ_WANT(dev, rows, k, p->w, fold);
    BQ_WANT(dev, k, k, p->ut);
    BQ_WANT_AS(dev, BQ_I32, k, 1, p->order);
    BQ_WANT(dev, k, 1, p->diag);
    BQ_WANT(dev, rows * (k / group), 1, p->scale);
    if (p->zero.data) BQ_WANT(dev, rows * (k / group), 1, p->zero);
    const bq_mat line = bq_arena_push(&dev->mem, k, rows, BQ_F32),
                 error = bq_arena_push(&dev->mem, COLUMNS, rows, BQ_F32);
    return {p->w, fold,  p->ut,     p->scale, p->zero,      p->order,      p->diag, rows,
            k,    group, k / group, line.ld,  bq_f32(line), bq_f32(error), s,       p->sparse};
}

/* With `dynamic` a group begins a column block: then all errors before it have been subtracted. */
static void columns(bq_dev *dev, const layer &a, const bq_gptq *p, const int32_t *order) {
    const bool divides = bq_row_grid_unit(a.s).way == BQ_WAY_DIVIDE;
    void (*const rounding)(layer, int64_t, int) = divides ? quantize_block<true> : quantize_block<false>;
    for (int64_t begin = 0, count; begin < a.k; begin += count) {
        count = a.k - begin < COLUMNS ? a.k - begin : (int64_t)COLUMNS;
        if (p->dynamic) {
            const int64_t rest = a.group - begin % a.group;
            if (begin % a.group == 0) fit_group(dev, a, p, order[begin] / a.group, begin);
            count = count < rest ? count : rest;
        }
        bq_launch(dev, dim3(bq_pieces(a.rows, LANES)), LANES, rounding, a, begin, (int)count);
        bq_launch(dev, dim3(bq_pieces(a.k - begin - count, WIDE), bq_pieces(a.rows, HIGH)), BQ_THREADS,
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
