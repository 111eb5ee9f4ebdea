/* SPDX-License-Identifier: Apache-2.0 */
/* family.h - model families as data: what config.json calls one, which tensors a block has, and what each is.
 *
 * One file in family/ defines a family, one row of families.c lists it.  io reads config.json by it, block
 * lays out matrices by it (block/model/arch.h); nothing else knows a family. */
#ifndef BQ_FAMILY_H
#define BQ_FAMILY_H

#include "base/key.h"
#include "base/model.h"

/* Roles of sites.  A site is the linears of a block that read one input, in memory one matrix: qkv
 * [(nh + 2 nkv) hd, H] (rows q | k | v), o [H, nh hd], gate_up [2 I, H] (rows gate | up), down [H, I]; the
 * latter two of the dense MLP or, where a block has experts, of the shared one; and of each expert.
 *
 * Latent attention (block/model/latent.h): qkv has the rows q_a | kv_a, or q | kv_a; q_b [nh hd, rq] reads
 * the normed q_a, kv_b [nh (hn + hv), rc] the normed kv_a; o is [H, nh hv]. */
typedef enum {
    BQ_QKV,
    BQ_O,
    BQ_GATE_UP,
    BQ_DOWN,
    BQ_EXPERT_GATE_UP,
    BQ_EXPERT_DOWN,
    BQ_Q_B,
    BQ_KV_B,
    BQ_ROLES
} bq_role;

/* Rows of a linear, as multiples of the model's numbers.  BQ_ROWS_I is the width of the MLP that the role is
 * of. */
typedef enum {
    BQ_ROWS_Q,
    BQ_ROWS_KV,
    BQ_ROWS_QKV,
    BQ_ROWS_H,
    BQ_ROWS_I,
    BQ_ROWS_2I,
    BQ_ROWS_Q_A,
    BQ_ROWS_KV_A,
    BQ_ROWS_KV_B
} bq_rows;

/* Has a linear a bias: never, always, or as a key of config.json says. */
typedef enum { BQ_BIAS_NONE, BQ_BIAS_ALWAYS, BQ_BIAS_ATTENTION, BQ_BIAS_MLP } bq_bias;

/* Where a block may have norms: before attention and the MLP; of what o and down compute, before it is added
 * to the residual stream; of queries and keys, before RoPE; of q_a and kv_a.  Their gains are (H), but those
 * of q and k (hd), for each head alike, or of all heads together with BQ_FAMILY_QK_WHOLE; of q_a (rq) and
 * kv_a (rc). */
typedef enum {
    BQ_NORM_ATTENTION,
    BQ_NORM_MLP,
    BQ_NORM_O,
    BQ_NORM_DOWN,
    BQ_NORM_Q,
    BQ_NORM_K,
    BQ_NORM_Q_A,
    BQ_NORM_KV_A,
    BQ_NORMS
} bq_norm_at;
#define BQ_NORMS_FOLDED 2 /* the first two: what passes may fold scales into */

/* Which blocks have the window, unless config.json lists `layer_types`: all (the list is not read then);
 * those from max_window_layers on, if use_sliding_window is true; all but the last of each
 * sliding_window_pattern. */
typedef enum { BQ_WINDOW_ALL, BQ_WINDOW_FROM, BQ_WINDOW_PERIOD } bq_window_rule;

/* Small tensors that are kept as they are, [rows, cols] or a vector: the router (E, H); its bias, which is
 * added to its logits (E); the correction of its scores (E); the gate of the shared MLP (1, H); and of
 * attention, with experts or without, the sinks (heads). */
typedef enum {
    BQ_ROUTER,
    BQ_ROUTER_BIAS,
    BQ_ROUTER_CORRECTION,
    BQ_SHARED_GATE,
    BQ_SINKS,
    BQ_EXTRAS
} bq_extra;

