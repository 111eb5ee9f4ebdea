/* SPDX-License-Identifier: Apache-2.0 */
/* search.cuh - the best of many scales for a row.  A thread block has a row, each of its threads a candidate,
 * for which it sums over the row in 16 lanes of its own. */
#ifndef BQ_SEARCH_CUH
#define BQ_SEARCH_CUH

#include "kernels/cuda/rows.cuh"

enum { BQ_CANDIDATES = 128 }; /* candidates at a time: threads of a thread block */

struct bq_candidates {
    double loss[BQ_CANDIDATES];
    float scale[BQ_CANDIDATES], zero[BQ_CANDIDATES];
};

/* The sum of term(j) for j < n in double, with the bits of a team's sum. */
template <class TERM> static inline __device__ double bq_lane_sums(int64_t n, TERM term) {
    double lane[BQ_LANES];
    int64_t j = 0;
    for (int l = 0; l < BQ_LANES; l++) lane[l] = 0;
    for (; j + BQ_LANES <= n; j += BQ_LANES)
        for (int l = 0; l < BQ_LANES; l++) lane[l] += (double)term(j + l);
    for (int l = 0; l < BQ_LANES; l++)
        if (j + l < n) lane[l] += (double)term(j + l);
    for (int half = BQ_LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

#endif
