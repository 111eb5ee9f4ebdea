/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/learning.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "block/common/cayley.h"
#include "block/common/turned.h"
#include "comm/heartbeat.h"
#include "comm/treesum.h"
#include "driver/run/rotation.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bq_run *s;
    bq_comm comm; /* all ranks as replicas of one stage */
    bq_rotations all;
    int64_t batch;
    bq_shard leaves[BQ_REPLICAS], mine; /* of the batch: each rank's samples */
    bq_layouts layouts;
    bq_block blk;
    bq_work work;
    bq_quantized q;
    bq_stream from, right; /* mine: inputs of the block, and outputs of the original */
    bq_mat buffer;         /* host (T, H) */
    bq_mat r1, r2;         /* on the device; data NULL: none */
    bq_mat target, norm;   /* device (T, H), (T, 1) */
    float *norms;          /* host (T) */
    bq_mat sum, part;      /* host: the gradient of all blocks so far (h, h), of one block */
    double *losses;        /* host (batch): of the block at hand */
} lesson;

/* ---- a block ---- */

/* The gradient of sample i of mine, into a part of the sum. */
static void add_sample(lesson *l, int64_t i, bq_treesum *sum) {
    bq_dev *dev = &l->s->dev;
    const bq_ops *op = dev->op;
    const bq_learned_size size = l->all.size;
    bq_work *k = &l->work;
    bq_mat part = bq_treesum_next(sum), a1 = {0}, a2 = {0};
    bq_run_norms(bq_stream_host(&l->right, i, l->buffer), l->norms);
    op->put(dev, bq_mat_host(l->norms, l->norm.rows, 1, BQ_F32), l->norm);
    op->put(dev, bq_stream_get(&l->right, i, l->buffer), l->target);
    op->wait(dev); /* the buffer is used again */
    op->put(dev, bq_stream_get(&l->from, i, l->buffer), k->x);
    bq_block_forward(dev, &l->blk, l->q.w_hat, k, k->x, k->y);
    op->over_rows(dev, l->target, l->norm, l->target);
    op->over_rows(dev, k->y, l->norm, k->y);
    op->mse(dev, k->y, l->target, 1 / (double)l->norm.rows, k->y, &l->losses[l->mine.first + i]);
    op->over_rows(dev, k->y, l->norm, k->y);
    bq_block_backward(dev, &l->blk, l->q.w_hat, k, k->x, k->y, l->blk.w, (bq_mat){0});
    op->zero(dev, part);
    if (size.h) a1 = bq_mat_rows(part, 0, size.h);
    if (size.d) a2 = bq_mat_cols(bq_mat_rows(part, size.h, size.d), 0, size.d);
    bq_turned_gradient(dev, &l->q, l->blk.w, a1, a2);
    bq_treesum_add(sum, l->mine.first + i);
    op->wait(dev);
    bq_heartbeat();
}

/* The gradient of all samples of all ranks: in l->part. */
static void add_samples(lesson *l) {
    bq_dev *dev = &l->s->dev;
    const int64_t rows = l->part.rows, cols = l->part.cols;
    const bq_shard own = bq_shard_of(rows, l->comm.replica, l->comm.nreplica);
    size_t mark = bq_arena_mark(&dev->mem);
    bq_treesum sum;
    bq_mat first = bq_arena_push(&dev->mem, rows, cols, BQ_F32);
    bq_mat all = bq_arena_push(&dev->mem, rows, cols, BQ_F32);
    bq_treesum_open(&sum, dev, bq_treesum_buffers(l->mine.first, l->mine.count), first);
    for (int64_t i = 0; i < l->mine.count; i++) add_sample(l, i, &sum);
    bq_mat view = bq_treesum_end(&sum, &l->comm, l->leaves, own);
    dev->op->copy(dev, view, bq_mat_rows(all, own.first, own.count));
    bq_comm_gather_rows(&l->comm, dev, all);
    dev->op->get(dev, all, l->part);
    dev->op->wait(dev);
    bq_arena_reset(&dev->mem, mark);
}

static double angle_of(const lesson *l) {
    return l->s->recipe.transform[0].learn.lr * (1 - (double)l->all.done / (double)l->all.size.steps);
}

/* The sum of the losses of the batch, in order: on all ranks. */
static double share_losses(lesson *l) {
    double sum = 0;
    bq_comm_gather(l->s->comm, l->losses, l->batch);
    bq_comm_bcast(l->s->comm, l->losses, (size_t)l->batch * sizeof *l->losses);
    for (int64_t i = 0; i < l->batch; i++) sum += l->losses[i];
    return sum;
}

