#include "kernels/ops.h"

#include "base/die.h"

#include <string.h>

static const bq_ops *const backends[] = {&bq_ops_cpu};

int bq_dev_open(bq_dev *dev, const char *backend, int threads, size_t mem) {
    *dev = (bq_dev){0};
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (strcmp(backend, backends[i]->name) != 0 && strcmp(backend, "auto") != 0) continue;
        dev->op = backends[i];
        return dev->op->open(dev, threads, mem);
    }
    return bq_refuse(BQ_USAGE, "no backend '%s': this build has cpu", backend);
}

void bq_dev_close(bq_dev *dev) {
    if (dev->op) dev->op->close(dev);
    bq_arena_close(&dev->mem);
    *dev = (bq_dev){0};
}
