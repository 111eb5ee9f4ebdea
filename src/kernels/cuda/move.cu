/* SPDX-License-Identifier: Apache-2.0 */
/* Copies between host and device, and on the device. */
#include "kernels/cuda/cuda_ops.h"

/* A single copy where rows follow each other on both sides: a copy row by row is slow over the bus. */
static void move(cudaStream_t stream, bq_mat from, bq_mat to, cudaMemcpyKind kind) {
    BQ_CHECK(from.rows == to.rows && from.cols == to.cols && from.type == to.type,
             "copy of %ld x %ld %s to %ld x %ld %s", (long)from.rows, (long)from.cols,
             bq_type_name(from.type), (long)to.rows, (long)to.cols, bq_type_name(to.type));
    const size_t size = bq_type_size(from.type), row = (size_t)from.cols * size;
    if (row == 0 || from.rows == 0) return;
    if (from.rows == 1 || (from.ld == from.cols && to.ld == to.cols))
        BQ_CUDA(cudaMemcpyAsync(to.data, from.data, row * (size_t)from.rows, kind, stream));
    else
        BQ_CUDA(cudaMemcpy2DAsync(to.data, (size_t)to.ld * size, from.data, (size_t)from.ld * size, row,
                                  (size_t)from.rows, kind, stream));
}

/* Pageable memory has been read when the call returns, so the caller may write to it at once.  A source on
 * the device is a sample of a stream that is kept there. */
void bq_cuda_put(bq_dev *dev, bq_mat host, bq_mat to) {
    BQ_CHECK(!bq_cuda_of(dev)->recording, "put among ops that are recorded");
    BQ_CHECK(to.place == BQ_DEVICE, "put between the wrong places");
    move(bq_cuda_of(dev)->stream, host, to,
         host.place == BQ_DEVICE ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice);
}

void bq_cuda_get(bq_dev *dev, bq_mat from, bq_mat host) {
    BQ_CHECK(!bq_cuda_of(dev)->recording, "get among ops that are recorded");
    BQ_CHECK(from.place == BQ_DEVICE && host.place != BQ_DEVICE, "get between the wrong places");
    move(bq_cuda_of(dev)->stream, from, host, cudaMemcpyDeviceToHost);
}

void bq_cuda_copy(bq_dev *dev, bq_mat from, bq_mat to) {
    BQ_CHECK(from.place == BQ_DEVICE && to.place == BQ_DEVICE, "copy beyond the device");
    move(bq_cuda_of(dev)->stream, from, to, cudaMemcpyDeviceToDevice);
}

void bq_cuda_put_ahead(bq_dev *dev, bq_mat pinned, bq_mat to) {
    BQ_CHECK(pinned.place == BQ_PINNED && to.place == BQ_DEVICE, "put_ahead between the wrong places");
    bq_cuda *cuda = bq_cuda_of(dev);
    move(cuda->ahead, pinned, to, cudaMemcpyHostToDevice);
    BQ_CUDA(cudaEventRecord(cuda->copied, cuda->ahead));
}

bool bq_cuda_arrived(bq_dev *dev) {
    const cudaError_t state = cudaEventQuery(bq_cuda_of(dev)->copied);
    if (state != cudaErrorNotReady) BQ_CUDA(state);
    return state == cudaSuccess;
}

void bq_cuda_join(bq_dev *dev) {
    bq_cuda *cuda = bq_cuda_of(dev);
    BQ_CUDA(cudaStreamWaitEvent(cuda->stream, cuda->copied, 0));
    BQ_CUDA(cudaEventRecord(cuda->called, cuda->stream));
    BQ_CUDA(cudaStreamWaitEvent(cuda->ahead, cuda->called, 0));
}

void bq_cuda_zero(bq_dev *dev, bq_mat m) {
    const size_t size = bq_type_size(m.type);
    BQ_CHECK(m.place == BQ_DEVICE, "zero beyond the device");
    if (m.rows == 0 || m.cols == 0) return;
    BQ_CUDA(cudaMemset2DAsync(m.data, (size_t)m.ld * size, 0, (size_t)m.cols * size, (size_t)m.rows,
                              bq_cuda_of(dev)->stream));
}
