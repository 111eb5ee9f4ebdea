/* fold.h - fusions: where a scale of a matrix's input channels can be hidden (smoothquant.md 2).
 *
 * x -> x / s and W -> W diag(s) leave x W^T as it is.  The division costs nothing where what makes x is
 * linear in each channel: a norm's weight, the rows of V (attention mixes tokens within a channel), the rows
 * of up (silu(g) u is linear in u).  So each of the four matrices has one fusion, and its number is the
 * matrix's; families differ in names alone. */
#ifndef BQ_FOLD_H
#define BQ_FOLD_H

#include "block/passes/pass.h"

#define BQ_FUSIONS BQ_MATS

/* Whose output feeds a matrix: norm >= 0, or rows [row, row + rows) of matrix `producer`.  Head h of `repeat`
 * in a row reads the same `head` producer rows (grouped queries); repeat is 1 elsewhere. */
typedef struct {
    int norm, producer;
    int64_t row, rows, head, repeat;
} bq_fusion;

bq_fusion bq_fusion_of(const bq_arch *arch, int mat);

/* s (1, cols of the matrix): all heads that share a producer row get their largest value, as one row can have
 * one scale only.  Nothing changes without grouped queries. */
void bq_fold_group(bq_dev *dev, const bq_arch *arch, int mat, bq_mat s);

/* Fold s, grouped as above and > 0, into the block: W = W diag(s), and what feeds it is divided by s, biases
 * too. */
void bq_fold_apply(bq_dev *dev, bq_block *blk, int mat, bq_mat s);
size_t bq_fold_need(const bq_arch *arch);

#endif
