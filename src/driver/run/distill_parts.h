/* SPDX-License-Identifier: Apache-2.0 */
/* distill_parts.h - what the files of distillation share. */
#ifndef BQ_DISTILL_PARTS_H
#define BQ_DISTILL_PARTS_H

#include "comm/treesum.h"
#include "driver/run/distill.h"
#include "io/state/stream.h"

/* The trained numbers of a block of this stage, on the host: vectors, with one part (below) behind the other.
 * A scale or a gain is start exp(u); a zero point or a bias is start + unit u, where unit is not 0. */
typedef struct {
    int64_t count;
    float *start, *unit, *u, *m, *v; /* start: as the phases left it; m, v: Adam's moments of u */
    bq_treesum sum;                  /* of the gradients by u */
} bq_numbers;

/* What is trained of the block that d->blk and d->q are, in order. */
typedef enum { BQ_TRAINED_SCALE, BQ_TRAINED_ZERO, BQ_TRAINED_GAIN, BQ_TRAINED_BIAS } bq_trained_kind;
typedef struct {
    bq_trained_kind kind;
    int at;               /* the linear; of gains which kept norm; of biases the site */
    int64_t first, count; /* its place in the vectors */
    bq_mat where;         /* on the device: its numbers in the block */
} bq_part_of_block;
enum { BQ_TRAINED_PARTS = 2 * BQ_ARCH_LINEARS + 2 + BQ_LAYOUT_SITES };

typedef struct {
    bq_run *s;
    int64_t samples, batch, tokens, hidden; /* samples: that are trained on; those behind them are held out */
    bq_shard share, held;                   /* my samples of both kinds; held: from d->samples on */
    int64_t *list;                          /* the samples that walk through the blocks, at most `kept` */
    int64_t positions;                      /* tokens of a sample that count in a step */
    bq_shard blocks;                        /* my stage's */
    int64_t kept;                           /* the most of my samples in a step */
    int64_t together;                       /* so many each replica has room for */
    int64_t step;                           /* done */
    int saved;                              /* the number of states that were written */
    double *losses;                         /* of each step, the same on all ranks */
    bq_numbers *numbers; /* of each of my blocks; behind them, on the last stage, gains of the final norm */
    int64_t units;       /* how many these are */
    bq_block blk;
    bq_quantized q;
    bq_work work;
    bq_mat index, zeros; /* device (most scales of a linear, 1) i32: 0, 1, 2, ...; 0 */
    bq_mat gradient;     /* device (most numbers of a block, 1) */
    bq_mat dy, dx;       /* device (T, H) */
    bq_mat ones;         /* device (T, or the most columns of a linear, 1) */
    bq_mat
        chosen; /* device (positions, 1) i32: the tokens that count; as all of the next on the last stage */
    bq_mat normed, right, some; /* device (positions, H): what the head multiplies, and what the norm does */
    bq_mat norm, head;
    bq_stream inputs; /* sample b kept + k: input of my block b for my k-th sample; behind them outputs */
    bq_stream slopes; /* the gradients of what my blocks put out for them */
    bq_stream
        original; /* last stage: the original's outputs, normed, of the samples of my share; other stages:
                           of a piece of it */
    int64_t piece;
    bq_mat buffer;        /* host (T, H) */
    float *given, *taken; /* host: a micro-batch that is sent, and one that is received */
    MPI_Request sending;
    bool sends;
} bq_distilling;

static inline bool bq_distill_first(const bq_distilling *d) { return d->s->comm->istage == 0; }
static inline bool bq_distill_last(const bq_distilling *d) {
    return d->s->comm->istage + 1 == d->s->comm->nstage;
}

/* My samples of a step: leaf first + k is sample bq_distill_sample(d, first + k). */
bq_shard bq_distill_leaves(const bq_distilling *d, int replica);
static inline int64_t bq_distill_sample(const bq_distilling *d, int64_t leaf) {
    int64_t stride = d->samples / d->batch;
    return d->step % stride + leaf * stride;
}

/* distill_loss.c.  After a forward of d->list, whose first sample is number `first` of `all`: the mean KL of
 * all of them, on all ranks; and in d->slopes the gradients of a batch's mean.  Collective over world. */
double bq_distill_loss(bq_distilling *d, int64_t first, int64_t count, int64_t all);

/* distill_stages.c.  Send samples [first, first + n) of a stream to the stage `by` farther on; receive them
 * from it; wait for what was sent.  n: at most d->kept. */
void bq_distill_send(bq_distilling *d, int by, const bq_stream *from, int64_t first, int64_t n);
void bq_distill_receive(bq_distilling *d, int by, bq_stream *to, int64_t first, int64_t n);
void bq_distill_settle(bq_distilling *d);
/* Fill d->original on the last stage: all samples through the original's blocks.  Collective over world. */
void bq_distill_original(bq_distilling *d);

/* distill_numbers.c.  List the parts of the block at hand; returns how many. */
int bq_distill_parts(const bq_distilling *d, bq_part_of_block *out);
/* Take the block's numbers as they are for the start of training; put those of now into the block. */
void bq_distill_take(bq_distilling *d, bq_numbers *to);
void bq_distill_put(bq_distilling *d, const bq_numbers *from);
/* A step of Adam from the sum of the gradients as the device has them (bq_distill_backward): of a scale that
 * of its weights times w_hat, of a zero point that of its weights, of a gain that by its logarithm, of a bias
 * itself. */
void bq_distill_adam(bq_distilling *d, bq_numbers *v, float *gradient, double rate);

/* Read my block b: codes and zero points from its checkpoint, the numbers as they are trained now. */
void bq_distill_load(bq_distilling *d, int64_t b);
/* Read its numbers into d->numbers; forward of my k-th samples [first, first + n); their backward, which adds
 * their gradients to d->numbers[b].sum, and leaves those of the inputs in d->slopes. */
void bq_distill_begin(bq_distilling *d, int64_t b);
void bq_distill_forward(bq_distilling *d, int64_t b, int64_t first, int64_t n);
void bq_distill_backward(bq_distilling *d, int64_t b, int64_t first, int64_t n);
/* The same of the final norm: its gains, its numbers, the gradient by their logarithms from dy and y, what
 * the norm put out (rows, H). */
void bq_distill_begin_norm(bq_distilling *d);
void bq_distill_load_norm(bq_distilling *d);
void bq_distill_backward_norm(bq_distilling *d, bq_mat dy, bq_mat y, int64_t leaf);
/* Make it the gradient of my k-th sample in d->slopes.  slope: (T, H) on the device. */
void bq_distill_keep(bq_distilling *d, bq_mat slope, int64_t k);
/* Take a step with the sums of all replicas; b: below `units`; rate: of this step.  Collective over stage. */
void bq_distill_update(bq_distilling *d, int64_t b, double rate);
/* Write the block's result: replica 0. */
void bq_distill_write(bq_distilling *d, int64_t b);

/* Save the state after d->step steps; go on from the last one that all blocks have, if there is any.
 * Collective over world. */
void bq_distill_save(bq_distilling *d);
void bq_distill_restore(bq_distilling *d);

#endif
