/* attention.cuh - what attention's forward and backward share. */
#ifndef BQ_ATTENTION_CUH
#define BQ_ATTENTION_CUH

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tiles.cuh"

struct bq_attend {
    int64_t tokens, window, group; /* group: query heads that read one kv head */
    int hd;
    float scale;
    bq_rows<float> q, k, v, out, lse, dout;
};

/* One head of a matrix of heads. */
static inline __device__ bq_head bq_head_of(const bq_attend &a, bq_rows<float> m, int64_t head) {
    return {m.data + head * a.hd, m.ld, a.tokens, a.hd};
}

/* Check the shapes.  The backward checks its other matrices itself. */
static inline bq_attend bq_attend_of(const bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v,
                                     bq_mat out, bq_mat lse) {
    const int64_t wide = a.heads * a.head_dim, narrow = a.kv_heads * a.head_dim;
    BQ_CHECK(a.kv_heads > 0 && a.heads % a.kv_heads == 0 && a.window >= 0,
             "attention: %ld heads, %ld kv heads, window %ld", (long)a.heads, (long)a.kv_heads,
             (long)a.window);
    BQ_CHECK(a.head_dim > 0 && a.head_dim <= 128, "attention on a GPU: heads of %ld, at most 128 are built",
             (long)a.head_dim);
    BQ_WANT(dev, q.rows, wide, q, out);
    BQ_WANT(dev, q.rows, narrow, k, v);
    BQ_WANT(dev, a.heads, q.rows, lse);
    return {q.rows, a.window, a.heads / a.kv_heads,   (int)a.head_dim, a.scale, q, k, v,
            out,    lse,      bq_rows<float>(NULL, 0)};
}

/* Launch the instance of a kernel for a head of size hd. */
#define BQ_BY_HEAD_DIM(hd, dev, grid, kernel, ...)                                                           \
    do {                                                                                                     \
        if ((hd) <= 32)                                                                                      \
            bq_launch(dev, grid, BQ_THREADS, kernel<32>, __VA_ARGS__);                                       \
        else if ((hd) <= 64)                                                                                 \
            bq_launch(dev, grid, BQ_THREADS, kernel<64>, __VA_ARGS__);                                       \
        else if ((hd) <= 96)                                                                                 \
            bq_launch(dev, grid, BQ_THREADS, kernel<96>, __VA_ARGS__);                                       \
        else                                                                                                 \
            bq_launch(dev, grid, BQ_THREADS, kernel<128>, __VA_ARGS__);                                      \
    } while (0)

#endif
