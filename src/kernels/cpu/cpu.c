#include "kernels/cpu/cpu.h"

#include "base/die.h"
#include "base/log.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/vec.h"
#include "kernels/restart.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const units[] = {
    [BQ_PRODUCT_NONE] = "", [BQ_PRODUCT_VECTORS] = "+bf16", [BQ_PRODUCT_TILES] = "+amx"};

static int cpu_open(bq_dev *dev, int threads, size_t mem) {
    if (threads > 0) omp_set_num_threads(threads);
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine) == 0 && CPU_COUNT(&mine) < threads)
        bq_log(BQ_WARN,
               "%d threads on %d processors: if the launcher bound this rank, give it --bind-to none or more "
               "cores",
               threads, CPU_COUNT(&mine));
    bq_arena_open(&dev->mem, mem);
    dev->computes = 1u << BQ_COMPUTE_F32 |
                    (unsigned)(bq_products() == BQ_PRODUCT_TILES) << BQ_COMPUTE_BF16X3 |
                    (unsigned)(bq_products() != BQ_PRODUCT_NONE) << BQ_COMPUTE_BF16;
    snprintf(dev->name, sizeof dev->name, "cpu %s%s %s", bq_vec()->isa, units[bq_products()], bq_blas_name());
    int width = strcmp(bq_vec()->isa, "avx512") == 0 ? 2 : strcmp(bq_vec()->isa, "avx2") == 0;
    const char *better = bq_blas_core() ? bq_restart_core(bq_blas_core(), width) : NULL;
    if (better)
        bq_log(BQ_WARN,
               "OpenBLAS uses its kernels for %s, which are slow on this CPU%s: OPENBLAS_CORETYPE=%s",
               bq_blas_core(), getenv("OPENBLAS_CORETYPE") ? ", as OPENBLAS_CORETYPE says" : "", better);
    return BQ_OK;
}

static void cpu_close(bq_dev *dev) { (void)dev; }
static void cpu_wait(bq_dev *dev) { (void)dev; }

static bool cpu_replay(bq_dev *dev, uint64_t key) {
    (void)dev, (void)key;
    return false;
}
static void cpu_recorded(bq_dev *dev) { (void)dev; }
static void cpu_forget(bq_dev *dev) { (void)dev; }

static void *cpu_stage(bq_dev *dev, size_t bytes) {
    (void)dev, (void)bytes;
    return NULL;
}

static void *cpu_pin(bq_dev *dev, size_t bytes) {
    (void)dev, (void)bytes;
    return NULL;
}

static void cpu_unpin(bq_dev *dev, void *memory) { (void)dev, (void)memory; }

static void cpu_copy(bq_dev *dev, bq_mat from, bq_mat to) {
    (void)dev;
    BQ_CHECK(from.rows == to.rows && from.cols == to.cols && from.type == to.type,
             "copy of %ld x %ld to %ld x %ld", (long)from.rows, (long)from.cols, (long)to.rows,
             (long)to.cols);
    size_t row = (size_t)from.cols * bq_type_size(from.type);
#pragma omp parallel for schedule(static) if (from.rows * from.cols > 1 << 15)
    for (int64_t r = 0; r < from.rows; r++) memcpy(bq_mat_at(to, r, 0), bq_mat_at(from, r, 0), row);
}

static void cpu_zero(bq_dev *dev, bq_mat m) {
    (void)dev;
    size_t row = (size_t)m.cols * bq_type_size(m.type);
    for (int64_t r = 0; r < m.rows; r++) memset(bq_mat_at(m, r, 0), 0, row);
}

static void cpu_scale(bq_dev *dev, bq_mat x, float factor, bq_mat y) {
    (void)dev;
    BQ_CHECK(x.rows == y.rows && x.cols == y.cols, "scale of %ld x %ld to %ld x %ld", (long)x.rows,
             (long)x.cols, (long)y.rows, (long)y.cols);
    for (int64_t r = 0; r < x.rows; r++) {
        const float *in = bq_mat_at(x, r, 0);
        float *out = bq_mat_at(y, r, 0);
        for (int64_t i = 0; i < x.cols; i++) out[i] = in[i] * factor;
    }
}

const bq_ops bq_ops_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .wait = cpu_wait,
    .replay = cpu_replay,
    .recorded = cpu_recorded,
    .forget = cpu_forget,
    .stage = cpu_stage,
    .pin = cpu_pin,
    .unpin = cpu_unpin,
    .put = cpu_copy,
    .get = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .gemm = bq_cpu_gemm,
    .scale = cpu_scale,
    .add = bq_cpu_add,
    .bias = bq_cpu_bias,
    .rmsnorm = bq_cpu_rmsnorm,
    .rmsnorm_bwd = bq_cpu_rmsnorm_bwd,
    .rope = bq_cpu_rope,
    .attention = bq_cpu_attention,
    .attention_bwd = bq_cpu_attention_bwd,
    .glu = bq_cpu_glu,
    .glu_bwd = bq_cpu_glu_bwd,
    .mse = bq_cpu_mse,
    .mix = bq_cpu_mix,
    .xent = bq_cpu_xent,
    .range = bq_cpu_range,
    .quantize = bq_cpu_quantize,
    .dequantize = bq_cpu_dequantize,
    .fake_quantize_rows = bq_cpu_fake_quantize_rows,
    .range_shrunk = bq_cpu_range_shrunk,
    .range_mse = bq_cpu_range_mse,
    .range_better = bq_cpu_range_better,
    .range_levels = bq_cpu_range_levels,
    .half_quadratic = bq_cpu_half_quadratic,
    .adascale_weights = bq_cpu_adascale_weights,
    .adascale_step = bq_cpu_adascale_step,
    .gram = bq_cpu_gram,
    .order = bq_cpu_order,
    .factor = bq_cpu_factor,
    .fit = bq_cpu_fit,
    .gptq = bq_cpu_gptq,
    .set = bq_cpu_set,
    .column_max = bq_cpu_column_max,
    .column_abs = bq_cpu_column_abs,
    .column_squares = bq_cpu_column_squares,
    .times_columns = bq_cpu_times_columns,
    .over_columns = bq_cpu_over_columns,
    .over_rows = bq_cpu_over_rows,
    .smooth_scale = bq_cpu_smooth_scale,
    .head_max = bq_cpu_head_max,
    .smooth_weights = bq_cpu_smooth_weights,
    .distance = bq_cpu_distance,
    .clip_error = bq_cpu_clip_error,
    .clip_rows = bq_cpu_clip_rows,
};
