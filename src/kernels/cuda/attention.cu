/* Attention.  A thread block has 64 queries of one head.  It goes over the keys in tiles of 64, with a
 * running maximum and sum for each row. */
#include "kernels/cuda/attention.cuh"

/* Scores of a tile become exp(s - new max), invisible ones 0; max and sum are updated.  Returns the factor
 * that the sums so far are scaled by. */
template <bool CAP>
static __device__ float soften(const bq_attend &a, int64_t i, int64_t key, float s[4], float *max,
                               float *sum) {
    float top = *max;
    for (int j = 0; j < 4; j++) {
        s[j] = bq_sees(i, key + j, a.window) ? bq_score<CAP>(a, s[j]) : -INFINITY;
        top = s[j] > top ? s[j] : top;
    }
    top = bq_team_max(top);
    const bool none = top == -INFINITY; /* no key was visible so far */
    float add = 0;
    for (int j = 0; j < 4; j++) {
        s[j] = none ? 0 : bq_exp(s[j] - top);
        add += s[j];
    }
    const float shrink = none ? 1 : bq_exp(*max - top);
    *max = top, *sum = *sum * shrink + bq_team_sum(add);
    return shrink;
}

template <int HD, bool CAP>
static __global__ void __launch_bounds__(BQ_THREADS, HD <= 128 ? 2 : 1) attend(bq_attend a) {
    __shared__ bq_tiles mem;
    const int64_t tile = gridDim.x - 1 - blockIdx.x, head = blockIdx.y; /* tiles with the most keys first */
    const int64_t first = tile * BQ_TILE, query = first + threadIdx.x / 16 * 4, kv = head / a.group;
    const bq_head q = bq_head_of(a, a.q, head, a.hd), k = bq_head_of(a, a.k, kv, a.hd),
                  v = bq_head_of(a, a.v, kv, a.vd);
    const int64_t seen = a.window > 0 && first >= a.window ? first - a.window + 1 : 0;
    float o[4][HD / 16] = {}, max[4], sum[4];
    for (int i = 0; i < 4; i++) max[i] = a.sinks ? a.sinks[head] : -INFINITY, sum[i] = a.sinks ? 1 : 0;
    for (int64_t key = seen / BQ_TILE * BQ_TILE; key < first + BQ_TILE; key += BQ_TILE) {
        float s[4][4];
        bq_tile_scores<HD>(&mem, q, first, k, key, s);
        for (int i = 0; i < 4; i++) {
            const float shrink =
                soften<CAP>(a, query + i, key + threadIdx.x % 16 * 4, s[i], &max[i], &sum[i]);
            for (int j = 0; j < HD / 16; j++) o[i][j] *= shrink;
        }
        bq_tile_keep(&mem, s);
        bq_tile_add<HD>(&mem, v, key, o);
    }
    float inverse[4];
    for (int i = 0; i < 4; i++) {
        inverse[i] = 1.0f / sum[i];
        if (query + i < a.tokens && threadIdx.x % 16 == 0)
            bq_row(a.lse, head)[query + i] = (float)((double)max[i] + log((double)sum[i]));
    }
    bq_tile_store<HD>(a.out.data + head * a.vd, a.out.ld, first, a.tokens, a.vd, o, inverse);
}

void bq_cuda_attention(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse) {
    const bq_attend all = bq_attend_of(dev, a, q, k, v, out, lse);
    const dim3 grid(bq_pieces(q.rows, BQ_TILE), (unsigned)a.heads);
    BQ_BY_HEAD_DIM(all, dev, grid, attend);
}
