/* SPDX-License-Identifier: Apache-2.0 */
/* reduce.cuh - sums with the bits of the cpu's: in 16 fixed lanes.
 *
 * Element j of a row is added to lane j % 16, in the order of j; then lanes are added as l and l + 8, l and
 * l + 4, and so on.  Here a lane is a thread, and a team of 16 threads has a row: two teams in a warp,
 * BQ_TEAMS in a thread block.  A kernel on rows is launched with bq_grid_teams(rows) thread blocks of
 * BQ_THREADS threads, and goes over its rows by
 *     BQ_EACH_ROW(r, rows) { ... }
 * All threads of a thread block run this loop equally often.  Where r >= rows a team has no row: it must not
 * touch any, but it must take part in the exchanges between threads. */
#ifndef BQ_REDUCE_CUH
#define BQ_REDUCE_CUH

#include "kernels/cuda/launch.cuh"

enum { BQ_LANES = 16, BQ_TEAMS = BQ_THREADS / BQ_LANES };
constexpr unsigned BQ_WARP = 0xffffffffu;

static inline dim3 bq_grid_teams(int64_t rows) { return dim3(bq_pieces(rows, BQ_TEAMS)); }

static inline __device__ int bq_lane() { return (int)threadIdx.x % BQ_LANES; }

#define BQ_EACH_ROW(r, rows)                                                                                 \
    for (int64_t r##_first = (int64_t)blockIdx.x * BQ_TEAMS, r = r##_first + threadIdx.x / BQ_LANES;         \
         r##_first < (rows); r##_first += (int64_t)gridDim.x * BQ_TEAMS, r += (int64_t)gridDim.x * BQ_TEAMS)

/* The columns of a lane, c, c + BQ_LANES, ..., in batches of N.  A batch is loaded before any of
 * it is used, since otherwise a team, alone on its row, would wait for each load.  Behind the
 * row's n columns it reads `behind`. */
#define BQ_EACH_BATCH(c, n, N) for (int64_t c = bq_lane(); c < (n); c += (int64_t)(N)*BQ_LANES)
template <int N>
static inline __device__ void bq_batch(const float *x, int64_t c, int64_t n, float (&to)[N],
                                       float behind = 0) {
    for (int k = 0; k < N; k++) to[k] = c + k * BQ_LANES < n ? x[c + k * BQ_LANES] : behind;
}

/* A team's values joined by an operation that commutes, the same in all its lanes: so this butterfly adds as
 * the cpu does. */
template <class T, class OP> static inline __device__ T bq_team(T v, OP op) {
    for (int w = BQ_LANES / 2; w > 0; w /= 2) v = op(v, __shfl_xor_sync(BQ_WARP, v, w));
    return v;
}

/* The same over BQ_THREADS threads of a thread block; the teams in order. */
template <class T, class OP> static inline __device__ T bq_block(T v, OP op) {
    __shared__ T teams[BQ_TEAMS];
    v = bq_team(v, op);
    if (bq_lane() == 0) teams[threadIdx.x / BQ_LANES] = v;
    __syncthreads(); /* all teams have written */
    v = teams[0];
    for (int i = 1; i < BQ_TEAMS; i++) v = op(v, teams[i]);
    __syncthreads(); /* all threads have read: the next call writes to the same place */
    return v;
}

/* Sum, and largest value.  A comparison may lose a NaN, so there must be none in what a maximum is of. */
struct bq_plus {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct bq_larger {
    template <class T> __device__ T operator()(T a, T b) const { return b > a ? b : a; }
};
template <class T> static inline __device__ T bq_team_sum(T v) { return bq_team(v, bq_plus()); }
template <class T> static inline __device__ T bq_team_max(T v) { return bq_team(v, bq_larger()); }
template <class T> static inline __device__ T bq_block_sum(T v) { return bq_block(v, bq_plus()); }
template <class T> static inline __device__ T bq_block_max(T v) { return bq_block(v, bq_larger()); }

#endif
