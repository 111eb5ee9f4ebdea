/* SPDX-License-Identifier: Apache-2.0 */
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

/* A score from a product of a query and a key: scaled, and capped where there is a cap. */
static inline __device__ float bq_score(const bq_attend &a, float product) {
    const float s = product * a.scale;
    return a.cap != 0 ? a.cap * bq_tanh(s / a.cap) : s;
}

/* The derivative of a score by what it was before the cap. */
static inline __device__ float bq_cap_slope(const bq_attend &a, float score) {
    const float h = a.cap != 0 ? score / a.cap : 0;
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

/* Call launch with the shape for the heads of a and the device's way. */
template <bq_compute WAY, class F> static inline void bq_by_width(const bq_attend &a, F launch) {
    const int wide = a.hd > a.vd ? a.hd : a.vd;
    if (wide <= 32)
        launch(bq_shape<32, WAY>());
    else if (wide <= 64)
        launch(bq_shape<64, WAY>());
    else if (wide <= 96)
        launch(bq_shape<96, WAY>());
    else if (wide <= 128)
        launch(bq_shape<128, WAY>());
    else if (wide <= 192)
        launch(bq_shape<192, WAY>());
    else
        launch(bq_shape<256, WAY>());
}
template <class F> static inline void bq_by_shape(const bq_dev *dev, const bq_attend &a, F launch) {
    if (dev->compute == BQ_COMPUTE_BF16)
        bq_by_width<BQ_COMPUTE_BF16>(a, launch);
    else if (dev->compute == BQ_COMPUTE_TF32)
        bq_by_width<BQ_COMPUTE_TF32>(a, launch);
    else
        bq_by_width<BQ_COMPUTE_F32>(a, launch);
}

#endif
