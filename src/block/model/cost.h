/* SPDX-License-Identifier: Apache-2.0 */
/* cost.h - what the work on a block costs one rank: arithmetic, memory traffic, messages.
 *
 * The counts follow from the contracts of the ops; docs/scaling.md has the formulas. */
#ifndef BQ_COST_H
#define BQ_COST_H

#include "block/model/arch.h"
#include "kernels/ops.h"

/* Kinds of arithmetic: each has a rate of its own.  Products are counted by how they are computed, which is
 * f32 unless bq_effort_as says otherwise. */
typedef enum {
    BQ_RATE_PRODUCTS,
    BQ_RATE_GRAM = BQ_RATE_PRODUCTS + BQ_COMPUTES, /* Gram matrices, of which one triangle is computed */
    BQ_RATE_ATTENTION,
    BQ_RATE_ATTENTION_BACK,
    BQ_RATE_FACTOR,  /* of Gram matrices, in f64 */
    BQ_RATE_COLUMNS, /* GPTQ's loop over columns */
    BQ_RATES
} bq_rate;

typedef struct {
    double flop[BQ_RATES];
    double memory;   /* bytes that ops other than GEMMs read and write, and the weights that GEMMs read */
    double sent;     /* bytes to other replicas of the stage; as many bytes come back */
    double passed;   /* bytes to the next stage */
    double messages; /* messages that follow each other */
    double idle;     /* flop of products of other ranks that this rank waits for */
    double files;    /* bytes of weights read from files */
    double written;  /* bytes of checkpoints, */
    double saves;    /* and how many they are */
} bq_effort;

/* What the cost of a pass on one block depends on. */
typedef struct {
    const bq_arch *arch;
    double samples, replicas; /* samples of the busiest rank; replicas of its stage */
    double weights;           /* in a block */
    double tokens;            /* in a sample */
    double kept;              /* samples whose state a pass keeps between matrices (midway.h) */
} bq_cost;

/* to += times * e, field by field; all arithmetic together; the same with products in `compute`. */
void bq_effort_add(bq_effort *to, double times, bq_effort e);
double bq_effort_flop(const bq_effort *e);
bq_effort bq_effort_as(bq_effort e, bq_compute compute);

/* One sample of `tokens` tokens:
 *   forward      through a block: the linears and causal attention
 *   forward_to   through the part of it before matrix `to`
 *   backward     the gradients of all weights, and of the inputs of all matrices but qkv; attention is
 *                computed again
 * Products are in f32. */
bq_effort bq_effort_forward(const bq_arch *arch, double tokens);
bq_effort bq_effort_forward_to(const bq_arch *arch, double tokens, int to);
bq_effort bq_effort_backward(const bq_arch *arch, double tokens);

/* All samples of the rank to the input of matrix `to`.  A kept sample starts at the input of the matrix
 * before it, the others at the input of the block (midway.h). */
bq_effort bq_effort_midway(const bq_cost *c, int to);

/* Work that passes share: Gram matrices of the inputs of all sites, and their sums over the replicas;
 * a factor of each (its flop); sending the rows of all matrices to every replica. */
bq_effort bq_effort_grams(const bq_cost *c);
double bq_effort_factors(const bq_cost *c);
bq_effort bq_effort_rows(const bq_cost *c);

/* The sum of rows^a cols^b over the sites. */
double bq_effort_powers(const bq_arch *arch, double a, double b);

#endif
