/* SPDX-License-Identifier: Apache-2.0 */
/* Coordinate descent after GPTQ.  A thread block has a row; its threads share the columns of R, which stay in
 * their own order in memory.  Teams of 16 threads form the sums in double: all of them the same ones, so that
 * no exchange between teams is needed. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"

struct problem {
    bq_rows<float> fold, target, h, diag, scale, zero, code, r, other, fitted;
    bq_rows<int32_t> order;
    bq_scheme s;
    int64_t k, group, groups;
    double damp;
    int sweeps;
    bool refits;
};

/* A row as its threads see it. */
struct row {
    float *code, *r, *other, *fitted; /* numbers; R; errors or a product; scales */
    int64_t at;
    float extra; /* on the diagonal of h */
};

static __device__ bool dead(const problem &a, int64_t c) { return *bq_row(a.diag, c) == 0; }

static __device__ float entry(const problem &a, const row &x, int64_t c, int64_t other) {
    const float h = bq_row(a.h, c)[other];
    return c == other ? h + x.extra : h;
}

static __device__ bq_row_grid grid_of(const problem &a, const row &x, int64_t c) {
    const int64_t g = c / a.group;
    return bq_row_grid_of(a.s, x.fitted[g], bq_zero_of(a.zero, x.at * a.groups + g));
}

/* other = target - q. */
static __device__ void errors(const problem &a, const row &x) {
    for (int64_t c = threadIdx.x; c < a.k; c += BQ_THREADS)
        x.other[c] = dead(a, c) ? 0 : bq_row(a.target, x.at)[c] - bq_grid_value(x.code[c], grid_of(a, x, c));
    __syncthreads(); /* all errors are there */
}

static __device__ double loss_of(const problem &a, const row &x) {
    double sum = 0;
    for (int64_t c = bq_lane(); c < a.k; c += BQ_LANES) sum += (double)x.other[c] * (double)x.r[c];
    return -bq_team_sum(sum);
}

static __device__ void sweep(const problem &a, const row &x) {
    __shared__ float fell;
    for (int64_t i = 0; i < a.k; i++) {
        const int64_t c = *bq_row(a.order, i);
        if (dead(a, c)) continue;
        if (threadIdx.x == 0) fell = bq_refine_step(x.code + c, x.r[c], entry(a, x, c, c), grid_of(a, x, c));
        __syncthreads(); /* the change is there */
        const float e = fell;
        for (int64_t j = threadIdx.x; j < a.k && e != 0; j += BQ_THREADS) x.r[j] -= e * entry(a, x, c, j);
        __syncthreads(); /* R is up to date, and all threads have read the change */
    }
}

/* Refit the scales, one group after the other. */
static __device__ void refit(const problem &a, const row &x) {
    for (int64_t g = 0; g < a.groups; g++) {
        const int64_t first = g * a.group;
        for (int64_t c = threadIdx.x; c < a.k; c += BQ_THREADS) {
            float sum = 0;
            for (int64_t j = 0; j < a.group; j++)
                sum -= (dead(a, first + j) ? 0 : -x.code[first + j]) * entry(a, x, first + j, c);
            x.other[c] = sum;
        }
        __syncthreads(); /* the product is there */
        double slope = 0, curve = 0;
        for (int64_t j = bq_lane(); j < a.group; j += BQ_LANES) {
            const float n = dead(a, first + j) ? 0 : -x.code[first + j];
            slope += (double)n * (double)x.r[first + j], curve += (double)n * (double)x.other[first + j];
        }
        slope = -bq_team_sum(slope), curve = -bq_team_sum(curve);
        const float was = x.fitted[g], to = bq_refine_scale(was, slope, curve, a.s);
        __syncthreads(); /* all threads have read the scale and R */
        if (threadIdx.x == 0) x.fitted[g] = to;
        for (int64_t c = threadIdx.x; c < a.k; c += BQ_THREADS) x.r[c] -= (was - to) * x.other[c];
        __syncthreads(); /* R is up to date */
    }
}

