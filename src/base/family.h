/* family.h - model families as data: what config.json calls one, which tensors a block has, and what each is.
 *
 * One file in family/ defines a family, one row of families.c lists it.  io reads config.json by it, block
 * lays out matrices by it (block/model/arch.h); nothing else knows a family. */
#ifndef BQ_FAMILY_H
#define BQ_FAMILY_H

#include "base/key.h"
#include "base/model.h"

/* The matrices of a block in memory, stacks of linears that read one input: qkv [(nh + 2 nkv) hd, H] (rows
 * q | k | v), o [H, nh hd], gate_up [2 I, H] (rows gate | up), down [H, I]. */
enum { BQ_QKV, BQ_O, BQ_GATE_UP, BQ_DOWN, BQ_MATS };

/* Rows of a linear, as multiples of the model's numbers. */
typedef enum { BQ_ROWS_Q, BQ_ROWS_KV, BQ_ROWS_QKV, BQ_ROWS_H, BQ_ROWS_I, BQ_ROWS_2I } bq_rows;

/* Has a linear a bias: never, always, or as a key of config.json says. */
typedef enum { BQ_BIAS_NONE, BQ_BIAS_ALWAYS, BQ_BIAS_ATTENTION, BQ_BIAS_MLP } bq_bias;

/* A linear as checkpoints store it.  Those of a matrix stand in the order of its rows. */
typedef struct {
    const char *name;   /* "q_proj": what recipes call it; NULL ends the table */
    const char *module; /* "self_attn.q_proj": below model.layers.N. */
    int mat;
    bq_rows rows;
    bq_bias bias;
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
    const char *norm[2]; /* modules of the norms before attention and before the MLP */
} bq_family;

/* Row i of the table, NULL behind the last; the row of a model_type, or -1. */
const bq_family *bq_family_at(int i);
int bq_family_find(const char *type);

#endif
