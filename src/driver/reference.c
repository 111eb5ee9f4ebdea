#include "driver/reference.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "driver/boundary.h"
#include "driver/grid.h"
#include "io/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bq_reference_path(const bq_session *s, int block, char *path, size_t n) {
    snprintf(path, n, "%s/fp_%03d.h5", s->acts, block);
}

uint64_t bq_reference_hash(const bq_session *s, int block) {
    const uint64_t of[] = {s->acts_hash, (uint64_t)block};
    return bq_hash_bytes(of, sizeof of);
}

typedef struct {
    bq_session *s;
    int64_t tokens, hidden, micro;
    bq_shard share; /* my samples */
    bq_block blk;
    bq_work work;
    bq_mat x, y;
    float *memory;
    bq_mat in[2], out[2]; /* host (micro * T, H): on their way in and out */
    MPI_Request receive, send[2];
    bq_shard blocks;        /* my stage's */
    int inner[BQ_PIECES];   /* blocks inside it that a piece starts at, whose inputs are kept, too */
    bq_acts *at[BQ_PIECES]; /* their files */
    int held;               /* the block whose weights blk has; -1: none */
    int inners, until;      /* until: the block up to which somebody needs the stream */
    bq_acts *head, *from;   /* my head file being made; the one that feeds the pipeline, */
    bq_reader *ahead;       /* by this thread */
} pipe_state;

/* Samples that are read ahead of the computation. */
enum { RING = 4 };

static int peer(const bq_session *s, int stage) { return stage * s->comm->nreplica + s->comm->replica; }

bq_acts *bq_reference_look(const bq_session *s, const char *path, uint64_t hash) {
    const bq_recipe *r = &s->recipe;
    bq_acts *acts;
    int found = bq_acts_open(&acts, path, r->calibration.samples, r->calibration.length,
                             s->src.arch.model.hidden, hash, NULL);
    return found == BQ_ACTS_OK ? acts : NULL;
}

bq_acts *bq_reference_new(const bq_session *s, const char *path, uint64_t hash) {
    const bq_recipe *r = &s->recipe;
    bq_acts *acts = bq_reference_look(s, path, hash);
    if (!acts)
        bq_acts_create(&acts, path, r->calibration.samples, r->calibration.length, s->src.arch.model.hidden,
                       hash);
    return acts;
}

bq_acts *bq_reference_join(const bq_session *s, bq_acts *acts) {
    if (s->args->acts != BQ_ACTS_BY_MPI) return acts;
    bool all = bq_boundary_all(s, acts != NULL);
    if (all) bq_acts_join(acts, s->comm);
    if (all) return acts;
    bq_acts_close(acts);
    return NULL;
}

bq_acts *bq_reference_open(const bq_session *s, const char *path, uint64_t hash) {
    return bq_reference_join(s, bq_reference_look(s, path, hash));
}

bq_acts *bq_reference_make(const bq_session *s, const char *path, uint64_t hash) {
    if (s->comm->replica == 0 || s->args->acts == BQ_ACTS_BY_ROOT)
        bq_acts_close(bq_reference_new(s, path, hash));
    bq_comm_stage_barrier(s->comm);
    bq_acts *acts = bq_reference_open(s, path, hash);
    BQ_CHECK(acts,
             "%s was made by another rank and cannot be opened: is the run directory shared by all nodes?",
             path);
    return acts;
}

static bq_acts *open_head(const bq_session *s, int block) {
    char path[BQ_PATH_MAX + 96];
    bq_reference_path(s, block, path, sizeof path);
    return bq_reference_open(s, path, bq_reference_hash(s, block));
}

static bq_acts *make_head(const bq_session *s, int block) {
    char path[BQ_PATH_MAX + 96];
    bq_reference_path(s, block, path, sizeof path);
    return bq_reference_make(s, path, bq_reference_hash(s, block));
}

bool bq_reference_whole(const bq_session *s, int block, bq_shard samples) {
    bq_acts *acts = open_head(s, block);
    float *buffer =
        malloc((size_t)(s->recipe.calibration.length * s->src.arch.model.hidden) * sizeof *buffer);
    BQ_CHECK(buffer, "no memory for a sample");
    bool good = acts != NULL;
    for (int64_t i = samples.first; i < samples.first + samples.count && good; i++)
        good = bq_acts_read(acts, i, buffer);
    free(buffer);
    bq_acts_close(acts);
    return good;
}

