/* SPDX-License-Identifier: Apache-2.0 */
#include "cublas_v2.h"
#include "tensor_core.h"

#include <cblas.h>
#include <omp.h>
#include <vector>

extern "C" {
#include "base/num.h"
#include "kernels/cpu/cpu.h"
}

struct cublasContext {
    cudaStream_t stream = nullptr;
    cublasMath_t mode = CUBLAS_DEFAULT_MATH;
    cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
};

static CBLAS_TRANSPOSE of(cublasOperation_t t) { return t == CUBLAS_OP_N ? CblasNoTrans : CblasTrans; }
static CBLAS_UPLO of(cublasFillMode_t f) { return f == CUBLAS_FILL_MODE_LOWER ? CblasLower : CblasUpper; }

/* A column-major operand of rows x cols lies whole on the device. */
template <class T> static void want(const T *p, int rows, int cols, int ld, const char *what) {
    if (rows == 0 || cols == 0) return;
    if (ld < rows || !simt::on_device(p, ((size_t)(cols - 1) * (size_t)ld + (size_t)rows) * sizeof(T)))
        simt::misuse(what);
}

static double *there(const double *p) { return (double *)simt::there(p); }

/* A column-major matrix as a row-major one: its transpose. */
static bq_mat turned(const float *p, int rows, int cols, int ld) {
    bq_mat m = bq_mat_host(simt::there(p), cols, rows, BQ_F32);
    m.ld = ld;
    return m;
}

/* Single precision is the cpu backend's, so that what follows can be compared with it; on one thread. */
static void on_one_thread(const std::function<void()> &work) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    work();
    omp_set_num_threads(before);
}

const char *cublasGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_SUCCESS ? "success" : "invalid value";
}
cublasStatus_t cublasCreate(cublasHandle_t *handle) {
    *handle = new cublasContext();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetVersion(cublasHandle_t, int *version) {
    *version = 0;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    handle->mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode) {
    handle->pointers = mode;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *workspace, size_t bytes) {
    if (!simt::on_device(workspace, bytes)) simt::misuse("a workspace beyond the device's memory");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                           const float *alpha, const float *a, int lda, const float *b, int ldb,
                           const float *beta, float *c, int ldc) {
    const float by = *alpha, keep = *beta;
    if (h->mode != CUBLAS_PEDANTIC_MATH) simt::misuse("sgemm in another mode than pedantic");
    if (h->pointers != CUBLAS_POINTER_MODE_HOST) simt::misuse("sgemm with factors on the device");
    want(a, ta ? k : m, ta ? m : k, lda, "sgemm: a");
    want(b, tb ? n : k, tb ? k : n, ldb, "sgemm: b");
    want(c, m, n, ldc, "sgemm: c");
    simt::enqueue(h->stream, [=] {
        on_one_thread([&] {
            bq_dev plain = {};
            bq_cpu_gemm(&plain, tb, ta, by, turned(b, tb ? n : k, tb ? k : n, ldb),
                        turned(a, ta ? k : m, ta ? m : k, lda), keep, turned(c, m, n, ldc));
        });
    });
    return CUBLAS_STATUS_SUCCESS;
}

/* An operand as tensor cores see it. */
struct operand {
    const void *at;
    cudaDataType_t type;
    int rows, cols, ld;
};
static float seen(const void *at, cudaDataType_t type, size_t i) {
    if (type == CUDA_R_16F) return bq_from_f16(((const uint16_t *)at)[i]);
    if (type == CUDA_R_16BF) return bq_from_bf16(((const uint16_t *)at)[i]);
    const float x = ((const float *)at)[i];
    return isfinite(x) ? bq_float((bq_bits(x) + 0x1000u) & ~0x1fffu) : x;
}
/* Vectors of `length` numbers, which are multiplied with each other: columns, or rows. */
static std::vector<float> vectors(const operand &o, bool columns, int length) {
    const void *at = simt::there(o.at);
    const int count = columns ? o.cols : o.rows, most = columns ? o.rows : o.cols;
    std::vector<float> to((size_t)count * (size_t)length); /* 0 behind `most` numbers */
    for (int v = 0; v < count; v++)
        for (int i = 0; i < most; i++)
            to[(size_t)v * (size_t)length + (size_t)i] =
                seen(at, o.type,
                     columns ? (size_t)v * (size_t)o.ld + (size_t)i : (size_t)i * (size_t)o.ld + (size_t)v);
    return to;
}
static void want(const operand &o, const char *what) {
    if (o.type == CUDA_R_32F)
        want((const float *)o.at, o.rows, o.cols, o.ld, what);
    else
        want((const uint16_t *)o.at, o.rows, o.cols, o.ld, what);
}

/* A factor at the time of the call; on the device: when the stream gets there. */
struct factor {
    float value;
    const float *at;
    float read() const { return at ? *(const float *)simt::there(at) : value; }
};
static factor factor_of(cublasHandle_t h, const void *p) {
    if (h->pointers == CUBLAS_POINTER_MODE_HOST) return {*(const float *)p, nullptr};
    if (!simt::on_device(p, sizeof(float))) simt::misuse("a factor that is not on the device");
    return {0, (const float *)p};
}

/* An instruction adds 16 products of halves, 8 of tf32. */
static float tensor_core_dot(const float *x, const float *y, int k, int each) {
    float sum = 0;
    double product[16];
    for (int at = 0; at < k; at += each) {
        for (int i = 0; i < each; i++) product[i] = (double)x[at + i] * (double)y[at + i];
        sum = simt::tensor_core_sum(sum, product, each);
    }
    return sum;
}

cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void *alpha, const void *a, cudaDataType_t a_type, int lda, const void *b,
                            cudaDataType_t b_type, int ldb, const void *beta, void *c, cudaDataType_t c_type,
                            int ldc, cublasComputeType_t compute, cublasGemmAlgo_t) {
    const bool halves = a_type != CUDA_R_32F;
    const factor by = factor_of(h, alpha), keep = factor_of(h, beta);
    const operand x = {a, a_type, ta ? k : m, ta ? m : k, lda}, y = {b, b_type, tb ? n : k, tb ? k : n, ldb};
    const int each = halves ? 16 : 8, length = (k + each - 1) / each * each;
    if (h->mode == CUBLAS_PEDANTIC_MATH) simt::misuse("a product for tensor cores in pedantic mode");
    if (a_type != b_type || c_type != CUDA_R_32F ||
        compute != (halves ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_32F_FAST_TF32))
        return CUBLAS_STATUS_INVALID_VALUE;
    want(x, "gemm_ex: a"), want(y, "gemm_ex: b"), want((float *)c, m, n, ldc, "gemm_ex: c");
    simt::enqueue(h->stream, [=] {
        const std::vector<float> left = vectors(x, ta, length), right = vectors(y, !tb, length);
        const float scale = by.read(), before = keep.read();
        for (size_t j = 0; j < (size_t)n; j++)
            for (size_t i = 0; i < (size_t)m; i++) {
                float *to = (float *)simt::there(c) + j * (size_t)ldc + i;
                const size_t vector = (size_t)length;
                const float dot =
                    tensor_core_dot(left.data() + i * vector, right.data() + j * vector, length, each);
                *to = before == 0 ? scale * dot : scale * dot + before * *to;
            }
    });
    return CUBLAS_STATUS_SUCCESS;
}

