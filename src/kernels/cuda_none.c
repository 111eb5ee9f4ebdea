/* SPDX-License-Identifier: Apache-2.0 */
/* The cuda backend of a build without CUDA: it refuses to open. */
#include "kernels/ops.h"

#include "base/die.h"
#include "kernels/mark.h"

int bq_cuda_devices(void) { return 0; }

size_t bq_cuda_memory(int number) {
    (void)number;
    return 0;
}

void *bq_cuda_stream(const bq_dev *dev) {
    (void)dev;
    return NULL;
}

void bq_mark_open(const char *fmt, ...) { (void)fmt; }
void bq_mark_close(void) {}

static int none_open(bq_dev *dev, int number, size_t mem) {
    (void)number, (void)mem;
    dev->op = NULL;
    return bq_refuse(BQ_USAGE, "this build has no CUDA: configure it with -DBQ_CUDA=ON, or use the cpu");
}

const bq_ops bq_ops_cuda = {.name = "cuda", .open = none_open};
