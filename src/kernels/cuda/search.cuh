/* search.cuh - the best of many scales for a row: a block has a row, each of its teams takes every 16th
 * candidate and sums over the row in its 16 lanes. */
#ifndef BQ_SEARCH_CUH
#define BQ_SEARCH_CUH

#include "kernels/cuda/rows.cuh"

enum { BQ_CANDIDATES = 128 }; /* most at a time */

struct bq_losses {
    double loss[BQ_CANDIDATES];
    bq_row_grid grid[BQ_CANDIDATES];
    float zero[BQ_CANDIDATES];
};

/* loss[k] = sum over the row of term(w, its number, grid[k]) for k < count.  The grids are there behind a
 * barrier of the caller's; the losses are there for all threads at the end. */
template <class TERM>
static __device__ void bq_row_losses(bq_losses *mem, const float *w, int64_t cols, int count, TERM term) {
    for (int first = 0; first < count; first += BQ_TEAMS) {
        const int k = first + (int)threadIdx.x / BQ_LANES;
        const bq_row_grid grid = mem->grid[k < count ? k : 0];
        double sum = 0;
        for (int64_t c = bq_lane(); k < count && c < cols; c += BQ_LANES) sum += (double)term(w[c], c, grid);
        sum = bq_team_sum(sum);
        if (k < count && bq_lane() == 0) mem->loss[k] = sum;
    }
    __syncthreads(); /* every team has written its losses */
}

#endif
