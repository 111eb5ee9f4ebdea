/* SPDX-License-Identifier: Apache-2.0 */
/* product.cuh - products on tensor cores, and those of BQ_COMPUTE_FP16X2 among them.
 *
 * There a float x is (hi + lo) / by: two fp16 numbers, and a power of two for the whole matrix, with which
 * its largest finite |x| becomes at least 2^14 and less than 2^15.  hi + lo has 22 to 24 significant bits
 * where |x| is at least 2^-18 of the largest; below that the error is at most 2^-40 of the largest.  A
 * product is
 *     lo hi + hi lo + hi hi
 * and lo lo, 2^-24 of it, is left out.
 *
 * What is to be beaten is the rounding of sums in tensor cores, towards zero.  So the sum of hi hi is cut
 * into pieces that are added in FP32; each of them reads and writes c once more.  The model of hardware in
 * tests/simt/tensor_core.h has these NMSE, for inputs with an outlier of 60 in 500:
 *                                        K = 4096    K = 14336
 *     a chain of FP32 FMAs               1.2e-12     4.5e-12
 *     pieces of 512 (PIECE)              4e-13       4e-13
 *     pieces of 1024                     1.4e-12     1.4e-12
 *     b is codes: 1024 (PIECE_ONE_TERM)  1.1e-13     1.2e-13
 *     b is codes: 4096                   2.0e-12     2.8e-12
 * At 700 TFLOP/s and 4 TB/s a pass over c takes as long as 700 multiplications for each element of c, unless
 * the two overlap.  So pieces are as long as the error allows.  Products with codes have few bits: most of
 * their sums are exact.  The two small products are one piece each: their sums are 2^-11 of the whole. */
#ifndef BQ_PRODUCT_CUH
#define BQ_PRODUCT_CUH

#include "kernels/cuda/launch.cuh"

/* An operand in terms.  lo.data NULL: it is hi alone, as only b may be.  by: on the device; NULL: 1. */
struct bq_terms {
    bq_mat hi, lo;
    const float *by;
};

/* x in terms, in scratch; f16 stays where it is, as one term. */
bq_terms bq_cuda_terms(bq_dev *dev, bq_mat x);

/* In scratch: what bq_cuda_product takes as `factors` for a product of these with alpha and beta. */
const float *bq_cuda_factors(bq_dev *dev, bq_terms a, bq_terms b, float alpha, float beta);

/* c = alpha * op(a) op(b) + beta * c, of operands in terms, or of parts of them. */
void bq_cuda_product(bq_dev *dev, bool ta, bool tb, bq_terms a, bq_terms b, const float *factors, bq_mat c);

#endif