extern "C" { /* products in double so far, for tests/ops/test_factor.c */
long simt_products;
double simt_product_flop;
}

cublasStatus_t cublasDgemm(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                           const double *alpha, const double *a, int lda, const double *b, int ldb,
                           const double *beta, double *c, int ldc) {
    const double by = *alpha, keep = *beta;
    want(a, ta ? k : m, ta ? m : k, lda, "dgemm: a");
    want(b, tb ? n : k, tb ? k : n, ldb, "dgemm: b");
    want(c, m, n, ldc, "dgemm: c");
    simt_products++, simt_product_flop += 2.0 * m * n * k;
    simt::enqueue(h->stream, [=] {
        cblas_dgemm(CblasColMajor, of(ta), of(tb), m, n, k, by, there(a), lda, there(b), ldb, keep, there(c),
                    ldc);
    });
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSsyrk(cublasHandle_t h, cublasFillMode_t uplo, cublasOperation_t trans, int n, int k,
                           const float *alpha, const float *a, int lda, const float *beta, float *c,
                           int ldc) {
    want(a, n, k, lda, "ssyrk: a");
    want(c, n, n, ldc, "ssyrk: c");
    if (*alpha != 1 || *beta != 0 || trans || uplo != CUBLAS_FILL_MODE_UPPER)
        simt::misuse("ssyrk of another kind");
    simt::enqueue(h->stream, [=] {
        on_one_thread([&] {
            bq_dev plain = {};
            bq_cpu_gram(&plain, turned(a, n, k, lda), turned(c, n, n, ldc));
        });
    });
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDtrsm(cublasHandle_t h, cublasSideMode_t side, cublasFillMode_t uplo,
                           cublasOperation_t trans, cublasDiagType_t diag, int m, int n, const double *alpha,
                           const double *a, int lda, double *b, int ldb) {
    const double by = *alpha;
    const int k = side == CUBLAS_SIDE_LEFT ? m : n;
    want(a, k, k, lda, "dtrsm: a");
    want(b, m, n, ldb, "dtrsm: b");
    simt::enqueue(h->stream, [=] {
        cblas_dtrsm(CblasColMajor, side == CUBLAS_SIDE_LEFT ? CblasLeft : CblasRight, of(uplo), of(trans),
                    diag == CUBLAS_DIAG_UNIT ? CblasUnit : CblasNonUnit, m, n, by, there(a), lda, there(b),
                    ldb);
    });
    return CUBLAS_STATUS_SUCCESS;
}
