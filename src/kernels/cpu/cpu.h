/* cpu.h - the ops of the cpu backend, one file for each topic; cpu.c puts them in the table.
 * Contracts: kernels/ops.h. */
#ifndef BQ_CPU_H
#define BQ_CPU_H

#include "kernels/ops.h"

/* An element of a matrix of f32 or f64, as a double. */
static inline double bq_cpu_number(bq_mat m, int64_t r, int64_t c) {
    return m.type == BQ_F64 ? *(double *)bq_mat_at(m, r, c) : (double)*(float *)bq_mat_at(m, r, c);
}

/* cpu_dense.c */
void bq_cpu_gemm(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c);
/* The name of the BLAS with its version and kernel.  The first call tests it: its products must be right, and
 * calls from several threads must give the bits of a single call; else the job ends. */
const char *bq_blas_name(void);
/* The name of the kernel that OpenBLAS has chosen; NULL where the BLAS is another one. */
const char *bq_blas_core(void);
/* cpu_model.c */
void bq_cpu_add(bq_dev *dev, bq_mat x, bq_mat y);
void bq_cpu_bias(bq_dev *dev, bq_mat bias, bq_mat y);
void bq_cpu_rmsnorm(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat y);
void bq_cpu_rmsnorm_bwd(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat dy, bq_mat dx);
void bq_cpu_rope(bq_dev *dev, bq_mat x, int64_t heads, int64_t head_dim, bq_mat cos, bq_mat sin,
                 bool inverse);
void bq_cpu_glu(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat z);
void bq_cpu_glu_bwd(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat dz, bq_mat dg, bq_mat du);
void bq_cpu_mse(bq_dev *dev, bq_mat y, bq_mat target, double factor, bq_mat dy, double *loss);
void bq_cpu_xent(bq_dev *dev, bq_mat x, bq_mat head, bq_mat next, double *nll);
/* cpu_attention.c */
void bq_cpu_attention(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse);
void bq_cpu_attention_bwd(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse,
                          bq_mat dout, bq_mat dq, bq_mat dk, bq_mat dv);
/* cpu_quant.c */
void bq_cpu_mix(bq_dev *dev, bq_mat fp, bq_mat qt, double p, bq_rng_key at, bq_mat out);
void bq_cpu_range(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero);
void bq_cpu_quantize(bq_dev *dev, bq_mat w, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat code);
void bq_cpu_dequantize(bq_dev *dev, bq_mat code, bq_mat scale, bq_mat zero, bq_mat w);
void bq_cpu_fake_quantize_rows(bq_dev *dev, bq_mat x, int bits, bq_mat y);
/* cpu_search.c */
void bq_cpu_range_shrunk(bq_dev *dev, bq_mat w, bq_scheme s, float shrink, bq_mat scale, bq_mat zero,
                         bq_mat e);
void bq_cpu_range_mse(bq_dev *dev, bq_mat w, bq_scheme s, bq_shrink ends, bq_mat scale, bq_mat zero);
void bq_cpu_range_better(bq_dev *dev, bool first, bq_mat a, bq_mat b, bq_mat scale, bq_mat zero, bq_mat loss,
                         bq_mat best, bq_mat best_zero);
void bq_cpu_range_levels(bq_dev *dev, bq_mat scale, int levels, bq_type type);
void bq_cpu_half_quadratic(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero);
/* cpu_adascale.c */
void bq_cpu_adascale_weights(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat what, bq_mat scale,
                             bq_mat fold);
void bq_cpu_adascale_step(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat g, bq_mat adam,
                          bq_mat grad);
/* cpu_gram.c */
void bq_cpu_gram(bq_dev *dev, bq_mat x, bq_mat h);
bool bq_cpu_factor(bq_dev *dev, bq_mat h, bq_mat order, double factor, double damp, bq_mat ut);
/* cpu_gptq.c */
void bq_cpu_order(bq_dev *dev, bq_mat diag, bq_order kind, int64_t group, bq_mat order);
void bq_cpu_fit(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat scale, bq_mat zero);
void bq_cpu_gptq(bq_dev *dev, const bq_gptq *p, bq_scheme s, bq_mat fold);
/* cpu_smooth.c */
void bq_cpu_set(bq_dev *dev, bq_mat m, float value);
void bq_cpu_column_max(bq_dev *dev, bq_mat x, float sign, bq_mat m);
void bq_cpu_column_abs(bq_dev *dev, bq_mat x, int64_t group, bq_mat sum);
void bq_cpu_column_squares(bq_dev *dev, bq_mat x, bq_mat sum);
void bq_cpu_times_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
void bq_cpu_over_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
void bq_cpu_over_rows(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
void bq_cpu_smooth_scale(bq_dev *dev, bq_smooth_form form, bq_mat act, bq_mat weight, bq_mat s);
void bq_cpu_head_max(bq_dev *dev, bq_mat s, int64_t head);
void bq_cpu_smooth_weights(bq_dev *dev, bq_mat w, bq_mat s, bq_scheme scheme, bq_mat out);
void bq_cpu_distance(bq_dev *dev, bq_mat a, bq_mat b, bq_distance kind, double *sum);
void bq_cpu_clip_error(bq_dev *dev, bq_mat w, float factor, bq_scheme s, bq_mat out);
void bq_cpu_clip_rows(bq_dev *dev, bq_mat error, float step, bq_mat w);

#endif
