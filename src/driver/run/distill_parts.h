/* distill_parts.h - what the files of distillation share. */
#ifndef BQ_DISTILL_PARTS_H
#define BQ_DISTILL_PARTS_H

#include "comm/treesum.h"
#include "driver/run/distill.h"
#include "io/state/stream.h"

/* The scales of a block of this stage: vectors of all its linears, one behind the other, on the host. */
typedef struct {
    int64_t count;
    float *start, *u, *m, *v; /* as the phases left them; trained; the moments */
    bq_treesum sum;           /* of their gradients */
} bq_scales;

typedef struct {
    bq_run *s;
    int64_t samples, batch, tokens, hidden;
    bq_shard blocks;   /* my stage's */
    int64_t kept;      /* the most of my samples in a step */
    int64_t step;      /* done */
    int saved;         /* the number of states that were written */
    double *losses;    /* of each step, the same on all ranks */
    bq_scales *scales; /* of each of my blocks */
    bq_block blk;
    bq_quantized q;
    bq_work work;
    bq_mat index;         /* device (most scales of a linear, 1) i32: 0, 1, 2, ... */
    bq_mat gradient;      /* device (most scales of a block, 1) */
    bq_mat dy, dx;        /* device (T, H) */
    bq_mat normed, right; /* the same on the last stage: what the head multiplies */
    bq_mat norm, head;    /* on the last stage */
    bq_stream inputs;     /* sample b kept + k: input of my block b for my k-th sample; behind them outputs */
    bq_stream slopes;     /* the gradients of what my blocks put out for them, */
    bq_stream teacher;    /* last stage: the original's outputs, normed, of the samples of my share */
    bq_mat buffer;        /* host (T, H) */
    float *given, *taken; /* host: a micro-batch that is sent, and one that is received */
    MPI_Request sending;
    bool sends;
} bq_distilling;

/* My samples of a step: leaf first + k is sample bq_distill_sample(d, first + k). */
bq_shard bq_distill_leaves(const bq_distilling *d, int replica);
static inline int64_t bq_distill_sample(const bq_distilling *d, int64_t leaf) {
    int64_t stride = d->samples / d->batch;
    return d->step % stride + leaf * stride;
}

/* Read my block b: codes and zero points from its checkpoint, the scales as they are trained now. */
void bq_distill_load(bq_distilling *d, int64_t b);
/* Read its scales into d->scales; forward of my k-th samples [first, first + n); their backward, which adds
 * their gradients to d->scales[b].sum, and leaves those of the inputs in d->slopes. */
void bq_distill_begin(bq_distilling *d, int64_t b);
void bq_distill_forward(bq_distilling *d, int64_t b, int64_t first, int64_t n);
void bq_distill_backward(bq_distilling *d, int64_t b, int64_t first, int64_t n);
/* Make it the gradient of my k-th sample in d->slopes.  slope: (T, H) on the device. */
void bq_distill_keep(bq_distilling *d, bq_mat slope, int64_t k);
/* Take a step with the sums of all replicas; rate: of this step.  Collective over stage. */
void bq_distill_update(bq_distilling *d, int64_t b, double rate);
/* Write the block's result: replica 0. */
void bq_distill_write(bq_distilling *d, int64_t b);

/* Save the state after d->step steps; go on from the last one that all blocks have, if there is any.
 * Collective over world. */
void bq_distill_save(bq_distilling *d);
void bq_distill_restore(bq_distilling *d);

#endif
