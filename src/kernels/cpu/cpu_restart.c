/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/restart.h"

#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const avx2[] = {"Haswell", "Zen", NULL};
static const char *const avx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids", NULL};

static bool among(const char *name, const char *const *names) {
    for (; *names; names++)
        if (strcasecmp(name, *names) == 0) return true;
    return false;
}

const char *bq_restart_core(const char *core, int cpu) {
    static const char *const best[] = {NULL, "Haswell", "SkylakeX"};
    int width = among(core, avx512) ? 2 : among(core, avx2) ? 1 : 0;
    return width < cpu ? best[cpu] : NULL;
}

static int cpu_width(void) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 2;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

void bq_restart(char **argv) {
    const char *core = bq_blas_core() ? bq_restart_core(bq_blas_core(), cpu_width()) : NULL;
    bool spin = !getenv("OMP_WAIT_POLICY") && !getenv("GOMP_SPINCOUNT");
    if (getenv("OPENBLAS_CORETYPE")) core = NULL;
    if (spin) setenv("GOMP_SPINCOUNT", "2000", 1);
    if (core) setenv("OPENBLAS_CORETYPE", core, 1);
    if (spin || core) execv("/proc/self/exe", argv);
}