static void learn_block(lesson *l, int b) {
    bq_run *s = l->s;
    bq_dev *dev = &s->dev;
    const bq_learned_size size = l->all.size;
    const bq_arch *arch = bq_source_core(&s->src, b);
    bq_source_unit(&s->src, dev, b, arch, &l->blk);
    bq_source_prefetch(&s->src, b + 1);
    bq_quantized_turn(&l->q, bq_layout_of(&l->layouts, arch, b));
    for (int64_t i = 0; i < l->mine.count; i++) {
        bq_mat x = bq_stream_get(&l->from, i, l->buffer), y = bq_stream_get(&l->right, i, x);
        bq_block_sample(dev, &l->blk, l->blk.w, &l->work, x, y);
        bq_stream_put(&l->right, i, y);
    }
    float *r2 = l->all.r2 + b * size.d * size.d, *m2 = l->all.m2 + b * size.d * size.d;
    if (size.d) dev->op->put(dev, bq_mat_host(r2, size.d, size.d, BQ_F32), l->r2);
    bq_turned_weights(dev, &l->blk, &l->q, l->r1, l->r2);
    add_samples(l);
    double loss = share_losses(l);
    if (!isfinite(loss) && s->comm->rank == 0)
        bq_refuse_job(
            BQ_DATA,
            "%s: block %d/%d: the loss of its rotations is %g: the weights are damaged, or too large "
            "for f32",
            s->src.dir, b + 1, (int)size.blocks, loss);
    l->all.loss[l->all.done] += loss / (double)(l->batch * size.blocks);
    for (int64_t i = 0; i < size.h * size.h; i++) bq_f32(l->sum)[i] += bq_f32(l->part)[i];
    bq_mat a2 = size.d ? bq_mat_cols(bq_mat_rows(l->part, size.h, size.d), 0, size.d) : (bq_mat){0};
    if (size.d) bq_cayley_step(dev, size.d, r2, m2, a2, angle_of(l));
    bq_stream_swap(&l->from, &l->right);
}

/* ---- steps ---- */

static void embed(lesson *l) {
    const bq_run *s = l->s;
    for (int64_t i = 0; i < l->mine.count; i++) {
        int64_t sample = (l->all.done * l->batch + l->mine.first + i) % s->recipe.calibration.samples;
        bq_run_embed(s, sample, false, l->buffer, &l->from, i);
    }
}

/* Save the step that was done, and say its loss now and then. */
static void finish_step(lesson *l) {
    bq_rotations *all = &l->all;
    const int64_t steps = all->size.steps, k = all->done++;
    bool root = l->s->comm->rank == 0;
    if (root) bq_rotations_write(all, l->s);
    if (k == 0 || k + 1 == steps || (k + 1) * 10 / steps > k * 10 / steps)
        bq_log(BQ_INFO, "rotations: step %ld/%ld, mean error of a block %.6g", (long)k + 1, (long)steps,
               all->loss[k]);
    if (root) bq_fault_signal("rotation", SIGKILL);
}

/* False on all ranks: a stop came to one.  The step is then made again. */
static bool step(lesson *l) {
    bq_run *s = l->s;
    const bq_learned_size size = l->all.size;
    if (size.h) s->dev.op->put(&s->dev, bq_mat_host(l->all.r1, size.h, size.h, BQ_F32), l->r1);
    memset(l->sum.data, 0, (size_t)(size.h * size.h) * sizeof(float));
    l->all.loss[l->all.done] = 0;
    embed(l);
    for (int b = 0; b < size.blocks; b++) {
        char note[64];
        if (bq_comm_agree(s->comm, bq_run_stopped())) return false;
        snprintf(note, sizeof note, "rotations  step %ld/%ld", (long)l->all.done + 1, (long)size.steps);
        bq_progress(l->all.done * size.blocks + b + 1, size.steps * size.blocks, note);
        learn_block(l, b);
    }
    if (size.h) bq_cayley_step(&s->dev, size.h, l->all.r1, l->all.m1, l->sum, angle_of(l));
    finish_step(l);
    return true;
}

/* The schemes to round with; where bits.auto has still to choose, those of bits.decoder and bits.linears. */
static void take_layouts(lesson *l) {
    const bq_run *s = l->s;
    l->layouts = s->layouts;
    if (!s->recipe.bits.mixed.count) return;
    bq_source_layouts(&s->src, &l->layouts);
    int code = bq_plan_schemes(&s->recipe, &l->layouts);
    BQ_CHECK(code == BQ_OK, "the recipe's schemes do not fit the model"); /* session.c has checked it */
}

