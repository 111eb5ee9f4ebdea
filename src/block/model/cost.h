/* cost.h - what a block costs one rank, counted: arithmetic, memory traffic, messages.
 *
 * The counts are those of the ops' contracts; docs/scaling.md has them as formulas. */
#ifndef BQ_COST_H
#define BQ_COST_H

#include "block/model/arch.h"

typedef struct {
    double flop, flop64; /* of GEMMs and what goes with them; of factorizations, in double */
    double memory;       /* bytes that ops move beside GEMMs */
    double sent;         /* bytes to other ranks; as many come */
    double messages;     /* one behind the other */
    double idle;         /* flop of others that this rank waits for */
    double files;        /* bytes of weights read */
} bq_effort;

/* A rank's part in a block. */
typedef struct {
    const bq_arch *arch;
    double samples, replicas; /* of the busiest rank; of its stage */
    double weights;           /* of a block */
    double tokens;            /* of a sample */
    double kept;              /* samples that a pass keeps midway */
} bq_cost;

void bq_effort_add(bq_effort *to, double times, bq_effort e);

/* One sample of so many tokens through a block: linears, and causal attention; the same to before matrix
 * `to`; backward: all weight gradients, input gradients but for q, k, v, attention computed again. */
bq_effort bq_effort_forward(const bq_arch *arch, double tokens);
bq_effort bq_effort_forward_to(const bq_arch *arch, double tokens, int to);
bq_effort bq_effort_backward(const bq_arch *arch, double tokens);

/* All samples to before matrix `to`: from before the matrix ahead of it where a sample is kept, else from the
 * block's input. */
bq_effort bq_effort_midway(const bq_cost *c, int to);

/* Gram matrices of all inputs; a factor of each; the rows of all matrices to every replica. */
bq_effort bq_effort_grams(const bq_cost *c);
double bq_effort_factors(const bq_cost *c);
bq_effort bq_effort_rows(const bq_cost *c);

/* Sum over the matrices of rows^a cols^b. */
double bq_effort_powers(const bq_arch *arch, double a, double b);

#endif
