/* attention.cuh - what attention's forward and backward share. */
#ifndef BQ_ATTENTION_CUH
#define BQ_ATTENTION_CUH

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tiles.cuh"

struct bq_attend {
    int64_t tokens, window, group; /* group: query heads that read one kv head */
    int hd;
    float scale, cap;
    const float *sinks; /* or NULL */
    bq_rows<float> q, k, v, out, lse, dout;
};

/* One head of a matrix of heads. */
static inline __device__ bq_head bq_head_of(const bq_attend &a, bq_rows<float> m, int64_t head) {
    return {m.data + head * a.hd, m.ld, a.tokens, a.hd};
}

/* A score from a product of a query and a key: scaled, and capped where CAP is set. */
template <bool CAP> static inline __device__ float bq_score(const bq_attend &a, float product) {
    const float s = product * a.scale;
    return CAP ? a.cap * bq_tanh(s / a.cap) : s;
}

/* The derivative of a score by what it was before the cap. */
template <bool CAP> static inline __device__ float bq_cap_slope(const bq_attend &a, float score) {
    const float h = CAP ? score / a.cap : 0;
    return 1.0f - h * h;
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
    if (a.sinks.data) BQ_WANT(dev, 1, a.heads, a.sinks);
    return {q.rows,
            a.window,
            a.heads / a.kv_heads,
            (int)a.head_dim,
            a.scale,
            a.cap,
            (const float *)a.sinks.data,
            q,
            k,
            v,
            out,
            lse,
            bq_rows<float>(NULL, 0)};
}

#define BQ_CAPPED(a, width, dev, grid, kernel, ...)                                                          \
    bq_launch(dev, grid, BQ_THREADS, (a).cap != 0 ? kernel<width, true> : kernel<width, false>,              \
              a __VA_OPT__(, ) __VA_ARGS__)

/* Launch the instance of a kernel for the heads and the cap of a, its first argument. */
#define BQ_BY_HEAD_DIM(a, dev, grid, kernel, ...)                                                            \
    do {                                                                                                     \
        if ((a).hd <= 32)                                                                                    \
            BQ_CAPPED(a, 32, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                  \
        else if ((a).hd <= 64)                                                                               \
            BQ_CAPPED(a, 64, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                  \
        else if ((a).hd <= 96)                                                                               \
            BQ_CAPPED(a, 96, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                  \
        else                                                                                                 \
            BQ_CAPPED(a, 128, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                 \
    } while (0)

#endif
