/* block.h - one decoder block: its weights, its forward and its backward on a device (models.md 2.1, 9.1).
 *
 * Everything lives in device memory of the caller's arena; nothing here allocates beyond it.  One sample of T
 * tokens at a time, so results do not depend on how many samples are in flight. */
#ifndef BQ_BLOCK_H
#define BQ_BLOCK_H

#include "block/model/arch.h"

typedef struct {
    const bq_arch *arch;
    int index;
    bq_mat w[BQ_MATS];    /* (rows, cols) f32 */
    bq_mat bias[BQ_MATS]; /* (1, rows) f32, data NULL where the matrix has none */
    bq_mat norm[2];       /* (1, H) f32 */
    bool folded;          /* norms or biases are no longer the model's: a pass has changed them */
    const bq_mat *pre;    /* [linears] (1, cols) f32, the caller's: factors of what each linear is fed, which
                             stand beside its weights; NULL: none.  There is no backward through them */
} bq_block;

/* What a forward leaves for the backward, and where it works. */
typedef struct {
    bq_mat cos, sin;               /* (T, rotary / 2) */
    bq_mat a, m, n;                /* (T, H): output of norm 1, input and output of norm 2 */
    bq_mat qkv;                    /* (T, (nh + 2 nkv) hd), after RoPE */
    bq_mat o;                      /* (T, nh hd): heads side by side */
    bq_mat lse;                    /* (nh, T) */
    bq_mat gu;                     /* (T, 2 I); the backward overwrites it with its gradient */
    bq_mat z;                      /* (T, I) */
    bq_mat dz, dm, dn, dout, dqkv; /* backward only; data NULL in a forward-only workspace */
    int activations; /* bits that the inputs of the matrices are rounded to, a scale a token, after blk->pre;
                        0: they are not.  For evaluation: there is no backward through it */
} bq_work;

/* Push a block's buffers, a workspace.  train: with the backward's buffers.  The *_need functions give the
 * bytes. */
void bq_block_push(bq_block *blk, const bq_arch *arch, bq_arena *mem);
size_t bq_block_need(const bq_arch *arch);
void bq_work_push(bq_work *work, const bq_arch *arch, int64_t tokens, bool train, bq_arena *mem);
size_t bq_work_need(const bq_arch *arch, int64_t tokens, bool train);
/* Arena bytes that a forward takes beside them where there is blk->pre. */
size_t bq_block_pre_scratch(const bq_arch *arch, int64_t tokens);

/* y = block(x) with matrices w (the block's own, or quantized ones of the same shapes).  x, y: (T, H), no
 * alias.  y.data NULL: up to the inputs of the last matrix, which are then in work. */
void bq_block_forward(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *work, bq_mat x,
                      bq_mat y);

/* Its parts, for searches that look inside.  out = input w[mat]^T + bias, added to out with keep; the heads
 * k->o from the first norm's output k->a; the gated activations k->z from the second's, k->n; the block's
 * output y from its input x and the heads. */
void bq_block_linear(bq_dev *dev, const bq_block *blk, int mat, const bq_mat w[BQ_MATS], bq_mat input,
                     bool keep, bq_mat out);
void bq_block_heads(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k);
void bq_block_gated(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k);
void bq_block_rest(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, bq_mat x, bq_mat y);

/* A forward cut at its matrices: part m makes what matrix m is fed from what the one before was fed (part qkv
 * from x, gate_up from x and the heads), part BQ_MATS the output y, from k->m and k->z.  Parts first to last,
 * the same bytes as in one forward. */
void bq_block_parts(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, int first,
                    int last, bq_mat x, bq_mat y);
/* Norm 2 of k->m again. */
void bq_block_norm(bq_dev *dev, const bq_block *blk, bq_work *k);

/* Gradients of the matrices from dy (T, H), after a forward with the same w and x: dw[i] (rows, cols)
 * overwritten. dx (T, H) receives the gradient of the block's input; data NULL leaves that part out.  dy is
 * kept. */
void bq_block_backward(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *work, bq_mat x,
                       bq_mat dy, const bq_mat dw[BQ_MATS], bq_mat dx);

#endif
