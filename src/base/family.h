/* family.h - model families as data: what config.json calls one, which tensors a block has, and what each is.
 *
 * One file in family/ defines a family, one row of families.c lists it.  io reads config.json by it, block
 * lays out matrices by it (block/model/arch.h); nothing else knows a family. */
#ifndef BQ_FAMILY_H
#define BQ_FAMILY_H

#include "base/model.h"

/* Roles of sites.  A site is the linears of a block that read one input, in memory one matrix: qkv
 * [(nh + 2 nkv) hd, H] (rows q | k | v), o [H, nh hd], gate_up [2 I, H] (rows gate | up), down [H, I]. */
typedef enum { BQ_QKV, BQ_O, BQ_GATE_UP, BQ_DOWN, BQ_ROLES } bq_role;

/* Rows of a linear, as multiples of the model's numbers. */
typedef enum { BQ_ROWS_Q, BQ_ROWS_KV, BQ_ROWS_QKV, BQ_ROWS_H, BQ_ROWS_I, BQ_ROWS_2I } bq_rows;

/* Has a linear a bias: never, always, or as a key of config.json says. */
typedef enum { BQ_BIAS_NONE, BQ_BIAS_ALWAYS, BQ_BIAS_ATTENTION, BQ_BIAS_MLP } bq_bias;

/* A linear as checkpoints store it.  Those of a site stand together, in the order of its rows; sites stand in
 * the order in which a forward comes to them. */
typedef struct {
    const char *name;   /* "q_proj": what recipes call it; NULL ends the table */
    const char *module; /* "self_attn.q_proj": below model.layers.N. */
    bq_role role;
    bq_rows rows;
    bq_bias bias;
} bq_weight_row;

/* Keys of config.json that not all families have. */
enum {
    BQ_CONFIG_BIASES = 1 << 0, /* attention_bias, mlp_bias */
    BQ_CONFIG_WINDOW = 1 << 1, /* sliding_window, of all blocks */
    BQ_CONFIG_PARTIAL = 1 << 2 /* partial_rotary_factor: it may rotate a part of the head only */
};

typedef struct {
    const char *type, *architecture; /* config.json: model_type, architectures */
    const char *members;             /* others that are read as this one, for messages; or NULL */
    int64_t max_position;            /* max_position_embeddings where it is absent */
    unsigned ropes;                  /* kinds it may have: 1 << bq_rope_kind */
    unsigned config;                 /* BQ_CONFIG_BIASES ... */
    const char *unsupported;         /* a key that must be absent or false, or NULL */
    const bq_weight_row *weight;
    const char *norm[2]; /* modules of the norms before attention and before the MLP */
} bq_family;

/* Row i of the table, NULL behind the last; the row of a model_type, or -1. */
const bq_family *bq_family_at(int i);
int bq_family_find(const char *type);

#endif
