/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "base/log.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/vec.h"
#include "kernels/restart.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const units[] = {
    [BQ_PRODUCT_NONE] = "", [BQ_PRODUCT_VECTORS] = "+bf16", [BQ_PRODUCT_TILES] = "+amx"};

static int cpu_open(bq_dev *dev, int threads, size_t mem) {
    if (threads > 0) omp_set_num_threads(threads);
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine) == 0 && CPU_COUNT(&mine) < threads)
        bq_log(BQ_WARN,
               "%d threads on %d processors: if the launcher bound this rank, give it --bind-to none or more "
               "cores",
               threads, CPU_COUNT(&mine));
    bq_arena_open(&dev->mem, mem);
    dev->computes = 1u << BQ_COMPUTE_F32 |
                    (unsigned)(bq_products() == BQ_PRODUCT_TILES) << BQ_COMPUTE_FP16X2 |
                    (unsigned)(bq_products() == BQ_PRODUCT_TILES) << BQ_COMPUTE_BF16X3 |
                    (unsigned)(bq_products() != BQ_PRODUCT_NONE) << BQ_COMPUTE_BF16;
    snprintf(dev->name, sizeof dev->name, "cpu %s%s %s", bq_vec()->isa, units[bq_products()], bq_blas_name());
    int width = strcmp(bq_vec()->isa, "avx512") == 0 ? 2 : strcmp(bq_vec()->isa, "avx2") == 0;
    const char *better = bq_blas_core() ? bq_restart_core(bq_blas_core(), width) : NULL;
    if (better)
        bq_log(BQ_WARN,
               "OpenBLAS uses its kernels for %s, which are slow on this CPU%s: OPENBLAS_CORETYPE=%s",
               bq_blas_core(), getenv("OPENBLAS_CORETYPE") ? ", as OPENBLAS_CORETYPE says" : "", better);
    return BQ_OK;
}

/* Ops end before they return, and memory of the device is memory of the host. */
static void nothing(bq_dev *dev) { (void)dev; }

static bool cpu_replay(bq_dev *dev, uint64_t key) {
    (void)dev, (void)key;
    return false;
}

static void *no_memory(bq_dev *dev, size_t bytes) {
    (void)dev, (void)bytes;
    return NULL;
}

static void cpu_unpin(bq_dev *dev, void *memory) { (void)dev, (void)memory; }

void bq_cpu_copy(bq_dev *dev, bq_mat from, bq_mat to) {
    BQ_WANT_AS(dev, from.type, from.rows, from.cols, to);
    size_t row = (size_t)from.cols * bq_type_size(from.type);
#pragma omp parallel for schedule(static) if (from.rows * from.cols > 1 << 15)
    for (int64_t r = 0; r < from.rows; r++) memcpy(bq_mat_at(to, r, 0), bq_mat_at(from, r, 0), row);
}

void bq_cpu_zero(bq_dev *dev, bq_mat m) {
    (void)dev;
    size_t row = (size_t)m.cols * bq_type_size(m.type);
    for (int64_t r = 0; r < m.rows; r++) memset(bq_mat_at(m, r, 0), 0, row);
}

void bq_cpu_scale(bq_dev *dev, bq_mat x, float factor, bq_mat y) {
    BQ_WANT(dev, x.rows, x.cols, x, y);
    for (int64_t r = 0; r < x.rows; r++) {
        const float *in = bq_mat_at(x, r, 0);
        float *out = bq_mat_at(y, r, 0);
        for (int64_t i = 0; i < x.cols; i++) out[i] = in[i] * factor;
    }
}

#define OP(type, name, ...) .name = bq_cpu_##name,
const bq_ops bq_ops_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = nothing,
    .wait = nothing,
    .replay = cpu_replay,
    .recorded = nothing,
    .forget = nothing,
    .stage = no_memory,
    .pin = no_memory,
    .unpin = cpu_unpin,
    .put = bq_cpu_copy,
    .get = bq_cpu_copy,
#include "kernels/ops.def"
};
