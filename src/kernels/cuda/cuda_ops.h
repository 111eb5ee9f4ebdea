/* cuda_ops.h - the ops of the cuda backend, one file for each topic; cuda.cu puts them in the table. */
#ifndef BQ_CUDA_OPS_H
#define BQ_CUDA_OPS_H

#include "kernels/cuda/cuda.h"

/* move.cu */
void bq_cuda_put(bq_dev *dev, bq_mat host, bq_mat to);
void bq_cuda_get(bq_dev *dev, bq_mat from, bq_mat host);
void bq_cuda_copy(bq_dev *dev, bq_mat from, bq_mat to);
void bq_cuda_put_ahead(bq_dev *dev, bq_mat pinned, bq_mat to);
bool bq_cuda_arrived(bq_dev *dev);
void bq_cuda_join(bq_dev *dev);
void bq_cuda_zero(bq_dev *dev, bq_mat m);
/* graph.cu */
bool bq_cuda_replay(bq_dev *dev, uint64_t key);
void bq_cuda_recorded(bq_dev *dev);
void bq_cuda_forget(bq_dev *dev);
/* gemm.cu */
void bq_cuda_gemm(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c);
/* elements.cu */
void bq_cuda_scale(bq_dev *dev, bq_mat x, float factor, bq_mat y);
void bq_cuda_add(bq_dev *dev, bq_mat x, bq_mat y);
void bq_cuda_bias(bq_dev *dev, bq_mat bias, bq_mat y);
/* rmsnorm.cu */
void bq_cuda_rmsnorm(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat y);
void bq_cuda_rmsnorm_bwd(bq_dev *dev, bq_mat x, bq_mat weight, float eps, bq_mat dy, bq_mat dx);
/* rope.cu */
void bq_cuda_rope(bq_dev *dev, bq_mat x, int64_t heads, int64_t head_dim, bq_mat cos, bq_mat sin,
                  bool inverse);
/* attention.cu, attention_bwd.cu */
void bq_cuda_attention(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse);
void bq_cuda_attention_bwd(bq_dev *dev, bq_attention a, bq_mat q, bq_mat k, bq_mat v, bq_mat out, bq_mat lse,
                           bq_mat dout, bq_mat dq, bq_mat dk, bq_mat dv);
/* glu.cu */
void bq_cuda_glu(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat z);
void bq_cuda_glu_bwd(bq_dev *dev, bq_act act, bq_mat g, bq_mat u, bq_mat dz, bq_mat dg, bq_mat du);
/* mix.cu */
void bq_cuda_mix(bq_dev *dev, bq_mat fp, bq_mat qt, double p, bq_rng_key at, bq_mat out);
/* mse.cu.  bq_cuda_sum: sum[0], on the host after the next wait, is factor * (x[0] +
 * x[1] + ...), in this order. */
void bq_cuda_sum(bq_dev *dev, const double *x, int64_t n, double factor, double *sum);
void bq_cuda_mse(bq_dev *dev, bq_mat y, bq_mat target, double factor, bq_mat dy, double *loss);
/* xent.cu */
void bq_cuda_xent(bq_dev *dev, bq_mat x, bq_mat head, bq_mat next, double *nll);
/* grids.cu: end the job unless scale (and zero) fit the scheme and the rows of w. */
void bq_cuda_want_grid(bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero, const char *op);
/* range.cu, range_mse.cu */
void bq_cuda_range(bq_dev *dev, bq_mat w, bq_scheme s, bq_mat scale, bq_mat zero);
void bq_cuda_range_shrunk(bq_dev *dev, bq_mat w, bq_scheme s, float shrink, bq_mat scale, bq_mat zero,
                          bq_mat e);
void bq_cuda_range_mse(bq_dev *dev, bq_mat w, bq_scheme s, bq_shrink ends, bq_mat scale, bq_mat zero);
void bq_cuda_range_better(bq_dev *dev, bool first, bq_mat a, bq_mat b, bq_mat scale, bq_mat zero, bq_mat loss,
                          bq_mat best, bq_mat best_zero);
void bq_cuda_range_levels(bq_dev *dev, bq_mat scale, int levels, bq_type type);
/* half_quadratic.cu */
void bq_cuda_half_quadratic(bq_dev *dev, bq_mat w, bq_scheme s, bq_quadratic o, bq_mat scale, bq_mat zero);
/* quantize.cu */
void bq_cuda_quantize(bq_dev *dev, bq_mat w, bq_mat scale, bq_mat zero, bq_scheme s, bq_mat code);
void bq_cuda_dequantize(bq_dev *dev, bq_mat code, bq_mat scale, bq_mat zero, bq_mat w);
void bq_cuda_fake_quantize_rows(bq_dev *dev, bq_mat x, int bits, bq_mat y);
/* adascale.cu */
void bq_cuda_adascale_weights(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat what, bq_mat scale,
                              bq_mat fold);
void bq_cuda_adascale_step(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat g, bq_mat adam,
                           bq_mat grad);
/* gram.cu, factor.cu */
void bq_cuda_gram(bq_dev *dev, bq_mat x, bq_mat h);
bool bq_cuda_factor(bq_dev *dev, bq_mat h, bq_mat order, double factor, double damp, bq_mat ut);
/* order.cu, fit.cu, gptq.cu */
void bq_cuda_order(bq_dev *dev, bq_mat diag, bq_order kind, int64_t group, bq_mat order);
void bq_cuda_fit(bq_dev *dev, bq_mat w, bq_mat weight, bq_scheme s, bq_mat scale, bq_mat zero);
void bq_cuda_gptq(bq_dev *dev, const bq_gptq *p, bq_scheme s, bq_mat fold);
/* columns.cu, smooth.cu */
void bq_cuda_set(bq_dev *dev, bq_mat m, float value);
void bq_cuda_column_max(bq_dev *dev, bq_mat x, float sign, bq_mat m);
void bq_cuda_column_abs(bq_dev *dev, bq_mat x, int64_t group, bq_mat sum);
void bq_cuda_column_squares(bq_dev *dev, bq_mat x, bq_mat sum);
void bq_cuda_times_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
void bq_cuda_over_columns(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
void bq_cuda_over_rows(bq_dev *dev, bq_mat x, bq_mat s, bq_mat y);
void bq_cuda_smooth_scale(bq_dev *dev, bq_smooth_form form, bq_mat act, bq_mat weight, bq_mat s);
void bq_cuda_head_max(bq_dev *dev, bq_mat s, int64_t head);
void bq_cuda_smooth_weights(bq_dev *dev, bq_mat w, bq_mat s, bq_scheme scheme, bq_mat out);
void bq_cuda_distance(bq_dev *dev, bq_mat a, bq_mat b, bq_distance kind, double *sum);
void bq_cuda_clip_error(bq_dev *dev, bq_mat w, float factor, bq_scheme s, bq_mat out);
void bq_cuda_clip_rows(bq_dev *dev, bq_mat error, float step, bq_mat w);

#endif
