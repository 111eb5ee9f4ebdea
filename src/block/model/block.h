/* SPDX-License-Identifier: Apache-2.0 */
/* block.h - one decoder block: its weights, its forward and its backward on a device.
 *
 *   a = norm(x)   q, k, v = a Wqkv^T    o = attention(rope(q), rope(k), v)   m = x + o Wo^T
 *   n = norm(m)   g, u = n Wgate_up^T   z = act(g) u                         y = m + z Wdown^T
 *
 * In a block with experts y = m + sum over the chosen experts e of c_e MLP_e(n), + MLP_shared(n) where there
 * is a shared MLP; c are the weights of the router (kernels/route.h).
 *
 * That is the decoder layer of transformers' modeling_llama.py.  Biases and further norms are there where the
 * family has them (bq_norm_at); a norm that it lacks is left out.
 *
 * All matrices are in device memory of the caller's arena, and no other memory is allocated.  A forward takes
 * one sample of T tokens, so a result does not depend on how many samples there are.  The letters T, H, I,
 * nh, nkv and hd are those of kernels/ops.h.  All calls are local. */
#ifndef BQ_BLOCK_H
#define BQ_BLOCK_H

#include "block/model/arch.h"

typedef struct {
    const bq_arch *arch;
    bq_arena room; /* of its matrices */
    int index;
    bq_attention attention;       /* with the window of this block, and its sinks */
    int rope;                     /* which of the workspace's rotary tables it has */
    bq_mat w[BQ_LAYOUT_SITES];    /* (rows, cols) f32 */
    bq_mat bias[BQ_LAYOUT_SITES]; /* (1, rows) f32, data NULL where the site has none */
    bq_mat extra[BQ_EXTRAS];      /* of arch->extra_shape, f32; data NULL where there is none */
    bq_mat norm[BQ_NORMS];        /* gains, (1, arch->gains) f32; data NULL where there is no norm */
    bool folded;                  /* a pass has changed norms or biases, so they are no longer the model's */
    /* What roundings for all rows need (work->inputs, work->cache), the caller's: for each site the scale and
     * the zero of its input, or the factor of its scales; the scales of keys, then those of values.  inputs
     * NULL: they are found from the values of the sample. */
    const float *inputs, *kv;
    const bq_mat *pre; /* [linears] (1, cols) f32, the caller's: the input of each linear is multiplied by
                             its factors.  NULL: none.  A backward is not possible with them */
    /* [sites] (1, rows) f32, the caller's: of matrices w that are f16 or bf16.  These have codes, and their
     * rows times these scales are the weights.  Scratch beside that of products: (T, rows) f32 */
    const bq_mat *row_scale;
} bq_block;

