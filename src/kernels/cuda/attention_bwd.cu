/* SPDX-License-Identifier: Apache-2.0 */
/* Attention's backward.  Probabilities are computed again from lse, twice: for dq by thread blocks with
 * some queries, and for dk and dv by thread blocks with some keys, which add over the query heads that read
 * their kv head.  So no two thread blocks add to the same place, and every sum has one order. */
#include "kernels/cuda/attention.cuh"

/* d(head, t) = sum over the channels of dout * out.  A team has one token of one head. */
static __global__ void dots(bq_attend a, int64_t heads, bq_rows<float> d) {
    BQ_EACH_ROW(r, heads * a.tokens) {
        const bool in = r < heads * a.tokens;
        const int64_t head = in ? r / a.tokens : 0, t = in ? r % a.tokens : 0;
        const float *x = bq_row(a.dout, t) + head * a.vd, *y = bq_row(a.out, t) + head * a.vd;
        float sum = 0;
        for (int c = bq_lane(); c < a.vd && in; c += BQ_LANES) sum = fmaf(x[c], y[c], sum);
        sum = bq_team_sum(sum);
        if (in && bq_lane() == 0) bq_row(d, head)[t] = sum;
    }
}

template <class S>
static __global__ void __launch_bounds__(BQ_ATTEND_THREADS, 2)
    attend_dq(bq_attend a, bq_rows<float> d, bq_rows<float> dq) {
    BQ_SHARED(qs);
    uint32_t *douts = qs + S::kept, *vs = douts + S::kept, *ks = vs + S::passing;
    const int64_t tile = gridDim.x - 1 - blockIdx.x, head = blockIdx.y; /* tiles with the most keys first */
    const int64_t first = tile * S::rows, row = first + bq_warp_row<S>(), kv = head / a.group;
    const bq_head k = bq_head_of(a, a.k, kv, a.hd), v = bq_head_of(a, a.v, kv, a.vd);
    const int64_t seen = a.window > 0 && first >= a.window ? first - a.window + 1 : 0;
    const int64_t end = first + S::rows < a.tokens ? first + S::rows : a.tokens;
    float o[S::columns / 8][4] = {}, lse[2], dot[2];
    for (int r = 0; r < 2; r++) {
        const int64_t i = row + bq_g() + 8 * r;
        lse[r] = i < a.tokens ? bq_row(a.lse, head)[i] : 0;
        dot[r] = i < a.tokens ? bq_row(d, head)[i] : 0;
    }
    bq_tile_load<S>(bq_head_of(a, a.q, head, a.hd), first, S::rows, qs);
    bq_tile_load<S>(bq_head_of(a, a.dout, head, a.vd), first, S::rows, douts);
    const float one[2] = {1, 1}, factor[2] = {a.scale, a.scale};
    for (int64_t key = seen / S::moving * S::moving; key < end; key += S::moving) {
        __syncthreads(); /* the tiles before have been read */
        bq_tile_load<S>(v, key, S::moving, vs);
        const uint32_t *across = bq_tile_load_both<S>(k, key, ks);
        __syncthreads(); /* these are there */
        if (!bq_any_sees(row, 16, key, S::moving, a.window)) continue;
        float p[S::moving / 8][4], ds[S::moving / 8][4];
        bq_tile_scores<S>(qs, ks, p);
        bq_tile_scores<S>(douts, vs, ds);
        BQ_UNROLL()
        for (int n = 0; n < S::moving / 8; n++)
            for (int e = 0; e < 4; e++) {
                const int64_t i = row + bq_g() + e / 2 * 8, j = key + 8 * n + 2 * bq_t() + e % 2;
                const bool sees = i < a.tokens && bq_sees(i, j, a.window);
                const float s = bq_score(a, p[n][e]);
                ds[n][e] = sees ? bq_exp(s - lse[e / 2]) * (ds[n][e] - dot[e / 2]) * bq_cap_slope(a, s) : 0;
            }
        bq_tile_add<S>(ds, across, one, o);
    }
    bq_tile_store<S>(dq.data + head * a.hd, dq.ld, first, a.tokens, a.hd, o, factor);
}

/* A lane's scores s of keys from j by queries from i become probabilities, and ds, products of values and
 * gradients of outputs, becomes the gradient of the scores before the cap. */
