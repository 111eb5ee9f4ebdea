/* SPDX-License-Identifier: Apache-2.0 */
/* GEMM: by our own kernels (product.h) where the processor allows it; else c is cut into tiles by its shape,
 * threads share the tiles, and each tile is one call of a serial BLAS. */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "base/num.h"
#include "kernels/cpu/product.h"

#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* ---- OpenBLAS, if that is the BLAS: other BLAS libraries do not have these functions ---- */

char *openblas_get_config(void) __attribute__((weak));
char *openblas_get_corename(void) __attribute__((weak));
void openblas_set_num_threads(int) __attribute__((weak));

/* OpenBLAS gets its packing buffers from the next two functions.  Its own versions fail in two ways.  The
 * serial build, which distributions ship without USE_LOCKING, sometimes gives the same buffer to two threads.
 * The other builds run out of buffers beyond a number of threads that was fixed when they were compiled.
 * Functions of the same name in the program are found before those of the library (ELF symbol lookup).  Ours
 * give every thread buffers of its own, without a lock. */
void *blas_memory_alloc(int place) __attribute__((weak)); /* weak, since a static library brings its own */
void blas_memory_free(void *buffer) __attribute__((weak));

#define BUFFER_BYTES (((size_t)128 << 20) + 4096) /* address space; builds for x86 and ARM assume this size */
#define BUFFERS      4                            /* a BLAS call takes one; LAPACK takes two, nested */
/* How much of a buffer is written: P x Q of one operand and Q x (columns of a tile) of the
 * other.  The largest on x86: 768 x 384 floats (Haswell, Zen) or 448 x 448 (SkylakeX), with
 * tiles of at most 1075 columns. */
#define PACKED_BYTES ((size_t)4 << 20)

static _Thread_local struct {
    void *at;
    bool used;
} buffers[BUFFERS];

void *blas_memory_alloc(int place) {
    (void)place;
    for (int i = 0; i < BUFFERS; i++) {
        if (buffers[i].used) continue;
        if (!buffers[i].at) {
            void *p = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            BQ_CHECK(p != MAP_FAILED, "no address space for a buffer of BLAS");
            buffers[i].at = p;
        }
        buffers[i].used = true;
        return buffers[i].at;
    }
    BQ_DIE("BLAS wants more than %d buffers in one thread", BUFFERS);
}

void blas_memory_free(void *buffer) {
    for (int i = 0; i < BUFFERS; i++)
        if (buffers[i].at == buffer) buffers[i].used = false;
}

size_t bq_cpu_packing(int threads) {
    size_t own = bq_products() == BQ_PRODUCT_NONE ? 0 : BQ_PRODUCT_BYTES;
    return own + (size_t)(threads > 0 ? threads : omp_get_max_threads()) * PACKED_BYTES;
}

/* ---- which BLAS is it, and is it right when several threads call it ---- */

enum { PROBE = 128, PROBE_CALLS = 64 };

const char *bq_blas_core(void) { return openblas_get_corename ? openblas_get_corename() : NULL; }

static bool right(const float *a, const float *b, const float *c) {
    double error = 0, size = 0;
    for (int i = 0; i < PROBE * PROBE; i++) {
        double sum = 0;
        for (int k = 0; k < PROBE; k++)
            sum += (double)a[i / PROBE * PROBE + k] * (double)b[i % PROBE * PROBE + k];
        error += (sum - (double)c[i]) * (sum - (double)c[i]), size += sum * sum;
    }
    return error <= 1e-10 * size;
}

/* Many small calls at the same time, so that threads meet inside the library. */
static bool threads_agree(void) {
    static float a[PROBE * PROBE], b[PROBE * PROBE], once[PROBE * PROBE];
    for (int i = 0; i < PROBE * PROBE; i++)
        a[i] = (float)(i % 17) * 0.37f - 3, b[i] = (float)(i % 13) * 0.11f;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, PROBE, PROBE, PROBE, 1, a, PROBE, b, PROBE, 0, once,
                PROBE);
    BQ_CHECK(right(a, b, once),
             "the BLAS multiplies wrongly with its kernels for %s: OPENBLAS_CORETYPE names others",
             bq_blas_core() ? bq_blas_core() : "this processor");
    int wrong = 0;
#pragma omp parallel reduction(+ : wrong)
    {
        float again[PROBE * PROBE];
        for (int n = 0; n < PROBE_CALLS; n++) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, PROBE, PROBE, PROBE, 1, a, PROBE, b, PROBE,
                        0, again, PROBE);
            wrong += memcmp(again, once, sizeof once) != 0;
        }
    }
    return wrong == 0;
}

