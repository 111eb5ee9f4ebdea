/* SPDX-License-Identifier: Apache-2.0 */
/* vec.h - vector code of the cpu backend: one source, compiled for each instruction set, chosen at run time.
 *
 * A file vec_<topic>.c defines functions BQ_V(name); CMake compiles it with BQ_ISA = base, avx2 and avx512.
 * The arithmetic is plain C on 16 lanes without contraction, and sums run in 16 fixed lanes.  So every
 * instruction set gives the same bits.  Callers write `bq_vec()->name`.  Vector functions use one thread and
 * work on rows; the op that calls them shares the rows among threads. */
#ifndef BQ_VEC_H
#define BQ_VEC_H

#include "kernels/ops.h"

#define BQ_V_JOIN2(a, b) a##_##b
#define BQ_V_JOIN(a, b)  BQ_V_JOIN2(a, b)
#define BQ_V(name)       BQ_V_JOIN(bq_v_##name, BQ_ISA)

/* Every vector function once: X(return type, name, (arguments)).  Each vec_<topic>.h has
 * the list of its file. */
#include "kernels/cpu/vec_gptq.h"
#include "kernels/cpu/vec_model.h"
#include "kernels/cpu/vec_quant.h"
#include "kernels/cpu/vec_refine.h"
#include "kernels/cpu/vec_search.h"
#include "kernels/cpu/vec_smooth.h"
#include "kernels/cpu/vec_tuned.h"
#define BQ_VEC_FUNCTIONS(X)                                                                                  \
    BQ_VEC_MODEL(X)                                                                                          \
    BQ_VEC_QUANT(X) BQ_VEC_GPTQ(X) BQ_VEC_SEARCH(X) BQ_VEC_SMOOTH(X) BQ_VEC_TUNED(X) BQ_VEC_REFINE(X)

typedef struct {
    const char *isa;
#define BQ_X(ret, name, args) ret(*name) args;
    BQ_VEC_FUNCTIONS(BQ_X)
#undef BQ_X
} bq_vec_table;

/* The table for the best instruction set of this machine.  BQ_CPU_ISA=base|avx2|avx512 may name a
 * lower one, for tests. */
const bq_vec_table *bq_vec(void);

#endif
