/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops.h"

#include "base/die.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

void (*bq_dev_waiting)(void);

static bool is(const char *backend, const char *name) {
    size_t n = strlen(name);
    return strncmp(backend, name, n) == 0 && (backend[n] == 0 || backend[n] == ':');
}

int bq_dev_open(bq_dev *dev, const char *backend, int threads, size_t mem) {
    const char *number = strchr(backend, ':');
    *dev = (bq_dev){0};
    if (threads > 0) omp_set_num_threads(threads);
    if (is(backend, "cuda") || (is(backend, "auto") && bq_cuda_devices() > 0)) {
        dev->op = &bq_ops_cuda;
        return dev->op->open(dev, number ? atoi(number + 1) : 0, mem);
    }
    if (!is(backend, "cpu") && !is(backend, "auto"))
        return bq_refuse(BQ_USAGE, "no backend '%s': there are cpu, cuda and auto", backend);
    dev->op = &bq_ops_cpu;
    return dev->op->open(dev, threads, mem);
}

bq_compute bq_dev_compute(const bq_dev *dev, bq_compute wanted) {
    while (wanted != BQ_COMPUTE_F32 && !(dev->computes >> wanted & 1)) wanted--;
    return wanted;
}

const char *bq_compute_name(bq_compute compute) {
    static const char *const name[BQ_COMPUTES] = {"f32", "fp16x2", "bf16x3", "tf32", "bf16"};
    return name[compute];
}

void bq_dev_close(bq_dev *dev) {
    if (dev->op) dev->op->close(dev);
    bq_arena_close(&dev->mem);
    *dev = (bq_dev){0};
}