/* The embedded samples of my share, where block 0's file lacks them: stage 0 only. */
static void embed(bq_session *s) {
    const bq_recipe *r = &s->recipe;
    int64_t t = r->calibration.length, h = s->src.arch.model.hidden;
    bq_shard share = bq_session_share(s);
    bq_acts *acts = make_head(s, 0);
    float *buffer = malloc((size_t)(t * h) * sizeof *buffer);
    BQ_CHECK(buffer, "no memory for a sample of %ld x %ld", (long)t, (long)h);
    for (int64_t i = share.first; i < share.first + share.count; i++) {
        if (bq_acts_has(acts, i) && bq_acts_read(acts, i, buffer)) continue;
        bq_source_embed(&s->src, s->calibration.ids + r->calibration.offset + i * t,
                        bq_mat_host(buffer, t, h, BQ_F32));
        bq_acts_write(acts, i, buffer);
    }
    bq_acts_sync(acts);
    bq_acts_close(acts);
    free(buffer);
    bq_comm_stage_barrier(s->comm);
}

/* Blocks that pieces of the stage start at, but for its first. */
static int inner_starts(const bq_session *s, int inner[BQ_PIECES]) {
    bq_piece piece[BQ_PIECES];
    int pieces = bq_grid_pieces(&s->grid, s->comm->istage, piece), n = 0;
    bq_shard own = bq_grid_blocks(&s->grid, s->comm->istage);
    for (int i = 0; i < pieces; i++)
        if (piece[i].first > own.first) inner[n++] = piece[i].first;
    return n;
}

static bool have(const bq_session *s, int block) { return bq_reference_whole(s, block, bq_session_share(s)); }

/* The stages that have something to do: [first, last].  The first feeds the pipeline from its head file: it
 * is the one before a stage that lacks its own, or one that lacks an inner file alone.  False: none. */
static bool missing(bq_session *s, int *first, int *last) {
    int inner[BQ_PIECES], n = inner_starts(s, inner), stage = s->comm->istage;
    bool head = have(s, (int)bq_grid_blocks(&s->grid, stage).first);
    bool all = head;
    BQ_CHECK(head || stage > 0, "%s/fp_000.h5 does not give back the samples that were just written",
             s->acts);
    for (int i = 0; i < n; i++) all = have(s, inner[i]) && all;
    *last = bq_comm_agree(s->comm, all ? -1 : stage);
    *first = -bq_comm_agree(s->comm, all ? -s->comm->nstage : head ? -stage : -(stage - 1));
    return *last >= 0;
}

static int64_t count_at(const pipe_state *p, int64_t at) {
    return p->share.count - at < p->micro ? p->share.count - at : p->micro;
}

/* Floats of a message: the samples, and the stop flag. */
static int64_t message(const pipe_state *p, int64_t at) {
    return count_at(p, at) * p->tokens * p->hidden + 1;
}

static void start_receive(pipe_state *p, int64_t at, int slot) {
    if (at >= p->share.count || p->from) return;
    bq_comm_receive(p->s->comm, peer(p->s, p->s->comm->istage - 1), p->in[slot].data, message(p, at),
                    &p->receive);
}

/* The micro-batch that starts at sample `at` of my share, into slot's buffer. */
static void take(pipe_state *p, int64_t at, int slot) {
    int64_t n = count_at(p, at), size = p->tokens * p->hidden;
    float *in = p->in[slot].data;
    if (!p->from) bq_comm_wait(p->s->comm, &p->receive, 1);
    if (!p->from && in[message(p, at) - 1] > 0) return;
    for (int64_t i = 0; i < n && p->ahead; i++) {
        while (!bq_reader_wait(p->ahead, 0.05)) bq_session_stopped(p->s);
        const float *read = bq_reader_next(p->ahead);
        BQ_CHECK(read, "sample %ld of a head file is damaged", (long)(p->share.first + at + i));
        memcpy(in + i * size, read, (size_t)size * sizeof *in);
    }
    for (int64_t i = 0; i < n && p->head; i++) bq_acts_write(p->head, p->share.first + at + i, in + i * size);
}

/* A sample before block b: kept where a piece starts there. */
static void keep_inner(pipe_state *p, int b, int64_t sample, const float *x) {
    for (int k = 0; k < p->inners; k++)
        if (p->inner[k] == b) bq_acts_write(p->at[k], sample, x);
}

/* n samples of my share from `at` on, as far as somebody needs them. */
static void through_blocks(pipe_state *p, int64_t at, int64_t n, float *in, float *out) {
    bq_dev *dev = &p->s->dev;
    int64_t size = p->tokens * p->hidden;
    int first = (int)p->blocks.first;
    for (int b = first; b < p->until; b++) {
        if (b != p->held) bq_source_block(&p->s->src, dev, b, &p->blk);
        p->held = b; /* of a stage with one block they are read once */
        bq_source_prefetch(&p->s->src, b + 1 < p->until ? b + 1 : first);
        for (int64_t i = 0; i < n; i++) {
            float *y = out + i * size, *x = b == first ? in + i * size : y;
            dev->op->put(dev, bq_mat_host(x, p->tokens, p->hidden, BQ_F32), p->x);
            bq_block_forward(dev, &p->blk, p->blk.w, &p->work, p->x, p->y);
            dev->op->get(dev, p->y, bq_mat_host(y, p->tokens, p->hidden, BQ_F32));
            dev->op->wait(dev);
            bq_session_finite(p->s, bq_mat_host(y, p->tokens, p->hidden, BQ_F32), b, p->share.first + at + i,
                              "original");
            keep_inner(p, b + 1, p->share.first + at + i, y);
            bq_session_stopped(p->s);
        }
    }
}

