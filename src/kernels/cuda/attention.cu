/* SPDX-License-Identifier: Apache-2.0 */
/* Attention.  A thread block has some queries of one head.  It goes over the keys in tiles, with a running
 * maximum and sum for each query; probabilities stay in registers. */
#include "kernels/cuda/attention.cuh"

/* Scores of a tile become exp(s - new max), invisible ones 0; max and sum are updated, and shrink is the
 * factor that the sums so far are scaled by.  r: which of a lane's two rows; i: its query. */
template <class S>
static __device__ void soften(const bq_attend &a, int r, int64_t i, int64_t key, float (&s)[S::moving / 8][4],
                              float *max, float *sum, float *shrink) {
    float top = *max;
    BQ_UNROLL()
    for (int n = 0; n < S::moving / 8; n++)
        for (int e = 0; e < 2; e++) {
            float &x = s[n][2 * r + e];
            x = bq_sees(i, key + 8 * n + 2 * bq_t() + e, a.window) ? bq_score(a, x) : -INFINITY;
            top = x > top ? x : top;
        }
    top = bq_quad(top, bq_larger());
    const bool none = top == -INFINITY; /* no key was visible so far */
    float add = 0;
    BQ_UNROLL()
    for (int n = 0; n < S::moving / 8; n++)
        for (int e = 0; e < 2; e++) {
            float &x = s[n][2 * r + e];
            x = none ? 0 : bq_exp(x - top);
            add += x;
        }
    *shrink = none ? 1 : bq_exp(*max - top);
    *max = top, *sum = *sum * *shrink + bq_quad(add, bq_plus());
}

template <class S> static __global__ void __launch_bounds__(BQ_ATTEND_THREADS, 2) attend(bq_attend a) {
    BQ_SHARED(qs);
    uint32_t *ks = qs + S::kept, *vs = ks + S::passing;
    const int64_t tile = gridDim.x - 1 - blockIdx.x, head = blockIdx.y; /* tiles with the most keys first */
    const int64_t first = tile * S::rows, row = first + bq_warp_row<S>(), kv = head / a.group;
    const bq_head k = bq_head_of(a, a.k, kv, a.hd), v = bq_head_of(a, a.v, kv, a.vd);
    const int64_t seen = a.window > 0 && first >= a.window ? first - a.window + 1 : 0;
    const int64_t end = first + S::rows < a.tokens ? first + S::rows : a.tokens;
    float o[S::columns / 8][4] = {}, max[2], sum[2];
    for (int r = 0; r < 2; r++) max[r] = a.sinks ? a.sinks[head] : -INFINITY, sum[r] = a.sinks ? 1 : 0;
    bq_tile_load<S>(bq_head_of(a, a.q, head, a.hd), first, S::rows, qs);
    for (int64_t key = seen / S::moving * S::moving; key < end; key += S::moving) {
        __syncthreads(); /* the tiles before have been read */
        bq_tile_load<S>(k, key, S::moving, ks);
        bq_tile_load_across<S>(v, key, vs);
        __syncthreads(); /* these are there */
        if (!bq_any_sees(row, 16, key, S::moving, a.window)) continue;
        float s[S::moving / 8][4], shrink[2];
        bq_tile_scores<S>(qs, ks, s);
        for (int r = 0; r < 2; r++)
            soften<S>(a, r, row + bq_g() + 8 * r, key, s, &max[r], &sum[r], &shrink[r]);
        bq_tile_add<S>(s, vs, shrink, o);
    }
    float inverse[2];
    for (int r = 0; r < 2; r++) {
        const int64_t i = row + bq_g() + 8 * r;
        inverse[r] = 1.0f / sum[r];
        if (i < a.tokens && bq_t() == 0 && bq_warp_column<S>() == 0)
            bq_row(a.lse, head)[i] = (float)((double)max[r] + log((double)sum[r]));
    }
    bq_tile_store<S>(a.out.data + head * a.vd, a.out.ld, first, a.tokens, a.vd, o, inverse);
}

void bq_cuda_attention(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse) {
    const bq_attend all = bq_attend_of(dev, a, q, k, v, out, lse);
    bq_by_shape(dev, all, [&](auto shape) {
        using S = decltype(shape);
        const dim3 grid(bq_pieces(q.rows, S::rows), (unsigned)a.heads);
        bq_launch_shared(dev, grid, BQ_ATTEND_THREADS, (S::kept + S::passing + S::turned) * sizeof(uint32_t),
                         attend<S>, all);
    });
}
