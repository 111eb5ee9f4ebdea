/* block.h - one decoder block: its weights, its forward and its backward on a device.
 *
 *   a = norm1(x)   q, k, v = a Wqkv^T    o = attention(rope(q), rope(k), v)   m = x + o Wo^T
 *   n = norm2(m)   g, u = n Wgate_up^T   z = silu(g) u                        y = m + z Wdown^T
 *
 * That is the decoder layer of transformers' modeling_llama.py; the biases that a family has are added.
 *
 * All matrices are in device memory of the caller's arena, and no other memory is allocated.  A forward takes
 * one sample of T tokens, so a result does not depend on how many samples there are.  The letters T, H, I,
 * nh, nkv and hd are those of kernels/ops.h.  All calls are local. */
#ifndef BQ_BLOCK_H
#define BQ_BLOCK_H

#include "block/model/arch.h"

typedef struct {
    const bq_arch *arch;
    int index;
    bq_mat w[BQ_MATS];    /* (rows, cols) f32 */
    bq_mat bias[BQ_MATS]; /* (1, rows) f32, data NULL where the matrix has none */
    bq_mat norm[2];       /* (1, H) f32 */
    bool folded;          /* a pass has changed norms or biases, so they are no longer the model's */
    const bq_mat *pre;    /* [linears] (1, cols) f32, the caller's: the input of each linear is multiplied by
                             its factors.  NULL: none.  A backward is not possible with them */
} bq_block;

/* The workspace: the values of a forward, which the backward reads. */
typedef struct {
    bq_mat cos, sin;               /* (T, rope.dim / 2): the caller fills them (rope.h) */
    bq_mat x, y;                   /* (T, H): for a caller's input and output of the block */
    bq_mat a, m, n;                /* (T, H): output of norm 1; input and output of norm 2 */
    bq_mat qkv;                    /* (T, (nh + 2 nkv) hd), q and k after RoPE */
    bq_mat o;                      /* (T, nh hd): outputs of the heads, side by side */
    bq_mat lse;                    /* (nh, T): of the op attention */
    bq_mat gu;                     /* (T, 2 I); the backward overwrites it with its gradient */
    bq_mat z;                      /* (T, I) */
    bq_mat dz, dm, dn, dout, dqkv; /* for the backward; data NULL in a workspace without one */
    int activations; /* bits that the inputs of the linears are rounded to, after blk->pre, with one scale for
                        each token; 0: no rounding.  For evaluation; a backward is not possible with it */
} bq_work;

/* Push the buffers of a block and of a workspace, contents undefined; the caller's mark and reset take them
 * back.  train: with the buffers of the backward.  The *_need functions give the bytes that a push takes. */
void bq_block_push(bq_block *blk, const bq_arch *arch, bq_arena *mem);
size_t bq_block_need(const bq_arch *arch);
void bq_work_push(bq_work *work, const bq_arch *arch, int64_t tokens, bool train, bq_arena *mem);
size_t bq_work_need(const bq_arch *arch, int64_t tokens, bool train);
/* Arena bytes that a forward takes beside these where blk->pre is set. */
size_t bq_block_pre_scratch(const bq_arch *arch, int64_t tokens);

/* y = block(x) with the matrices w: the block's own, or others of the same shapes.  x, y: (T, H), not the
 * same memory.  y.data NULL: stop at the input of down, work->z. */
void bq_block_forward(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *work, bq_mat x,
                      bq_mat y);

/* One sample of a walk over samples: put `from` into k->x, compute k->y from it with the matrices w, and copy
 * that to `to`; it is there on return.  from, to: (T, H), on the device or on the host; they may be the
 * same. */
void bq_block_sample(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, bq_mat from,
                     bq_mat to);

/* Parts of a forward, for searches that compare outputs inside the block:
 *   linear   out = input w[mat]^T + bias; with `keep` that is added to out.  It ignores blk->pre and
 *            work->activations, the others do not
 *   heads    k->qkv, k->o and k->lse from k->a
 *   gated    k->gu and k->z from k->n
 *   rest     y from x and k->o; y.data NULL: stop at k->z */
void bq_block_linear(bq_dev *dev, const bq_block *blk, int mat, const bq_mat w[BQ_MATS], bq_mat input,
                     bool keep, bq_mat out);
void bq_block_heads(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k);
void bq_block_gated(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k);
void bq_block_rest(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, bq_mat x, bq_mat y);

/* The parts `first` to `last` of a forward, which is cut before each matrix; the bytes are those of a whole
 * forward.  Part m computes the input of matrix m:
 *   BQ_QKV       k->a from x
 *   BQ_O         k->o from k->a
 *   BQ_GATE_UP   k->m and k->n from x and k->o
 *   BQ_DOWN      k->z from k->n
 *   BQ_MATS      y, the output of the block, from k->m and k->z; y may be x */
void bq_block_parts(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *k, int first,
                    int last, bq_mat x, bq_mat y);
/* k->n from k->m: norm 2 alone. */
void bq_block_norm(bq_dev *dev, const bq_block *blk, bq_work *k);

/* Gradients from dy (T, H), which stays as it is, after a forward with the same w, x and work: dw[m] (rows,
 * cols) of each matrix, and dx (T, H) of the input; both are overwritten.  dx.data NULL: that part is left
 * out.  Norms and biases get no gradients.  work->gu is then no longer the forward's. */
void bq_block_backward(bq_dev *dev, const bq_block *blk, const bq_mat w[BQ_MATS], bq_work *work, bq_mat x,
                       bq_mat dy, const bq_mat dw[BQ_MATS], bq_mat dx);

#endif
