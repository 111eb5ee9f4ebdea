/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/streams/reference.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "comm/flow.h"
#include "driver/load/through.h"
#include "driver/plan/pipeline.h"
#include "driver/streams/stream_file.h"
#include "io/state/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t bq_reference_file(const bq_run *s, int block, char *path, size_t n) {
    const uint64_t of[] = {s->acts_hash, (uint64_t)block};
    snprintf(path, n, "%s/fp_%03d.h5", s->heads, block);
    return bq_hash_bytes(of, sizeof of);
}

typedef struct {
    bq_run *s;
    int64_t tokens, hidden, micro;
    bq_shard share; /* my samples */
    bq_through way;
    float *memory; /* host: the buffers of micro-batches, or if they are on a GPU room for one sample */
    bq_flow flow;
    bq_shard blocks;        /* my stage's */
    int inner[BQ_PIECES];   /* its other blocks at which a piece starts: their inputs are kept, too */
    bq_acts *at[BQ_PIECES]; /* their files */
    int inners, until;      /* until: the end of the blocks whose outputs are needed */
    bq_acts *head, *from;   /* the head file that is made; that which the pipeline reads, */
    bq_reader *ahead;       /* with this thread */
} pipe_state;

static bq_acts *open_head(const bq_run *s, int block) {
    char path[BQ_PATH_MAX + 96];
    return bq_stream_file_open(s, path, bq_reference_file(s, block, path, sizeof path));
}

static bq_acts *make_head(const bq_run *s, int block) {
    char path[BQ_PATH_MAX + 96];
    return bq_stream_file_make(s, path, bq_reference_file(s, block, path, sizeof path));
}

bool bq_reference_whole(const bq_run *s, int block, bq_shard samples) {
    bq_acts *acts = open_head(s, block);
    bool good = acts && bq_acts_whole(acts, samples.first, samples.count);
    bq_acts_close(acts);
    return good;
}

/* Stage 0: write the embedded samples of my share that block 0's file lacks. */
static void embed(bq_run *s) {
    const int32_t *ids = s->calibration.ids + s->recipe.calibration.offset;
    bq_shard share = bq_run_share(s);
    bq_acts *acts = make_head(s, 0);
    bq_mat x = bq_run_room(s, 1);
    for (int64_t i = share.first; i < share.first + share.count; i++) {
        if (bq_acts_has(acts, i) && bq_acts_read(acts, i, x.data)) continue;
        bq_source_embed(&s->src, ids + i * x.rows, false, x);
        bq_acts_write(acts, i, x.data);
    }
    bq_acts_sync(acts);
    bq_acts_close(acts);
    free(x.data);
    bq_comm_stage_barrier(s->comm);
}

/* The blocks of the stage at which pieces start, without its first block. */
static int inner_starts(const bq_run *s, int inner[BQ_PIECES]) {
    bq_piece piece[BQ_PIECES];
    int pieces = bq_grid_pieces(&s->grid, s->comm->istage, piece), n = 0;
    bq_shard own = bq_grid_blocks(&s->grid, s->comm->istage);
    for (int i = 0; i < pieces; i++)
        if (piece[i].first > own.first) inner[n++] = piece[i].first;
    return n;
}

static bool have(const bq_run *s, int block) { return bq_reference_whole(s, block, bq_run_share(s)); }

/* The stages that have something to do: [first, last].  The first one reads its head file: it is the stage
 * before one that lacks its own, or one that lacks only inner files.  False: no file is missing. */
static bool missing(bq_run *s, int *first, int *last) {
    int inner[BQ_PIECES], n = inner_starts(s, inner), stage = s->comm->istage;
    bool head = have(s, (int)bq_grid_blocks(&s->grid, stage).first);
    bool all = head;
    BQ_CHECK(head || stage > 0, "%s/fp_000.h5 does not give back the samples that were just written",
             s->heads);
    for (int i = 0; i < n; i++) all = have(s, inner[i]) && all;
    *last = bq_comm_agree(s->comm, all ? -1 : stage);
    *first = -bq_comm_agree(s->comm, all ? -s->comm->nstage : head ? -stage : -(stage - 1));
    return *last >= 0;
}

