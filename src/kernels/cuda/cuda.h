/* SPDX-License-Identifier: Apache-2.0 */
/* cuda.h - what the files of the cuda backend share: the open device, checks, and matrices as kernels see
 * them.  Contracts of the ops: kernels/ops.h.  C++, for .cu files only.
 *
 * All ops but put_ahead run on one stream, in order.  So scratch may be given back to the arena as soon as
 * the kernels that use it are launched. */
#ifndef BQ_CUDA_H
#define BQ_CUDA_H

#include "kernels/cuda/num.cuh"

#include <cublas_v2.h>
#include <initializer_list>

extern "C" {
#include "base/die.h"
#include "kernels/ops.h"
#include "kernels/want.h"
}

enum {
    BQ_CUDA_RESULTS = 1 << 16,    /* doubles on their way to the host, between two waits */
    BQ_CUDA_PENDING = 64,         /* at most so many results */
    BQ_CUDA_WORKSPACE = 32 << 20, /* bytes: what cuBLAS needs on Hopper, more than it needs elsewhere */
    BQ_CUDA_GRAPHS = 64,          /* recordings at a time; more ops are run without */
    BQ_CUDA_GRAPH_RESULTS = 8,    /* results of one recording */
};

/* A result: doubles on the device that become to[0] ... to[count - 1] on the host. */
typedef struct {
    double *to;
    int64_t count;
} bq_cuda_pending;

/* A recording: the ops under a key, with the arena filled up to `used` (graph.cu). */
typedef struct {
    uint64_t key;
    size_t used;
    cudaGraphExec_t exec; /* NULL until it is recorded, which the second call does */
    int64_t first;        /* place of its first result; number of results */
    int results;
    bq_cuda_pending result[BQ_CUDA_GRAPH_RESULTS];
} bq_cuda_graph;

typedef struct {
    int device;
    cudaStream_t stream;
    cudaStream_t ahead;         /* for copies beside the ops (put_ahead) */
    cudaEvent_t copied, called; /* after the last of these copies; after the ops before the last join */
    cublasHandle_t blas;
    void *workspace;          /* of cuBLAS; its size is fixed, so that the algorithms that
                                 cuBLAS picks are, too */
    double *results, *landed; /* BQ_CUDA_RESULTS doubles, on the device, and pinned on the host */
    int64_t nresults;
    bq_cuda_pending pending[BQ_CUDA_PENDING];
    int npending;
    bq_cuda_graph graph[BQ_CUDA_GRAPHS], *recording; /* the recording being made, or NULL */
    int graphs, recorded_from;                       /* npending when the recording began */
    bool plain;                                      /* record nothing: BQ_CUDA_GRAPH=0 */
    void *stage;                                     /* pinned; it grows */
    size_t stage_size;
} bq_cuda;

static inline bq_cuda *bq_cuda_of(bq_dev *dev) { return (bq_cuda *)dev->impl; }

/* Device memory for a result of `count` doubles, which are in to[0] ... on the host after the next wait. */
double *bq_cuda_result(bq_dev *dev, double *to, int64_t count);

#define BQ_CUDA(call)                                                                                        \
    do {                                                                                                     \
        cudaError_t bq_error = (call);                                                                       \
        BQ_CHECK(bq_error == cudaSuccess, "%s: %s", #call, cudaGetErrorString(bq_error));                    \
    } while (0)
#define BQ_CUBLAS(call)                                                                                      \
    do {                                                                                                     \
        cublasStatus_t bq_status = (call);                                                                   \
        BQ_CHECK(bq_status == CUBLAS_STATUS_SUCCESS, "%s: %s", #call, cublasGetStatusString(bq_status));     \
    } while (0)

/* End the job unless all these matrices are on the device and have that shape; and are f32, or of that
 * type. */
#define BQ_WANT(dev, rows, cols, ...) BQ_WANT_AS(dev, BQ_F32, rows, cols, __VA_ARGS__)
#define BQ_WANT_AS(dev, type, rows, cols, ...)                                                               \
    bq_cuda_want(dev, __func__, #__VA_ARGS__, type, rows, cols, {__VA_ARGS__})
static inline void bq_cuda_want(const bq_dev *dev, const char *op, const char *names, bq_type type,
                                int64_t rows, int64_t cols, std::initializer_list<bq_mat> m) {
    bq_want(dev, op, names, type, rows, cols, m.size(), m.begin());
}

/* A matrix as a kernel sees it.  Where a kernel has such a parameter, a launch takes a bq_mat. */
template <class T> struct bq_rows {
    T *data;
    int64_t ld;
    bq_rows() = default;
    bq_rows(T *at, int64_t apart) : data(at), ld(apart) {}
    bq_rows(bq_mat m) : data((T *)m.data), ld(m.ld) {}
};
template <class T> static inline __device__ T *bq_row(bq_rows<T> m, int64_t r) { return m.data + r * m.ld; }

#endif
