#include "kernels/cpu/cpu_scratch.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

size_t bq_op_scratch(int64_t tokens, bq_attention a, int64_t vocab) {
    size_t bytes = bq_cpu_attention_scratch(tokens, a);
    bytes = larger(bytes, bq_cpu_mse_scratch(tokens));
    return larger(bytes, bq_cpu_xent_scratch(tokens, vocab));
}

size_t bq_factor_scratch(int64_t k) { return bq_cpu_factor_scratch(k); }

size_t bq_gptq_scratch(int64_t rows, int64_t k, int64_t group) { return bq_cpu_gptq_scratch(rows, k, group); }
