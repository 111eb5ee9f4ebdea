/* SPDX-License-Identifier: Apache-2.0 */
/* model.h - the numbers that describe a decoder-only model.  io fills them from config.json; block computes
 * with them. */
#ifndef BQ_MODEL_H
#define BQ_MODEL_H

#include <stdbool.h>
#include <stdint.h>

/* Which rule makes the rotary frequencies.  Every rule ends in the same form: a vector of inverse frequencies
 * and one factor (`attention`). */
typedef enum { BQ_ROPE_DEFAULT, BQ_ROPE_LINEAR, BQ_ROPE_LLAMA3, BQ_ROPE_LONG, BQ_ROPE_YARN } bq_rope_kind;

#define BQ_ROPE_MAX 256 /* most rotary frequencies: rotated channels of a head / 2 */

typedef struct {
    bq_rope_kind kind;
    int64_t dim;    /* rotated channels of a head: even, <= head_dim; the others are left as they are */
    double partial; /* dim as a share of the head */
    double theta;
    double factor;    /* linear, llama3, yarn: what (low) frequencies are divided by; longrope: see rope.h */
    double low, high; /* llama3: low_freq_factor, high_freq_factor; yarn: beta_slow, beta_fast */
    bool truncate;    /* yarn: the ramp's ends are whole numbers */
    double original;  /* llama3, longrope, yarn: original_max_position_embeddings; else 0, or of no effect */
    double attention; /* factor on cos and sin; 1 for all but longrope and yarn */
    double mscale, mscale_all; /* yarn: what `attention` is made of where it is not given */
    double short_factor[BQ_ROPE_MAX], long_factor[BQ_ROPE_MAX]; /* longrope: dim / 2 values each */
} bq_rope;

#define BQ_BLOCKS_MAX  4096 /* most blocks of a model, */
#define BQ_EXPERTS_MAX 256  /* and experts of a block */

/* What gate, and for BQ_SILU_CLAMPED up, is put through in an MLP: kernels/ops.h. */
typedef enum { BQ_SILU, BQ_GELU_TANH, BQ_SILU_CLAMPED } bq_act;

typedef struct {
    char prefix[32];                   /* of the text model's tensors: "model.language_model"; "": "model" */
    int family;                        /* bq_family_at */
    int64_t hidden, inter, vocab;      /* H, I, V */
    int blocks;                        /* L */
    int64_t heads, kv_heads, head_dim; /* nh, nkv, hd; nkv divides nh */
    /* Latent attention (block/model/latent.h); kv_rank 0: another attention.  hd = hn + hr, nkv = nh. */
    int64_t q_rank, kv_rank;    /* rq, rc; rq 0: queries are computed from the input */
    int64_t nope_dim, rope_dim; /* hn, hr: channels of a query or key without and with RoPE */
    int64_t value_dim;          /* hv: of a value */
    bool rope_pairs;            /* RoPE turns channels 2 i and 2 i + 1 together */
    double eps;                 /* epsilon of every RMSNorm, but of those of q_a and kv_a */
    double query_scalar;        /* products of queries and keys are divided by its root; 0: by that of hd */
    double attention_cap, logit_cap; /* c: scores, or logits l, become c tanh(l / c); 0: they do not */
    int64_t window;    /* sliding window W: query i sees key j if i - W < j <= i; 0: no window */
    bool windowed;     /* some families: is the window used? */
    int window_from;   /* some families: the first block with a window; the length of a period of blocks, */
    int window_period; /* of which the last has no window */
    bool full[BQ_BLOCKS_MAX]; /* blocks that have no window where others have */
    int64_t max_position;
    bool tied; /* lm_head and the embedding are one matrix */
    /* Experts; 0: none.  Of each token `chosen` are taken, by the rule of kernels/route.h. */
    int experts, chosen, route_groups, route_kept;
    bool route_sigmoid, route_normalize;
    double route_factor;
    int64_t expert_inter, shared_inter; /* widths; shared_inter 0: there is no shared MLP */
    int first_experts, experts_step,
        shared_experts;            /* what config.json says of dense blocks and shared_inter */
    bool dense[BQ_BLOCKS_MAX];     /* blocks without experts where others have them */
    bool qk_norm;                  /* of BQ_FAMILY_QK_OPTIONAL: are there norms of q and k? */
    double glu_limit;              /* of BQ_SILU_CLAMPED */
    bool attention_bias, mlp_bias; /* biases on q, k, v, o; on gate, up, down */
    bq_rope rope;
    bq_rope full_rope; /* of blocks without a window; dim 0: they have `rope`, too */
} bq_model;

#endif