/* The numbers of the row, its scales, and R. */
static __device__ void start(const problem &a, row &x) {
    double sum = 0;
    for (int64_t c = bq_lane(); c < a.k; c += BQ_LANES) sum += (double)*bq_row(a.diag, c);
    x.extra = (float)(a.damp * bq_team_sum(sum) / (double)a.k);
    for (int64_t g = threadIdx.x; g < a.groups; g += BQ_THREADS)
        x.fitted[g] = *bq_row(a.scale, x.at * a.groups + g);
    __syncthreads(); /* the scales are there */
    for (int64_t c = threadIdx.x; c < a.k; c += BQ_THREADS)
        x.code[c] = bq_grid_code_of(bq_row(a.fold, x.at)[c], grid_of(a, x, c));
    errors(a, x);
    for (int64_t c = threadIdx.x; c < a.k; c += BQ_THREADS) {
        float r = 0;
        for (int64_t j = 0; j < a.k; j++) r -= x.other[j] * entry(a, x, j, c);
        x.r[c] = r;
    }
    __syncthreads(); /* R is there */
}

static __global__ void __launch_bounds__(BQ_THREADS, 1) refine(problem a) {
    const int64_t at = blockIdx.x;
    row x = {bq_row(a.code, at),
             bq_row(a.r, at),
             bq_row(a.other, at),
             a.fitted.data + at * a.groups * a.fitted.ld,
             at,
             0};
    start(a, x);
    const double before = loss_of(a, x);
    __syncthreads(); /* all threads have read R */
    for (int n = 0; n < a.sweeps; n++) {
        sweep(a, x);
        if (a.refits) refit(a, x);
    }
    errors(a, x);
    if (!(loss_of(a, x) < before)) return;
    for (int64_t c = threadIdx.x; c < a.k; c += BQ_THREADS)
        if (!dead(a, c)) bq_row(a.fold, at)[c] = bq_grid_value(x.code[c], grid_of(a, x, c));
    for (int64_t g = threadIdx.x; g < a.groups; g += BQ_THREADS)
        *bq_row(a.scale, at * a.groups + g) = x.fitted[g];
}

void bq_cuda_refine(bq_dev *dev, const bq_refine *p, bq_scheme s) {
    const int64_t rows = p->fold.rows, k = p->fold.cols, group = s.group > 0 ? s.group : k,
                  groups = k / group;
    BQ_CHECK(k > 0 && k <= INT32_MAX && k % group == 0 && bq_scheme_valid(s, p->zero.data),
             "refine: %ld columns in groups of %ld, %s", (long)k, (long)group, bq_element_name(s.element));
    BQ_WANT(dev, rows, k, p->fold, p->target);
    BQ_WANT(dev, k, k, p->h);
    BQ_WANT_AS(dev, BQ_I32, k, 1, p->order);
    BQ_WANT(dev, k, 1, p->diag);
    BQ_WANT(dev, rows * groups, 1, p->scale);
    if (p->zero.data) BQ_WANT(dev, rows * groups, 1, p->zero);
    const size_t mark = bq_arena_mark(&dev->mem);
    const bq_mat code = bq_arena_push(&dev->mem, rows, k, BQ_F32),
                 r = bq_arena_push(&dev->mem, rows, k, BQ_F32),
                 other = bq_arena_push(&dev->mem, rows, k, BQ_F32),
                 fitted = bq_arena_push(&dev->mem, 1, rows * groups, BQ_F32);
    problem a = {p->fold, p->target, p->h,   p->diag, p->scale,  p->zero,
                 code,    r,         other,  fitted,  p->order,  s,
                 k,       group,     groups, p->damp, p->sweeps, p->refit && bq_refine_refits(s)};
    a.fitted.ld = 1;
    bq_launch(dev, dim3((unsigned)rows), BQ_THREADS, refine, a);
    bq_arena_reset(&dev->mem, mark);
}