static void open_lesson(lesson *l) {
    bq_run *s = l->s;
    bq_arena *mem = &s->dev.mem;
    const bq_learned_size size = l->all.size;
    const int64_t t = s->recipe.calibration.length, hidden = s->src.arch.model.hidden,
                  rows = bq_learned_rows(size), cols = bq_learned_cols(size);
    const bq_arch *first = bq_source_first(&s->src);
    take_layouts(l);
    bq_block_push(&l->blk, first, mem);
    bq_source_work(&s->src, first, s->recipe.rope, &s->dev, t, true, &l->work);
    bq_quantized_push_any(&l->q, &s->layouts, false, mem);
    if (size.h) l->r1 = bq_arena_push(mem, size.h, size.h, BQ_F32);
    if (size.d) l->r2 = bq_arena_push(mem, size.d, size.d, BQ_F32);
    l->target = bq_arena_push(mem, t, hidden, BQ_F32), l->norm = bq_arena_push(mem, t, 1, BQ_F32);
    bq_stream_open(&l->from, l->mine.count, t, hidden, bq_run_home(s));
    bq_stream_open(&l->right, l->mine.count, t, hidden, bq_run_home(s));
    l->buffer = bq_run_room(s, 1);
    l->norms = malloc((size_t)t * sizeof(float));
    l->losses = calloc((size_t)l->batch, sizeof(double));
    l->sum = bq_mat_host(malloc((size_t)(size.h * size.h + 1) * sizeof(float)), size.h, size.h, BQ_F32);
    l->part = bq_mat_host(malloc((size_t)(rows * cols) * sizeof(float)), rows, cols, BQ_F32);
    BQ_CHECK(l->norms && l->losses && l->sum.data && l->part.data, "no memory for the gradient of rotations");
}

static void close_lesson(lesson *l) {
    bq_stream_close(&l->right);
    bq_stream_close(&l->from);
    free(l->buffer.data), free(l->norms), free(l->losses), free(l->sum.data), free(l->part.data);
}

/* Rank 0's state on all ranks; a new one starts with the recipe's rotations. */
static void load(lesson *l) {
    bq_rotations *all = &l->all;
    const bq_learned_size size = all->size;
    bq_run *s = l->s;
    bool there = s->comm->rank == 0 && bq_rotations_read(all, s);
    bq_comm_bcast(s->comm, &there, sizeof there);
    bq_comm_bcast(s->comm, &all->done, sizeof all->done);
    if (there) bq_comm_bcast(s->comm, all->memory, bq_rotations_bytes(all));
    if (there) return;
    if (size.h) bq_rotated_start(s->src.rotated, -1, all->r1);
    for (int b = 0; b < size.blocks && size.d; b++)
        bq_rotated_start(s->src.rotated, b, all->r2 + b * size.d * size.d);
}

static bool train(lesson *l) {
    bq_run *s = l->s;
    const bq_compute before = s->dev.compute;
    size_t mark = bq_arena_mark(&s->dev.mem);
    double since = bq_seconds();
    bool whole = true;
    open_lesson(l);
    bq_run_computes(s, BQ_COMPUTE_F32);
    while (whole && l->all.done < l->all.size.steps) whole = step(l);
    bq_progress_end();
    s->dev.compute = before;
    close_lesson(l);
    bq_arena_reset(&s->dev.mem, mark);
    if (whole) bq_log(BQ_INFO, "rotations: learned in %.1f s", bq_seconds() - since);
    return whole;
}

int bq_learning_run(bq_run *s) {
    if (!bq_recipe_learns(&s->recipe)) return BQ_OK;
    lesson *l = calloc(1, sizeof *l);
    BQ_CHECK(l, "no memory to learn rotations");
    *l = (lesson){.s = s, .comm = *s->comm, .batch = bq_recipe_learn_batch(&s->recipe)};
    l->comm.stage = l->comm.world, l->comm.istage = 0, l->comm.nstage = 1;
    l->comm.replica = l->comm.rank, l->comm.nreplica = l->comm.size;
    if (s->comm->nstage > 1) l->comm.nccl = NULL; /* it is of the ranks of a stage */
    bq_learned_leaves(l->batch, l->comm.nreplica, l->leaves);
    l->mine = l->leaves[l->comm.replica];
    bq_rotations_open(&l->all, s);
    load(l);
    bool whole = l->all.done == l->all.size.steps || train(l);
    if (whole) bq_rotated_learned(s->src.rotated, l->all.r1, l->all.r2);
    bq_rotations_close(&l->all);
    free(l);
    return whole ? BQ_OK : BQ_STOPPED;
}

int bq_learning_read(bq_run *s) {
    bq_rotations all;
    int code = BQ_OK;
    if (!bq_recipe_learns(&s->recipe)) return BQ_OK;
    bq_rotations_open(&all, s);
    if (bq_rotations_read(&all, s) && all.done == all.size.steps)
        bq_rotated_learned(s->src.rotated, all.r1, all.r2);
    else
        code =
            bq_refuse(BQ_DATA,
                      "%s/ckpt/rotation.f32 is gone or damaged, and the weights follow from its rotations: "
                      "`blockq run` it again",
                      s->dir);
    bq_rotations_close(&all);
    return code;
}
