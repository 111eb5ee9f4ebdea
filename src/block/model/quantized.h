/* SPDX-License-Identifier: Apache-2.0 */
/* quantized.h - a quantized block on the device: its codes, grids, and the weights that they stand for.  All
 * calls are local. */
#ifndef BQ_QUANTIZED_H
#define BQ_QUANTIZED_H

#include "block/model/block.h"

/* The layouts of the units of a model's blocks, each with the schemes of its linears: of blocks (of their
 * cores, where they have experts), then where there are such of blocks without experts, of experts.
 *
 * own: NULL where all blocks have the same schemes.  Else the layouts of block b are own[2 b], of its core or
 * the whole block, and own[2 b + 1], of its experts; and the schemes of `at` are only for counting memory:
 * they take as much as any of these. */
typedef struct {
    const bq_arch *arch;
    bq_scheme scheme[BQ_ARCH_LINEARS];
} bq_layout;
#define BQ_LAYOUTS 3
typedef struct {
    int count;
    bq_layout at[BQ_LAYOUTS];
    bq_layout *own;
} bq_layouts;

/* The layout of a unit of a block; arch: one of those of `at`. */
const bq_layout *bq_layout_of(const bq_layouts *layouts, const bq_arch *arch, int block);

/* In a result code = quantize(fold) and w_hat = dequantize(code) exactly, by the ops of these names. */
typedef struct {
    const bq_arch *arch;
    bq_scheme scheme[BQ_ARCH_LINEARS];
    bq_mat w_hat[BQ_SITES]; /* (rows, cols) f32: the dequantized weights */
    bq_mat fold[BQ_SITES];  /* (rows, cols) f32: the weights before rounding; gradients while a pass trains */
    bq_mat code[BQ_SITES];  /* (rows, cols) i8 */
    bq_mat scale[BQ_ARCH_LINEARS]; /* (rows * groups, 1) f32: the scales of row 0, then those of row 1, ... */
    bq_mat zero[BQ_ARCH_LINEARS];  /* the zero points, likewise; data NULL where the scheme is symmetric */
    bq_mat pre[BQ_ARCH_LINEARS];   /* (1, cols) f32: room for blk->pre; data NULL unless pushed */
    bq_arena room;                 /* of all these, where it can be turned to other layouts */
    bool prescales;                /* then: with pre */
} bq_quantized;

/* Push the matrices for the schemes of all linears, contents undefined, and the bytes that this takes. */
void bq_quantized_push(bq_quantized *q, const bq_arch *arch, const bq_scheme *scheme, bq_arena *mem);
size_t bq_quantized_need(const bq_arch *arch, const bq_scheme *scheme);

/* The same for the factors of the linears' inputs (blk->pre), which few runs have. */
void bq_quantized_push_pre(bq_quantized *q, bq_arena *mem);
size_t bq_quantized_need_pre(const bq_arch *arch);

/* Room for any of the layouts, with pre or without, and the bytes that it takes.  It is then of the first
 * one; turn makes it one of another, contents undefined. */
void bq_quantized_push_any(bq_quantized *q, const bq_layouts *layouts, bool pre, bq_arena *mem);
size_t bq_quantized_need_any(const bq_layouts *layouts, bool pre);
void bq_quantized_turn(bq_quantized *q, const bq_layout *layout);

/* Groups in a row of linear i.  The group of a scheme must divide the columns; reading the recipe checks
 * that. */
int64_t bq_linear_groups(const bq_arch *arch, const bq_scheme *scheme, int i);
/* The rows of linear i in the matrices of the sites: as they are, (rows, cols), and with one group in a row,
 * (rows * groups, cols / groups).  Views; for the second the matrices must be contiguous. */
bq_mat bq_linear_view(const bq_arch *arch, int i, const bq_mat *mats);
bq_mat bq_linear_grouped(const bq_arch *arch, const bq_scheme *scheme, int i, const bq_mat *mats);

/* The largest number of weights, of scales and of columns that a linear of the model has. */
typedef struct {
    size_t codes, scales, cols;
} bq_linear_most;
bq_linear_most bq_linear_most_of(const bq_layouts *layouts);

/* Before grids are made: the outer factors of scales in two levels (NVFP4), 448 times the largest number of
 * the element over the largest |w| of fold at the linear's site; 1 where that is 0.  The linears of a site
 * share it, as engines that fuse them need it.  Overwrites w_hat; waits for the device. */
void bq_quantized_outer(bq_dev *dev, bq_quantized *q);
/* The grids of linear i that cover fold, whatever clips there are; in tiles one for all of a tile. */
void bq_linear_range(bq_dev *dev, bq_quantized *q, int i);

/* Compute the codes from fold and the grids, and w_hat from the codes: of linear i, of all linears. */
void bq_linear_encode(bq_dev *dev, bq_quantized *q, int i);
void bq_quantized_encode(bq_dev *dev, bq_quantized *q);
/* Compute w_hat of all linears from codes and grids, as for a block that was read from a checkpoint. */
void bq_quantized_decode(bq_dev *dev, bq_quantized *q);

#endif