/* What else differs between families. */
enum {
    BQ_FAMILY_QK_WHOLE = 1 << 0,
    BQ_FAMILY_GAIN_ADDS = 1 << 1,       /* the gain of a norm is 1 + its tensor */
    BQ_FAMILY_EMBED_ROOT = 1 << 2,      /* embeddings are multiplied by sqrt(H) */
    BQ_FAMILY_TWO_ROPES = 1 << 3,       /* blocks with a window have another rope: rope_local_base_freq, or
                                         rope_parameters.sliding_attention */
    BQ_FAMILY_QK_OPTIONAL = 1 << 4,     /* norms of q and k only if use_qk_norm is true */
    BQ_FAMILY_ROUTE_SIGMOID = 1 << 5,   /* experts are chosen by sigmoids, in groups; else by softmax */
    BQ_FAMILY_ROUTE_NORMALIZE = 1 << 6, /* weights of a token's experts always sum to 1, without a key */
    BQ_FAMILY_STACKED = 1 << 7,         /* files stack the experts of a block: io/in/stacked.c */
    BQ_FAMILY_FP8 = 1 << 8,             /* weights may be FP8 with scales of tiles (io/in/fp8.h) */
};

/* In which blocks is a linear?  BQ_WITH_Q_A, BQ_WITHOUT_Q_A: of models that compute queries from q_a, or from
 * the input. */
typedef enum { BQ_ALWAYS, BQ_IN_DENSE_BLOCKS, BQ_IN_EXPERT_BLOCKS, BQ_WITH_Q_A, BQ_WITHOUT_Q_A } bq_when;

/* A linear as checkpoints store it.  Those of a site stand together, in the order of its rows; sites stand in
 * the order in which a forward comes to them. */
typedef struct {
    const char *name;   /* "q_proj": what recipes call it; NULL ends the table */
    const char *module; /* "self_attn.q_proj": below model.layers.N.; of an expert, "%d" is its number */
    bq_role role;
    bq_rows rows;
    bq_bias bias;
    bq_when when;
} bq_weight_row;

typedef struct {
    const char *type, *architecture; /* config.json: model_type, architectures */
    const char *members;             /* others that are read as this one, for messages; or NULL */
    unsigned ropes;                  /* kinds it may have: 1 << bq_rope_kind */
    /* Keys of config.json that other families do not have, or have with another default or range; those of
     * all families are in io/in/config.c.  They are read into a bq_model, and the fingerprint is made of
     * them. */
    const bq_key *config;
    const bq_weight_row *weight;
    bq_act act;
    bq_window_rule window;
    const char *nested;         /* the object of config.json that has the keys, where it is there; or NULL */
    const char *norm[BQ_NORMS]; /* modules; NULL: there is no such norm */
    const char *extra[BQ_EXTRAS]; /* names below model.layers.N.; NULL: there is none */
    unsigned traits;              /* BQ_FAMILY_QK_WHOLE ... */
} bq_family;

/* Keys that several families have, by their default. */
#define BQ_CONFIG_BIAS                                                                                       \
    { "attention_bias", BQ_KEY_BOOL, BQ_AT(bq_model, attention_bias), .value = "false" }
#define BQ_CONFIG_POSITIONS(most)                                                                            \
    {                                                                                                        \
        "max_position_embeddings", BQ_KEY_I64, BQ_AT(bq_model, max_position),                                \
            .value = most, .min = 1, .max = 0x1p40, .unhashed = true                                         \
    }
#define BQ_CONFIG_THETA(base)                                                                                \
    { "rope_theta", BQ_KEY_REAL, BQ_AT(bq_model, rope.theta), .value = base, .min = 1, .max = 1e18 }
#define BQ_CONFIG_WINDOW(size)                                                                               \
    { "sliding_window", BQ_KEY_I64, BQ_AT(bq_model, window), .value = size, .min = 1, .max = 0x1p40 }
/* For BQ_WINDOW_FROM.  Which blocks have a window is hashed, not the rule. */
#define BQ_CONFIG_WINDOW_FROM(first)                                                                         \
    {"use_sliding_window", BQ_KEY_BOOL, BQ_AT(bq_model, windowed), .value = "false"},                        \
        BQ_CONFIG_WINDOW("4096"), {                                                                          \
        "max_window_layers", BQ_KEY_INT, BQ_AT(bq_model, window_from), .value = first, .max = 0x1p30,        \
                                                                       .unhashed = true                      \
    }
/* Another kind of model than a decoder: it is refused. */
#define BQ_CONFIG_CAUSAL                                                                                     \
    { "use_bidirectional_attention", BQ_KEY_BOOL, .at = BQ_NOWHERE, .value = "false" }
/* The linears of attention, and of a dense or shared MLP and of experts below a name, as most families have
 * them. */
