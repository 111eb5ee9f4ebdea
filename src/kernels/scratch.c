#include "kernels/cpu/cpu_scratch.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

size_t bq_op_scratch(int64_t tokens, bq_attention a, int64_t vocab) {
    size_t bytes = bq_cpu_attention_scratch(tokens, a);
    bytes = larger(bytes, bq_cpu_mse_scratch(tokens));
    return larger(bytes, bq_cpu_xent_scratch(tokens, vocab));
}

/* The cuda backend rounds both operands to bf16 copies. */
size_t bq_gemm_scratch(bq_compute compute, int64_t m, int64_t n, int64_t k) {
    if (compute != BQ_COMPUTE_BF16) return 0;
    return bq_arena_need(m, k, BQ_BF16) + bq_arena_need(n, k, BQ_BF16);
}

size_t bq_factor_scratch(int64_t k) { return bq_cpu_factor_scratch(k); }

/* The cuda backend keeps the weights, 128 columns of errors, and one group with its
 * weights while it is fitted. */
size_t bq_gptq_scratch(int64_t rows, int64_t k, int64_t group) {
    if (group <= 0) group = k;
    size_t cuda = bq_arena_need(k, rows, BQ_F32) + bq_arena_need(128, rows, BQ_F32) +
                  bq_arena_need(rows, group, BQ_F32) + bq_arena_need(1, group, BQ_F32);
    return larger(cuda, bq_cpu_gptq_scratch(rows, k, group));
}
