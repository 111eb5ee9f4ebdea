/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges for GPU profilers. */
#include <nvtx3/nvToolsExt.h>
#include <stdarg.h>
#include <stdio.h>

extern "C" {
#include "kernels/mark.h"
}

extern "C" void bq_mark_open(const char *fmt, ...) {
    char name[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    nvtxRangePushA(name);
}

extern "C" void bq_mark_close(void) { nvtxRangePop(); }