#define BQ_WEIGHTS_ATTENTION(qkv, o)                                                                         \
    {"q_proj", "self_attn.q_proj", BQ_QKV, BQ_ROWS_Q, qkv, BQ_ALWAYS},                                       \
        {"k_proj", "self_attn.k_proj", BQ_QKV, BQ_ROWS_KV, qkv, BQ_ALWAYS},                                  \
        {"v_proj", "self_attn.v_proj", BQ_QKV, BQ_ROWS_KV, qkv, BQ_ALWAYS}, {                                \
        "o_proj", "self_attn.o_proj", BQ_O, BQ_ROWS_H, o, BQ_ALWAYS                                          \
    }
#define BQ_WEIGHTS_MLP(module, bias_, when_)                                                                 \
    {"gate_proj", module ".gate_proj", BQ_GATE_UP, BQ_ROWS_I, bias_, when_},                                 \
        {"up_proj", module ".up_proj", BQ_GATE_UP, BQ_ROWS_I, bias_, when_}, {                               \
        "down_proj", module ".down_proj", BQ_DOWN, BQ_ROWS_H, bias_, when_                                   \
    }
#define BQ_WEIGHTS_EXPERTS(module, gate, up, down)                                                           \
    {gate, module ".%d." gate, BQ_EXPERT_GATE_UP, BQ_ROWS_I, BQ_BIAS_NONE, BQ_IN_EXPERT_BLOCKS},             \
        {up, module ".%d." up, BQ_EXPERT_GATE_UP, BQ_ROWS_I, BQ_BIAS_NONE, BQ_IN_EXPERT_BLOCKS}, {           \
        down, module ".%d." down, BQ_EXPERT_DOWN, BQ_ROWS_H, BQ_BIAS_NONE, BQ_IN_EXPERT_BLOCKS               \
    }
/* Keys of experts: their number by any of its names, how many are taken, their width. */
#define BQ_CONFIG_EXPERTS(width)                                                                             \
    {"num_experts", BQ_KEY_INT, BQ_AT(bq_model, experts), .value = "0", .min = 1, .max = BQ_EXPERTS_MAX},    \
        {"num_local_experts", BQ_KEY_INT, BQ_AT(bq_model, experts),                                          \
         .value = "0",        .min = 1,   .max = BQ_EXPERTS_MAX},                                            \
        {"n_routed_experts", BQ_KEY_INT, BQ_AT(bq_model, experts),                                           \
         .value = "0",       .min = 1,   .max = BQ_EXPERTS_MAX},                                             \
        {"num_experts_per_tok", BQ_KEY_INT, BQ_AT(bq_model, chosen), .min = 1, .max = BQ_EXPERTS_MAX}, {     \
        width, BQ_KEY_I64, BQ_AT(bq_model, expert_inter), .min = 1, .max = 0x1p24                            \
    }
#define BQ_CONFIG_NORMALIZE(value_)                                                                          \
    { "norm_topk_prob", BQ_KEY_BOOL, BQ_AT(bq_model, route_normalize), .value = value_ }
#define BQ_CONFIG_SPARSE_STEP                                                                                \
    {                                                                                                        \
        "decoder_sparse_step", BQ_KEY_INT, BQ_AT(bq_model, experts_step), .value = "1", .min = 1,            \
                                                                          .max = 0x1p12                      \
    }
#define BQ_CONFIG_FIRST_DENSE(blocks)                                                                        \
    { "first_k_dense_replace", BQ_KEY_INT, BQ_AT(bq_model, first_experts), .value = blocks, .max = 0x1p12 }
#define BQ_CONFIG_GROUPS(groups, kept)                                                                       \
    {"n_group", BQ_KEY_INT, BQ_AT(bq_model, route_groups), .value = groups, .min = 1, .max = 64},            \
        {"topk_group", BQ_KEY_INT, BQ_AT(bq_model, route_kept), .value = kept, .min = 1, .max = 64}, {       \
        "n_shared_experts", BQ_KEY_INT, BQ_AT(bq_model, shared_experts), .value = "1", .max = 0x1p10         \
    }
#define BQ_NORMS_LLAMA [BQ_NORM_ATTENTION] = "input_layernorm", [BQ_NORM_MLP] = "post_attention_layernorm"
#define BQ_NORMS_QK    [BQ_NORM_Q] = "self_attn.q_norm", [BQ_NORM_K] = "self_attn.k_norm"

/* Row i of the table, NULL behind the last; the row of a model_type, or -1. */
const bq_family *bq_family_at(int i);
int bq_family_find(const char *type);

#endif
