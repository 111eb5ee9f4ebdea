/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_scratch.h - arena bytes that the cpu's ops push, for bq_op_scratch and its kin; each is
 * defined beside its op. */
#ifndef BQ_CPU_SCRATCH_H
#define BQ_CPU_SCRATCH_H

#include "kernels/ops.h"

/* The larger one of forward and backward; the same for any number of threads. */
size_t bq_cpu_attention_scratch(int64_t tokens, bq_attention a);
size_t bq_cpu_mse_scratch(int64_t tokens);
size_t bq_cpu_xent_scratch(int64_t tokens, int64_t vocab);
size_t bq_cpu_factor_scratch(int64_t k);
size_t bq_cpu_gptq_scratch(int64_t rows, int64_t k, int64_t group);
size_t bq_cpu_refine_scratch(int64_t rows, int64_t k, int64_t group);

#endif