/* The number of samples in the micro-batch that starts at sample `at` of my share. */
static int64_t count_at(const pipe_state *p, int64_t at) {
    int64_t left = p->share.count - at;
    return left < 0 ? 0 : left < p->micro ? left : p->micro;
}

static bq_mat sample_of(const pipe_state *p, bq_mat buffer, int64_t i) {
    float *data = bq_mat_at(buffer, 0, i * p->tokens * p->hidden);
    return (bq_mat){data, p->tokens, p->hidden, p->hidden, BQ_F32, buffer.place};
}

/* A sample's values on the host, valid until the next call. */
static const float *on_host(pipe_state *p, bq_mat x) {
    bq_dev *dev = &p->s->dev;
    if (x.place != BQ_DEVICE) return x.data;
    dev->op->get(dev, x, bq_mat_host(p->memory, x.rows, x.cols, BQ_F32));
    dev->op->wait(dev);
    return p->memory;
}

/* Sample i of my share, the next one of the file that the pipeline reads, into x. */
static void read_ahead(pipe_state *p, int64_t i, bq_mat x) {
    while (!bq_reader_wait(p->ahead, 0.05)) bq_run_stopped();
    const float *read = bq_reader_next(p->ahead);
    BQ_CHECK(read, "sample %ld of a head file is damaged", (long)(p->share.first + i));
    if (x.place == BQ_DEVICE)
        p->s->dev.op->put(&p->s->dev, bq_mat_host((void *)read, x.rows, x.cols, BQ_F32), x);
    else
        memcpy(x.data, read, bq_mat_bytes(x));
}

/* n samples of my share from `at` on: read them from the file, or write them to my head file. */
static void through_files(pipe_state *p, int64_t at, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        bq_mat x = sample_of(p, p->flow.in, i);
        if (p->ahead) read_ahead(p, at + i, x);
        if (p->head) bq_acts_write(p->head, p->share.first + at + i, on_host(p, x));
    }
}

/* Write an input of block b to its file if a piece starts there. */
static void keep_inner(pipe_state *p, int b, int64_t sample, bq_mat x) {
    for (int k = 0; k < p->inners; k++)
        if (p->inner[k] == b) bq_acts_write(p->at[k], sample, on_host(p, x));
}

static void step(void *ctx, int unit, int64_t i) {
    (void)ctx, (void)unit, (void)i;
    bq_run_stopped();
}

/* A micro-batch as a stream. */
static bq_stream stream_of(const pipe_state *p, bq_mat buffer, int64_t n) {
    bq_mat all = {buffer.data, n * p->tokens, p->hidden, p->hidden, BQ_F32, buffer.place};
    return bq_stream_over(all, p->tokens);
}

/* n samples of my share from `at` on through the blocks, up to p->until. */
static void through_blocks(pipe_state *p, int64_t at, int64_t n) {
    int first = (int)p->blocks.first;
    bq_stream in = stream_of(p, p->flow.in, n), out = stream_of(p, p->flow.out, n);
    for (int b = first; b < p->until; b++) {
        bq_source_prefetch(&p->s->src, b + 1 < p->until ? b + 1 : first);
        bq_through_block(&p->way, b, n, b == first ? &in : &out, &out);
        for (int64_t i = 0; i < n; i++) {
            bq_mat y = sample_of(p, p->flow.out, i);
            bq_run_finite(p->s, y, b, p->share.first + at + i, "original");
            keep_inner(p, b + 1, p->share.first + at + i, y);
        }
    }
}

/* All my micro-batches, one after the other.  on: send them to the next stage.  The first stage decides on a
 * stop, and the last micro-batch carries it through the pipeline, so no stage waits for one that does not
 * come. */
static void flow(pipe_state *p, bool on) {
    bq_run *s = p->s;
    const int64_t size = p->tokens * p->hidden;
    bool stop = false;
    for (int64_t at = 0; at < p->share.count && !stop; at += p->micro) {
        int64_t n = count_at(p, at);
        stop = bq_flow_take(&p->flow, n * size, count_at(p, at + p->micro) * size);
        if (!stop) through_files(p, at, n);
        if (p->from) stop = bq_run_stopped();
        if (!stop) through_blocks(p, at, n);
        bq_flow_give(&p->flow, n * size, stop);
        if (on && s->comm->replica == 0) bq_progress(at + n, p->share.count, "reference");
    }
    bq_flow_close(&p->flow);
    bq_progress_end();
}

