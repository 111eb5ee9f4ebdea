/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/vec.h"

#include "base/die.h"

#include <stdlib.h>
#include <string.h>

#define BQ_X(ret, name, args)                                                                                \
    ret bq_v_##name##_base args;                                                                             \
    ret bq_v_##name##_avx2 args;                                                                             \
    ret bq_v_##name##_avx512 args;
BQ_VEC_FUNCTIONS(BQ_X)
#undef BQ_X

#define BQ_X(ret, name, args) .name = bq_v_##name##_base,
static const bq_vec_table base = {.isa = "base", BQ_VEC_FUNCTIONS(BQ_X)};
#undef BQ_X
#define BQ_X(ret, name, args) .name = bq_v_##name##_avx2,
static const bq_vec_table avx2 = {.isa = "avx2", BQ_VEC_FUNCTIONS(BQ_X)};
#undef BQ_X
#define BQ_X(ret, name, args) .name = bq_v_##name##_avx512,
static const bq_vec_table avx512 = {.isa = "avx512", BQ_VEC_FUNCTIONS(BQ_X)};
#undef BQ_X

const bq_vec_table *bq_vec(void) {
    static const bq_vec_table *chosen;
    if (chosen) return chosen;
    __builtin_cpu_init();
    const bq_vec_table *best = &base;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = &avx2;
    if (best == &avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        best = &avx512;
    const char *want = getenv("BQ_CPU_ISA");
    if (want && strcmp(want, "avx2") == 0 && best == &avx512) best = &avx2;
    if (want && strcmp(want, "base") == 0) best = &base;
    return chosen = best;
}
