/* model.h - what a decoder-only model is, as numbers.  io fills it from config.json, block computes with it.
 */
#ifndef BQ_MODEL_H
#define BQ_MODEL_H

#include <stdbool.h>
#include <stdint.h>

typedef enum { BQ_LLAMA, BQ_PHI3, BQ_FAMILIES } bq_family;

/* Where rotary frequencies come from.  All kinds end as one vector of inverse frequencies and one scalar. */
typedef enum { BQ_ROPE_DEFAULT, BQ_ROPE_LINEAR, BQ_ROPE_LLAMA3, BQ_ROPE_LONG } bq_rope_kind;

#define BQ_ROPE_MAX 256 /* largest number of rotary frequencies, rotary channels / 2 */

typedef struct {
    bq_rope_kind kind;
    int64_t dim; /* rotated channels of a head, even, <= head_dim; the rest passes through */
    double theta;
    double factor;    /* linear, llama3: divisor of (low) frequencies; longrope: see models.md 4.4 */
    double low, high; /* llama3: low_freq_factor, high_freq_factor */
    double original;  /* llama3, longrope: original_max_position_embeddings */
    double attention; /* factor on cos and sin; 1 except longrope */
    double short_factor[BQ_ROPE_MAX], long_factor[BQ_ROPE_MAX]; /* longrope: dim / 2 values each */
} bq_rope;

typedef struct {
    bq_family family;
    int64_t hidden, inter, vocab;      /* H, I, V */
    int blocks;                        /* L */
    int64_t heads, kv_heads, head_dim; /* nh, nkv, hd; nkv divides nh */
    double eps;                        /* of every RMSNorm */
    int64_t window; /* sliding window W: key j is seen by query i iff i - W < j <= i; 0 = none */
    int64_t max_position;
    bool tied;                     /* lm_head is the embedding */
    bool attention_bias, mlp_bias; /* on q, k, v, o; on gate, up, down */
    bool procedural; /* no file holds the weights: they are made from a seed (io/procedural.h) */
    int64_t seed;
    bq_rope rope;
} bq_model;

#endif