static void open_pipe(pipe_state *p, bq_run *s, int64_t micro) {
    const bq_recipe *r = &s->recipe;
    const bq_arch *arch = &s->src.arch;
    *p = (pipe_state){.s = s, .tokens = r->calibration.length, .hidden = arch->model.hidden, .micro = micro};
    p->share = bq_run_share(s);
    if (p->micro > p->share.count) p->micro = p->share.count;
    bq_through_open(&p->way, &s->src, r->rope, &s->dev, p->micro, p->tokens, bq_run_home(s));
    p->way.step = step, p->way.step_ctx = p;
}

/* Buffers of micro-batches, on the GPU if messages go from GPU to GPU; the first receive starts here. */
static void open_flow(pipe_state *p, bool takes, bool gives) {
    bq_run *s = p->s;
    const bool direct = s->comm->depth != NULL;
    const int64_t sample = p->tokens * p->hidden, most = bq_flow_floats(p->micro * sample);
    p->memory = malloc((size_t)(direct ? sample : BQ_FLOW_BUFFERS * most) * sizeof *p->memory);
    BQ_CHECK(p->memory, "no memory for micro-batches of %ld samples", (long)p->micro);
    bq_mat buffers = direct ? bq_arena_push(&s->dev.mem, BQ_FLOW_BUFFERS, most, BQ_F32)
                            : bq_mat_host(p->memory, BQ_FLOW_BUFFERS, most, BQ_F32);
    bq_flow_open(&p->flow, s->comm, &s->dev, buffers, takes, gives, count_at(p, 0) * sample);
}

/* Open the file that the pipeline reads and those that it makes.  feed: this stage reads; on: it sends. */
static void open_files(pipe_state *p, bool feed, bool on) {
    p->blocks = bq_grid_blocks(&p->s->grid, p->s->comm->istage);
    p->inners = inner_starts(p->s, p->inner);
    p->until = (int)(p->blocks.first + (on ? p->blocks.count : 0));
    for (int k = 0; k < p->inners; k++) {
        p->at[k] = make_head(p->s, p->inner[k]);
        if (p->inner[k] > p->until) p->until = p->inner[k];
    }
    if (!feed) {
        p->head = make_head(p->s, (int)p->blocks.first);
        return;
    }
    p->from = open_head(p->s, (int)p->blocks.first);
    p->ahead =
        bq_reader_open(p->from, p->tokens * p->hidden, p->share.first, p->share.count, BQ_PIPELINE_RING);
}

static void close_files(pipe_state *p) {
    for (int k = 0; k < p->inners; k++) {
        bq_acts_sync(p->at[k]);
        bq_acts_close(p->at[k]);
    }
    if (p->ahead && p->s->comm->replica == 0)
        bq_log_all(BQ_DEBUG, "reference: waited %.2f s for block inputs from the disk",
                   bq_reader_stalled(p->ahead));
    bq_reader_close(p->ahead);
    if (p->head) bq_acts_sync(p->head);
    bq_acts_close(p->head);
    bq_acts_close(p->from);
}

void bq_reference_run(bq_run *s, int64_t micro) {
    int first, last, stage = s->comm->istage;
    if (stage == 0) embed(s);
    if (s->args->split_reference) {
        bq_comm_barrier(s->comm);
        bq_run_computes(s, s->recipe.reference);
        bq_reference_split(s);
        bq_run_computes(s, BQ_COMPUTE_F32);
        return;
    }
    if (!missing(s, &first, &last)) return;
    if (stage < first || stage > last) return;
    size_t mark = bq_arena_mark(&s->dev.mem);
    pipe_state p;
    open_pipe(&p, s, micro);
    open_files(&p, stage == first, stage < last);
    open_flow(&p, stage > first, stage < last);
    bq_run_computes(s, s->recipe.reference);
    flow(&p, stage < last);
    bq_run_computes(s, BQ_COMPUTE_F32);
    close_files(&p);
    bq_through_close(&p.way);
    free(p.memory);
    bq_arena_reset(&s->dev.mem, mark);
    bq_comm_stage_barrier(s->comm);
}
