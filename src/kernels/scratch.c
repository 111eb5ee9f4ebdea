/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu_scratch.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The cuda backend has the ends of each head of each token, or of each token of several experts. */
static size_t ends_scratch(int64_t tokens, bq_attention a) {
    return bq_arena_need(1, 2 * tokens * (a.kv_heads > 16 ? a.kv_heads : 16), BQ_F32);
}

size_t bq_op_scratch(int64_t tokens, bq_attention a, int64_t vocab) {
    size_t bytes = larger(bq_cpu_attention_scratch(tokens, a), ends_scratch(tokens, a));
    bytes = larger(bytes, bq_cpu_mse_scratch(tokens));
    return larger(bytes, bq_cpu_xent_scratch(tokens, vocab));
}

size_t bq_distill_scratch(int64_t tokens, int64_t vocab) { return 2 * bq_cpu_xent_scratch(tokens, vocab); }

/* The cuda backend rounds both operands to bf16 copies; or makes two terms of fp16 of each, with the largest
 * of 1024 parts, and three factors of the product.  It does that for BF16X3, too. */
size_t bq_gemm_scratch(bq_compute compute, int64_t m, int64_t n, int64_t k) {
    size_t copies = bq_arena_need(m, k, BQ_BF16) + bq_arena_need(n, k, BQ_BF16);
    if (compute == BQ_COMPUTE_F32 || compute == BQ_COMPUTE_TF32) return 0;
    if (compute == BQ_COMPUTE_BF16) return copies;
    return 2 * copies + 2 * bq_arena_need(1, 1024 + 1, BQ_I32) + bq_arena_need(1, 3, BQ_F32);
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

/* The cuda backend keeps the numbers, R and a product of all rows, and new scales. */
size_t bq_refine_scratch(int64_t rows, int64_t k, int64_t group) {
    size_t cuda =
        3 * bq_arena_need(rows, k, BQ_F32) + bq_arena_need(rows * (k / (group > 0 ? group : k)), 1, BQ_F32);
    return larger(cuda, bq_cpu_refine_scratch(rows, k, group));
}