const char *bq_blas_name(void) {
    static char name[64];
    if (name[0]) return name;
    if (openblas_set_num_threads) openblas_set_num_threads(1); /* threads are ours */
    void *buffer = blas_memory_alloc(0);
    BQ_CHECK(buffer == buffers[0].at,
             "OpenBLAS is linked as a static library, and threads may share its buffers: link "
             "the shared library");
    blas_memory_free(buffer);
    BQ_CHECK(threads_agree(), "the BLAS gives wrong results when threads call it at the same time");
    char config[128] = "cblas";
    if (openblas_get_config) snprintf(config, sizeof config, "%s", openblas_get_config());
    char *end = strchr(config, ' '); /* "OpenBLAS 0.3.21 NO_LAPACKE ...": the first two words are the name */
    if (end) end = strchr(end + 1, ' ');
    if (end) *end = 0;
    snprintf(name, sizeof name, "%.32s%s%.24s", config, bq_blas_core() ? " " : "",
             bq_blas_core() ? bq_blas_core() : "");
    return name;
}

/* ---- gemm ---- */

/* About TILES tiles, so that threads can share them.  Sides are at least SIDE_MIN, below which
 * packing costs more than 5 %, and at most SIDE_MAX.  Powers of two in each direction divide evenly
 * among 2, 4, 8 and 16 threads. */
#define OWN_LEAST (1 << 15) /* products with fewer multiplications do not pay for packing */
#define TILES     32
#define SIDE_MIN  320
#define SIDE_MAX  768

static int64_t side(int64_t m, int64_t n) {
    double s = sqrt((double)m * (double)n / TILES);
    return s < SIDE_MIN ? SIDE_MIN : s > SIDE_MAX ? SIDE_MAX : (int64_t)s;
}

/* The length of the pieces that n is cut into, a multiple of 16.  The number of pieces is the power of two
 * that brings the length nearest to `goal`. */
static int64_t piece(int64_t n, int64_t goal) {
    int64_t count = 1;
    while (n * 5 > count * goal * 7) count *= 2; /* 7 / 5 is about the square root of 2 */
    return ((n + count - 1) / count + 15) / 16 * 16;
}

static int fit(int64_t n) {
    BQ_CHECK(n <= INT_MAX, "gemm: a dimension of %ld is beyond this BLAS", (long)n);
    return (int)(n > 0 ? n : 1);
}

/* In f32, in scratch: numbers of f16 or bf16. */
static bq_mat widened(bq_dev *dev, bq_mat m) {
    bq_mat to = bq_arena_push(&dev->mem, m.rows, m.cols, BQ_F32);
    for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.cols; c++) {
            uint16_t x = *(const uint16_t *)bq_mat_at(m, r, c);
            *(float *)bq_mat_at(to, r, c) = m.type == BQ_F16 ? bq_from_f16(x) : bq_from_bf16(x);
        }
    return to;
}

void bq_cpu_gemm(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c) {
    int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
    bool codes = b.type == BQ_F16 && k > 0 && bq_product_of_codes(dev->compute) != BQ_PRODUCT_BLAS;
    if (!codes && (b.type == BQ_F16 || b.type == BQ_BF16)) {
        size_t mark = bq_arena_mark(&dev->mem);
        bq_cpu_gemm(dev, ta, tb, alpha, a, widened(dev, b), beta, c);
        bq_arena_reset(&dev->mem, mark);
        return;
    }
    BQ_WANT(dev, ta ? k : m, ta ? m : k, a);
    BQ_WANT_AS(dev, codes ? BQ_F16 : BQ_F32, tb ? n : k, tb ? k : n, b);
    BQ_WANT(dev, m, n, c);
    if (m == 0 || n == 0) return;
    bq_product_kind kind = codes ? bq_product_of_codes(dev->compute) : bq_product_of(dev->compute);
    if (codes || (kind != BQ_PRODUCT_BLAS && m * n * k >= OWN_LEAST)) {
        bq_product_gemm(kind, k, alpha, (bq_product_side){a.data, a.ld, m, ta},
                        (bq_product_side){b.data, b.ld, n, !tb}, beta, c.data, c.ld);
        return;
    }
    int lda = fit(a.ld), ldb = fit(b.ld), ldc = fit(c.ld), depth = k ? fit(k) : 0;
    int64_t mt = piece(m, side(m, n)), nt = piece(n, side(m, n));
    int64_t down = (m + mt - 1) / mt, across = (n + nt - 1) / nt;
#pragma omp parallel for schedule(dynamic) if (down * across > 1)
    for (int64_t t = 0; t < down * across; t++) {
        int64_t i = t / across * mt, j = t % across * nt;
        int rows = (int)(m - i < mt ? m - i : mt), cols = (int)(n - j < nt ? n - j : nt);
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, rows, cols,
                    depth, alpha, bq_mat_at(a, ta ? 0 : i, ta ? i : 0), lda,
                    bq_mat_at(b, tb ? j : 0, tb ? 0 : j), ldb, beta, bq_mat_at(c, i, j), ldc);
    }
}
