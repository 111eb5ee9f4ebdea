/* cpu.h - the cpu backend's ops, one file a topic; cpu.c joins them in the table.  Contracts: kernels/ops.h.
 */
#ifndef BQ_CPU_H
#define BQ_CPU_H

#include "kernels/ops.h"

/* cpu_dense.c */
void bq_cpu_gemm(bq_dev *dev, bool ta, bool tb, float alpha, bq_mat a, bq_mat b, float beta, bq_mat c);
/* The BLAS in use, with its version and kernel, and whether calls from several threads agree with calls from
 * one (probed once; dies when they do not). */
const char *bq_blas_name(void);
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
/* cpu_adascale.c */
void bq_cpu_adascale_weights(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat what, bq_mat scale,
                             bq_mat fold);
void bq_cpu_adascale_step(bq_dev *dev, const bq_adascale *p, bq_scheme scheme, bq_mat g, bq_adam adam,
                          bq_mat grad);

#endif
