/* attention.cuh - what attention's forward and backward share. */
#ifndef BQ_ATTENTION_CUH
#define BQ_ATTENTION_CUH

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tiles.cuh"

struct bq_attend {
    int64_t tokens, window, group; /* group: query heads that read one kv head */
    int hd, vd;                    /* size of a head of q and k; of v and out */
    float scale, cap;
    const float *sinks; /* or NULL */
    bq_rows<float> q, k, v, out, lse, dout;
};

/* One head of a matrix of heads of size hd. */
static inline __device__ bq_head bq_head_of(const bq_attend &a, bq_rows<float> m, int64_t head, int hd) {
    return {m.data + head * hd, m.ld, a.tokens, hd};
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
    const int64_t hd = a.head_dim, vd = a.value_dim > 0 ? a.value_dim : hd;
    BQ_CHECK(a.kv_heads > 0 && a.heads % a.kv_heads == 0 && a.window >= 0,
             "attention: %ld heads, %ld kv heads, window %ld", (long)a.heads, (long)a.kv_heads,
             (long)a.window);
    BQ_CHECK(hd > 0 && hd <= 256 && a.value_dim >= 0 && vd <= 256,
             "attention on a GPU: heads of %ld and %ld, at most 256 are built", (long)hd, (long)vd);
    BQ_WANT(dev, q.rows, a.heads * hd, q);
    BQ_WANT(dev, q.rows, a.heads * vd, out);
    BQ_WANT(dev, q.rows, a.kv_heads * hd, k);
    BQ_WANT(dev, q.rows, a.kv_heads * vd, v);
    BQ_WANT(dev, a.heads, q.rows, lse);
    if (a.sinks.data) BQ_WANT(dev, 1, a.heads, a.sinks);
    return {q.rows,
            a.window,
            a.heads / a.kv_heads,
            (int)hd,
            (int)vd,
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
        const int wide = (a).hd > (a).vd ? (a).hd : (a).vd;                                                  \
        if (wide <= 32)                                                                                      \
            BQ_CAPPED(a, 32, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                  \
        else if (wide <= 64)                                                                                 \
            BQ_CAPPED(a, 64, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                  \
        else if (wide <= 96)                                                                                 \
            BQ_CAPPED(a, 96, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                  \
        else if (wide <= 128)                                                                                \
            BQ_CAPPED(a, 128, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                 \
        else if (wide <= 192)                                                                                \
            BQ_CAPPED(a, 192, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                 \
        else                                                                                                 \
            BQ_CAPPED(a, 256, dev, grid, kernel __VA_OPT__(, ) __VA_ARGS__);                                 \
    } while (0)

#endif