/* The workspace: the values of a forward, which the backward reads. */
typedef struct {
    bq_mat cos[2], sin[2];  /* (T, dim / 2) of model.rope, and of model.full_rope where there is one: the
                               caller fills them (rope.h) */
    bq_mat x, y;            /* (T, H): for a caller's input and output of the block */
    bq_mat a, m, n;         /* (T, H): input of qkv; m, and the input of gate_up */
    bq_mat raw_n;           /* (T, H), where there are experts and a shared MLP: bq_block_normed */
    bq_mat qkv;             /* (T, (nh + 2 nkv) hd), q and k after RoPE; with latent attention what the site
                               computes, but q after RoPE */
    bq_mat o;               /* (T, nh hd), or (T, nh hv): outputs of the heads, side by side */
    bq_mat lse;             /* (nh, T): of the op attention */
    bq_mat gu;              /* (T, 2 I); the backward overwrites it with its gradient */
    bq_mat z;               /* (T, I) */
    bq_mat t;               /* (T, H): between o or down and its norm; data NULL without such norms */
    bq_mat raw_o, raw_down; /* (T, H): what o and down compute, before their norms, and */
    bq_mat raw_qk;          /* (T, (nh + nkv) hd): q and k before theirs; for the backward only.  Also a
                               caller's: q and k before RoPE */
    /* Of experts.  Rows start[e] ... start[e + 1] - 1 of the matrices with T k rows are expert e's. */
    bq_mat logits;              /* (T, E) */
    bq_mat index, weight;       /* (T, k) i32, f32: of the op route */
    bq_mat rows, slots, first;  /* (T k, 1), (T k, 1), (E + 1, 1) i32: of the op expert_lists */
    bq_mat xe, gue, ze, ye, we; /* (T k, H), (T k, 2 I), (T k, I), (T k, H), (T k, 1): inputs, gate and up,
                                   inputs of down, outputs, weights */
    bq_mat dextra[BQ_EXTRAS];   /* a caller's: gradients of blk->extra, by the backward; data NULL: not */
    bq_mat one, dxe, dze, dwe, dweight, dlogits; /* for the backward */
    int32_t start[BQ_EXPERTS_MAX + 1];           /* on the host */
    /* Of a shared MLP with a gate: (T, 1), as the experts' logits, index, weight and lists. */
    bq_mat gate_logit, gate_index, gate, all, all_slots, all_first, dgate, dgate_logit;
    /* Of latent attention (latent.h). */
    struct {
        bq_mat q_a, kv_a;        /* (T, rq), (T, rc), behind their norms: inputs of q_b and kv_b */
        bq_mat q, kv;            /* (T, nh hd), after RoPE; (T, nh (hn + hv)): outputs of q_b and kv_b */
        bq_mat key, value;       /* (T, nh hd), (T, nh hv) */
        bq_mat dq, dkey, dvalue; /* for the backward */
    } latent;
    bq_mat dz, dm, dn, dout, dqkv; /* for the backward; data NULL in a workspace without one */
    /* A caller's, written by the backward; data NULL: not.  Of the gains of the kept norms, the gradient
     * times the gain (1, H); of the rows of a site that have a bias, that of the bias (1, bias_rows).
     * Scratch of the first: (T, H) f32.  Not with latent attention, nor with experts. */
    bq_mat dgain[2], dbias[BQ_LAYOUT_SITES];
    /* A caller's, too: of a site without biases the sums over tokens of dy y, for each of its rows (1, rows).
     * That is the gradient of a row times the row itself, without the product that dw takes; the site's dw is
     * not written then.  For the first site raw_qk must be there.  Scratch: (T, rows) f32.  k->y must have
     * what the forward gave. */
    bq_mat drow[BQ_LAYOUT_SITES];
    bq_mat raw_heads; /* a caller's, like o: o before it is rounded; for a backward with rounded inputs */
    bq_mat grid;      /* (groups, 2): of a rounding that is given grids */
    /* How the inputs of the linears are rounded, after blk->pre, in place; and the keys, after RoPE, and
     * values. The backward is that of the linears with these inputs, and of attention with these keys and
     * values: the gradient goes through a rounding as it is.  Element 0: they are not rounded. */
    bq_rounding inputs, cache;
    int64_t real; /* so many tokens of a sample decide about a scale that all share; 0: all.  Behind them is
                     padding */
} bq_work;

/* What the norm before the MLP has computed, before the input of a shared MLP was rounded: the router and the
 * experts read that. */
static inline bq_mat bq_block_normed(const bq_work *k) { return k->raw_n.data ? k->raw_n : k->n; }

/* What attention has computed, before o's input was rounded. */
static inline bq_mat bq_block_heads_out(const bq_work *k) { return k->raw_heads.data ? k->raw_heads : k->o; }

/* q, k and v in a matrix like work->qkv. */
typedef struct {
    bq_mat q, k, v;
} bq_heads;
bq_heads bq_block_split(const bq_model *m, bq_mat qkv);

/* The norms that a checkpoint keeps of a folded block: i = 0 before attention, 1 before the MLP; where the
 * model has none, behind o and down. */
static inline int bq_block_kept_at(const bq_block *blk, int i) {
    return blk->norm[i].data ? i : BQ_NORM_O + i;
}
static inline bq_mat bq_block_kept_norm(const bq_block *blk, int i) {
    return blk->norm[bq_block_kept_at(blk, i)];
}

/* Push the buffers of a block and of a workspace, contents undefined; the caller's mark and reset take them
 * back.  The block is then block 0; it has room for the layouts of the model's other blocks, too, and where
 * arch is of a core, for those of its other units.  train: with the buffers of the backward.  The *_need
 * functions give the bytes that a push takes. */
void bq_block_push(bq_block *blk, const bq_arch *arch, bq_arena *mem);
size_t bq_block_need(const bq_arch *arch);
void bq_work_push(bq_work *work, const bq_arch *arch, int64_t tokens, bool train, bq_arena *mem);
size_t bq_work_need(const bq_arch *arch, int64_t tokens, bool train);
/* Arena bytes that a forward takes beside these where blk->pre is set. */
size_t bq_block_pre_scratch(const bq_arch *arch, int64_t tokens);