/* All my micro-batches, one behind the other; `on`: there is a stage to send to.  A stop starts where the
 * samples come from: its flag follows the last micro-batch down the pipeline, so nobody waits for one that
 * never comes. */
static void flow(pipe_state *p, bool on) {
    bq_session *s = p->s;
    bool stop = false;
    start_receive(p, 0, 0);
    for (int64_t at = 0, slot = 0; at < p->share.count && !stop; at += p->micro, slot ^= 1) {
        float *in = p->in[slot].data, *out = p->out[slot].data;
        take(p, at, (int)slot);
        stop = p->from ? bq_session_stopped(s) : in[message(p, at) - 1] > 0;
        if (!stop) start_receive(p, at + p->micro, (int)slot ^ 1);
        if (on) bq_comm_wait(s->comm, &p->send[slot], 1);
        if (!stop) through_blocks(p, at, count_at(p, at), in, out);
        if (!on) continue;
        out[message(p, at) - 1] = stop;
        bq_comm_send(s->comm, peer(s, s->comm->istage + 1), out, message(p, at), &p->send[slot]);
        if (s->comm->replica == 0) bq_progress(at + count_at(p, at), p->share.count, "reference");
    }
    bq_comm_wait(s->comm, p->send, 2);
    bq_progress_clear();
}

size_t bq_reference_host(const bq_recipe *r, const bq_arch *arch, int64_t micro) {
    return (4 * (size_t)micro + RING) * (size_t)(r->calibration.length * arch->model.hidden) * sizeof(float);
}

int64_t bq_reference_micro(const bq_recipe *r, int nstage, int nreplica) {
    int64_t share = bq_shard_of(r->calibration.samples, 0, nreplica).count, micro = share / (4 * nstage);
    return micro < 1 ? 1 : micro > 16 ? 16 : micro;
}

static void open_pipe(pipe_state *p, bq_session *s, int64_t micro) {
    const bq_recipe *r = &s->recipe;
    const bq_arch *arch = &s->src.arch;
    *p = (pipe_state){.s = s,
                      .tokens = r->calibration.length,
                      .hidden = arch->model.hidden,
                      .micro = micro,
                      .held = -1,
                      .receive = MPI_REQUEST_NULL,
                      .send = {MPI_REQUEST_NULL, MPI_REQUEST_NULL}};
    p->share = bq_session_share(s);
    if (p->micro > p->share.count) p->micro = p->share.count;
    bq_block_push(&p->blk, arch, &s->dev.mem);
    bq_work_push(&p->work, arch, p->tokens, false, &s->dev.mem);
    bq_source_rope(&s->src, r->rope, &s->dev, &p->work);
    p->x = bq_arena_push(&s->dev.mem, p->tokens, p->hidden, BQ_F32);
    p->y = bq_arena_push(&s->dev.mem, p->tokens, p->hidden, BQ_F32);
    int64_t rows = p->micro * p->tokens;
    const int64_t size = rows * p->hidden + 1;
    p->memory = malloc((size_t)(4 * size) * sizeof *p->memory);
    BQ_CHECK(p->memory, "no memory for micro-batches of %ld samples", (long)p->micro);
    for (int k = 0; k < 2; k++) {
        p->in[k] = bq_mat_host(p->memory + (2 * k) * size, rows, p->hidden, BQ_F32);
        p->out[k] = bq_mat_host(p->memory + (2 * k + 1) * size, rows, p->hidden, BQ_F32);
    }
}

/* Files that the pipeline reads from, and those that it makes. */
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
    p->ahead = bq_reader_open(p->from, p->tokens * p->hidden, p->share.first, p->share.count, RING);
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

void bq_reference_run(bq_session *s, int64_t micro) {
    int first, last, stage = s->comm->istage;
    if (stage == 0) embed(s);
    if (s->args->split_reference) {
        bq_comm_barrier(s->comm);
        bq_reference_split(s);
        return;
    }
    if (!missing(s, &first, &last)) return;
    if (stage < first || stage > last) return;
    size_t mark = bq_arena_mark(&s->dev.mem);
    pipe_state p;
    open_pipe(&p, s, micro);
    open_files(&p, stage == first, stage < last);
    flow(&p, stage < last);
    close_files(&p);
    free(p.memory);
    bq_arena_reset(&s->dev.mem, mark);
    bq_comm_stage_barrier(s->comm);
}
