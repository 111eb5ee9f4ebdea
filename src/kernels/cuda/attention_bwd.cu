/* Attention's backward.  Probabilities are computed again from lse, twice: for dq by thread blocks with 64
 * queries, and for dk and dv by thread blocks with 64 keys, which add over the query heads that read their kv
 * head.  So no two thread blocks add to the same place, and every sum has one order. */
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

template <int HD, bool CAP>
static __global__ void __launch_bounds__(BQ_THREADS, HD <= 64 ? 2 : 1)
    attend_dq(bq_attend a, bq_rows<float> d, bq_rows<float> dq) {
    __shared__ bq_tiles mem;
    const int64_t tile = gridDim.x - 1 - blockIdx.x, head = blockIdx.y; /* tiles with the most keys first */
    const int64_t first = tile * BQ_TILE, query = first + threadIdx.x / 16 * 4, kv = head / a.group;
    const bq_head q = bq_head_of(a, a.q, head, a.hd), k = bq_head_of(a, a.k, kv, a.hd),
                  v = bq_head_of(a, a.v, kv, a.vd), dout = bq_head_of(a, a.dout, head, a.vd);
    const int64_t seen = a.window > 0 && first >= a.window ? first - a.window + 1 : 0;
    float o[4][HD / 16] = {}, lse[4], dot[4];
    for (int i = 0; i < 4; i++) {
        const bool in = query + i < a.tokens;
        lse[i] = in ? bq_row(a.lse, head)[query + i] : 0;
        dot[i] = in ? bq_row(d, head)[query + i] : 0;
    }
    for (int64_t key = seen / BQ_TILE * BQ_TILE; key < first + BQ_TILE; key += BQ_TILE) {
        float p[4][4], ds[4][4];
        bq_tile_scores<HD>(&mem, q, first, k, key, p);
        bq_tile_scores<HD>(&mem, dout, first, v, key, ds);
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                const bool sees =
                    query + i < a.tokens && bq_sees(query + i, key + threadIdx.x % 16 * 4 + j, a.window);
                const float s = bq_score<CAP>(a, p[i][j]);
                ds[i][j] = sees ? bq_exp(s - lse[i]) * (ds[i][j] - dot[i]) * bq_cap_slope<CAP>(a, s) : 0;
            }
        bq_tile_keep(&mem, ds);
        bq_tile_add<HD>(&mem, k, key, o);
    }
    const float factor[4] = {a.scale, a.scale, a.scale, a.scale};
    bq_tile_store<HD>(dq.data + head * a.hd, dq.ld, first, a.tokens, a.hd, o, factor);
}

template <int HD, bool CAP>
static __global__ void __launch_bounds__(BQ_THREADS, 1)
    attend_dkv(bq_attend a, bq_rows<float> d, bq_rows<float> dk, bq_rows<float> dv) {
    __shared__ bq_tiles mem;
    const int64_t first = (int64_t)blockIdx.x * BQ_TILE, key = first + threadIdx.x / 16 * 4, kv = blockIdx.y;
    const bq_head k = bq_head_of(a, a.k, kv, a.hd), v = bq_head_of(a, a.v, kv, a.vd);
    const int64_t last = first + BQ_TILE - 1 + a.window; /* one past the last query that sees one
                                                            of these keys */
    const int64_t end = a.window > 0 && last < a.tokens ? last : a.tokens;
    float ok[4][HD / 16] = {}, ov[4][HD / 16] = {};
    for (int64_t head = kv * a.group; head < (kv + 1) * a.group; head++) {
        const bq_head q = bq_head_of(a, a.q, head, a.hd), dout = bq_head_of(a, a.dout, head, a.vd);
        const float *lse = bq_row(a.lse, head), *dot = bq_row(d, head);
        for (int64_t row = first; row < end; row += BQ_TILE) {
            const int64_t query = row + threadIdx.x % 16 * 4;
            float p[4][4], ds[4][4], slope[4][4];
            bq_tile_scores<HD>(&mem, k, first, q, row, p);
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) {
                    const bool sees = query + j < a.tokens && bq_sees(query + j, key + i, a.window);
                    const float s = bq_score<CAP>(a, p[i][j]);
                    slope[i][j] = bq_cap_slope<CAP>(a, s);
                    p[i][j] = sees ? bq_exp(s - lse[query + j]) : 0;
                }
            bq_tile_keep(&mem, p);
            bq_tile_add<HD>(&mem, dout, row, ov);
            bq_tile_scores<HD>(&mem, v, first, dout, row, ds);
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    ds[i][j] = query + j < a.tokens ? p[i][j] * (ds[i][j] - dot[query + j]) * slope[i][j] : 0;
            bq_tile_keep(&mem, ds);
            bq_tile_add<HD>(&mem, q, row, ok);
        }
    }
    const float one[4] = {1, 1, 1, 1}, factor[4] = {a.scale, a.scale, a.scale, a.scale};
    bq_tile_store<HD>(dk.data + kv * a.hd, dk.ld, first, a.tokens, a.hd, ok, factor);
    bq_tile_store<HD>(dv.data + kv * a.vd, dv.ld, first, a.tokens, a.vd, ov, one);
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
    const unsigned tiles = bq_pieces(q.rows, BQ_TILE);
    bq_launch(dev, bq_grid_teams(a.heads * q.rows), BQ_THREADS, dots, all, a.heads, d);
    BQ_BY_HEAD_DIM(all, dev, dim3(tiles, (unsigned)a.heads), attend_dq, d, dq);
    BQ_BY_HEAD_DIM(all, dev, dim3(tiles, (unsigned)a.kv_heads), attend_dkv, d, dk, dv);
    bq_arena_reset(&dev->mem, mark);
}