/* It becomes block `index`, whose layout is arch: with that block's window and rotary table, and unchanged by
 * passes.  Contents are undefined where the layout changes. */
void bq_block_turn(bq_block *blk, const bq_arch *arch, int index);

/* y = block(x) with the matrices w, one for each site: the block's own, or others of the same shapes.  x, y:
 * (T, H), not the same memory.  y.data NULL: stop at the input of down, work->z. */
void bq_block_forward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *work, bq_mat x, bq_mat y);

/* One sample of a walk over samples: put `from` into k->x, compute k->y from it with the matrices w, and copy
 * that to `to`; it is there on return.  from, to: (T, H), on the device or on the host; they may be the
 * same. */
void bq_block_sample(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat from, bq_mat to);

/* Parts of a forward, for searches that compare outputs inside the block:
 *   linear   out = input w[site]^T + bias; with `keep` that is added to out.  It ignores blk->pre
 *   heads    k->qkv, k->o and k->lse from k->a, with all that latent attention has between them
 *   gated    k->gu and k->z from k->n
 *   rest     y from x and k->o; y.data NULL: stop at k->z */
void bq_block_linear(bq_dev *dev, const bq_block *blk, int site, const bq_mat *w, bq_mat input, bool keep,
                     bq_mat out);
/* The same with blk->pre; only there it rounds.  Else parts (below) have rounded their input; what they have
 * not computed, bq_block_round rounds in place. */
void bq_block_round(bq_dev *dev, const bq_block *blk, const bq_work *k, int site, bq_mat x);
void bq_block_site(bq_dev *dev, const bq_block *blk, const bq_work *k, int site, const bq_mat *w, bq_mat x,
                   bool keep, bq_mat out);
/* Of y = x w[site]^T with dy: dw[site] = dy^T x unless dw is NULL, and dx = dy w[site] unless dx.data is. */
void bq_block_linear_bwd(bq_dev *dev, const bq_block *blk, int site, const bq_mat *w, bq_mat x, bq_mat dy,
                         const bq_mat *dw, bq_mat dx);
/* Gate and up as one matrix and apart, and z: of the dense or the shared MLP. */
typedef struct {
    bq_mat both, gate, up, z;
} bq_glu;
bq_glu bq_block_glu(const bq_arch *arch, const bq_work *k);
static inline float bq_block_limit(const bq_block *blk) { return (float)blk->arch->model.glu_limit; }
void bq_block_heads(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k);
void bq_block_gated(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k);
void bq_block_rest(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, bq_mat x, bq_mat y);

/* The parts `first` to `last` of a forward, which is cut before each site; the bytes are those of a whole
 * forward.  Part m computes the input of site m, by its role:
 *   qkv       k->a from x
 *   q_b       k->latent.q_a from k->a
 *   kv_b      k->latent.kv_a from k->a, or where there is q_b from k->qkv
 *   o         k->o from k->a, or of latent attention from k->latent.q_a, k->latent.kv_a and k->qkv
 *   gate_up   k->m and k->n from x and k->o
 *   down      k->z from k->n
 *   an expert's gate_up and down: its rows of k->xe from k->n, and of k->ze from k->xe
 * The part of the first site behind o computes k->m and k->n, and the experts of each token.  Part
 * arch->sites computes y, the output of the block, from k->m, k->z and k->ze; y may be x */
void bq_block_parts(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *k, int first, int last,
                    bq_mat x, bq_mat y);
/* The input of a site, as a forward leaves it in the workspace: (T, columns of the site). */
bq_mat bq_block_input(const bq_arch *arch, const bq_work *k, int site);
/* k->n from k->m: the norm before the MLP alone, as the input of gate_up. */
void bq_block_norm(bq_dev *dev, const bq_block *blk, bq_work *k);

/* Gradients from dy (T, H), which stays as it is, after a forward with the same w, x and work: dw[m] (rows,
 * cols) of each site, and dx (T, H) of the input; both are overwritten.  dx.data NULL: that part is left
 * out.  Norms and biases get no gradients.  work->gu, and what latent.h says, are then no longer the
 * forward's. */
void bq_block_backward(bq_dev *dev, const bq_block *blk, const bq_mat *w, bq_work *work, bq_mat x, bq_mat dy,
                       const bq_mat *dw, bq_mat dx);

#endif
