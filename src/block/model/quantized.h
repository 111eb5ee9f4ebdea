/* quantized.h - a block's quantized form on the device: codes, grids, and the weights that they stand for. */
#ifndef BQ_QUANTIZED_H
#define BQ_QUANTIZED_H

#include "block/model/block.h"

/* A quantized block on the device.  code = quantize(fold), w_hat = dequantize(code), exactly. */
typedef struct {
    const bq_arch *arch;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    bq_mat w_hat[BQ_MATS];         /* (rows, cols) f32: the weights that the next blocks see */
    bq_mat fold[BQ_MATS];          /* (rows, cols) f32: folded weights; gradients while a pass trains */
    bq_mat code[BQ_MATS];          /* (rows, cols) i8 */
    bq_mat scale[BQ_ARCH_LINEARS]; /* (rows * groups, 1) f32, groups of a row side by side */
    bq_mat zero[BQ_ARCH_LINEARS];  /* the same for zero points; data NULL where the scheme is symmetric */
    bq_mat pre[BQ_ARCH_LINEARS];   /* (1, cols) f32: room for a block's factors; data NULL unless pushed */
} bq_quantized;

void bq_quantized_push(bq_quantized *q, const bq_arch *arch, const bq_scheme *scheme, bq_arena *mem);
size_t bq_quantized_need(const bq_arch *arch, const bq_scheme *scheme);

/* Room for factors of what the linears are fed (block.h), of which most runs have none. */
void bq_quantized_push_pre(bq_quantized *q, bq_arena *mem);
size_t bq_quantized_need_pre(const bq_arch *arch);

/* Groups in a row of linear i; a scheme's group must divide the columns (checked with the recipe). */
int64_t bq_linear_groups(const bq_arch *arch, const bq_scheme *scheme, int i);
/* Linear i's rows of the four matrices, and the same memory as rows of one group each. */
bq_mat bq_linear_view(const bq_arch *arch, int i, const bq_mat mats[BQ_MATS]);
bq_mat bq_linear_grouped(const bq_arch *arch, const bq_scheme *scheme, int i, const bq_mat mats[BQ_MATS]);

/* The most that a linear of the model has: weights, scales, columns. */
typedef struct {
    size_t codes, scales, cols;
} bq_linear_most;
bq_linear_most bq_linear_most_of(const bq_arch *arch, const bq_scheme *scheme);

/* Codes from fold and scale, w_hat from both: of one linear, of all. */
void bq_linear_encode(bq_dev *dev, bq_quantized *q, int i);
void bq_quantized_encode(bq_dev *dev, bq_quantized *q);
/* w_hat from code and scale (a restored block). */
void bq_quantized_decode(bq_dev *dev, bq_quantized *q);

#endif