template <class S>
static __device__ void descend(const bq_attend &a, const float *lse, const float *dot, int64_t j, int64_t i,
                               float (&s)[S::moving / 8][4], float (&ds)[S::moving / 8][4]) {
    BQ_UNROLL()
    for (int n = 0; n < S::moving / 8; n++)
        for (int e = 0; e < 4; e++) {
            const int64_t key = j + bq_g() + e / 2 * 8, query = i + 8 * n + 2 * bq_t() + e % 2;
            const bool sees = query < a.tokens && bq_sees(query, key, a.window);
            const float x = bq_score(a, s[n][e]);
            s[n][e] = sees ? bq_exp(x - lse[query]) : 0;
            ds[n][e] = sees ? s[n][e] * (ds[n][e] - dot[query]) * bq_cap_slope(a, x) : 0;
        }
}

template <class S>
static __global__ void __launch_bounds__(BQ_ATTEND_THREADS, 2)
    attend_dkv(bq_attend a, bq_rows<float> d, bq_rows<float> dk, bq_rows<float> dv) {
    BQ_SHARED(ks);
    uint32_t *vs = ks + S::kept, *qs = vs + S::kept, *douts = qs + S::both;
    const int64_t first = (int64_t)blockIdx.x * S::rows, key = first + bq_warp_row<S>(), kv = blockIdx.y;
    const int64_t last = first + S::rows - 1 + a.window; /* one past the last query that sees one
                                                            of these keys */
    const int64_t end = a.window > 0 && last < a.tokens ? last : a.tokens;
    float ok[S::columns / 8][4] = {}, ov[S::columns / 8][4] = {};
    bq_tile_load<S>(bq_head_of(a, a.k, kv, a.hd), first, S::rows, ks);
    bq_tile_load<S>(bq_head_of(a, a.v, kv, a.vd), first, S::rows, vs);
    const float one[2] = {1, 1}, factor[2] = {a.scale, a.scale};
    for (int64_t head = kv * a.group; head < (kv + 1) * a.group; head++) {
        const bq_head q = bq_head_of(a, a.q, head, a.hd), dout = bq_head_of(a, a.dout, head, a.vd);
        for (int64_t row = first; row < end; row += S::moving) {
            __syncthreads(); /* the tiles before have been read */
            const uint32_t *q_across = bq_tile_load_both<S>(q, row, qs),
                           *dout_across = bq_tile_load_both<S>(dout, row, douts);
            __syncthreads(); /* these are there */
            if (!bq_any_sees(row, S::moving, key, 16, a.window)) continue;
            float p[S::moving / 8][4], ds[S::moving / 8][4];
            bq_tile_scores<S>(ks, qs, p);
            bq_tile_scores<S>(vs, douts, ds);
            descend<S>(a, bq_row(a.lse, head), bq_row(d, head), key, row, p, ds);
            bq_tile_add<S>(p, dout_across, one, ov);
            bq_tile_add<S>(ds, q_across, one, ok);
        }
    }
    bq_tile_store<S>(dk.data + kv * a.hd, dk.ld, first, a.tokens, a.hd, ok, factor);
    bq_tile_store<S>(dv.data + kv * a.vd, dv.ld, first, a.tokens, a.vd, ov, one);
}

void bq_cuda_attention_bwd(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse,
                           bq_mat dout, bq_mat dq, bq_mat dk, bq_mat dv) {
    bq_attend all = bq_attend_of(dev, a, q, k, v, out, lse);
    BQ_WANT(dev, q.rows, q.cols, dq);
    BQ_WANT(dev, k.rows, k.cols, dk);
    BQ_WANT(dev, out.rows, out.cols, dout);
    BQ_WANT(dev, v.rows, v.cols, dv);
    all.dout = dout;
    const size_t mark = bq_arena_mark(&dev->mem);
    const bq_rows<float> d = bq_arena_push(&dev->mem, a.heads, q.rows, BQ_F32);
    bq_launch(dev, bq_grid_teams(a.heads * q.rows), BQ_THREADS, dots, all, a.heads, d);
    bq_by_shape(dev, all, [&](auto shape) {
        using S = decltype(shape);
        const dim3 by_queries(bq_pieces(q.rows, S::rows), (unsigned)a.heads),
            by_keys(by_queries.x, (unsigned)a.kv_heads);
        bq_launch_shared(dev, by_queries, BQ_ATTEND_THREADS,
                         (2 * S::kept + S::passing + S::both) * sizeof(uint32_t), attend_dq<S>, all, d, dq);
        bq_launch_shared(dev, by_keys, BQ_ATTEND_THREADS, (2 * S::kept + 2 * S::both) * sizeof(uint32_t),
                         attend_dkv<S>, all, d, dk, dv);
    });
    bq_arena_reset(&dev->mem, mark);
}
