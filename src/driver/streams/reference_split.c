/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/streams/reference.h"
#include "driver/streams/stream_file.h"

#include "base/die.h"
#include "base/log.h"
#include "driver/load/through.h"
#include "io/state/stream.h"

#include <stdlib.h>

/* My share of the samples, and what takes it through the blocks. */
typedef struct {
    bq_run *s;
    bq_shard share;
    bq_stream stream;
    bq_through through;
    bq_mat buffer; /* host (T, H) */
} way;

/* starts[b]: a piece starts at block b.  lacks[b]: and its head file is not whole. */
static void look(const bq_run *s, bq_shard share, bool *starts, bool *lacks) {
    bq_piece piece[BQ_PIECES];
    for (int stage = 0; stage < s->comm->nstage; stage++) {
        int n = bq_grid_pieces(&s->grid, stage, piece);
        for (int i = 0; i < n; i++) starts[piece[i].first] = true;
    }
    for (int b = 0; b < s->grid.blocks; b++)
        lacks[b] = starts[b] && bq_comm_agree(s->comm, !bq_reference_whole(s, b, share));
}

/* Rank 0 makes the missing files before the others open them. */
static void make_files(const bq_run *s, const bool *lacks, bq_acts **files) {
    char path[BQ_PATH_MAX + 96];
    for (int b = 0; b < s->grid.blocks && s->comm->rank == 0; b++) {
        uint64_t hash = bq_reference_file(s, b, path, sizeof path);
        if (lacks[b]) bq_acts_close(bq_stream_file_new(s, path, hash));
    }
    bq_comm_barrier(s->comm);
    for (int b = 0; b < s->grid.blocks; b++) {
        if (!lacks[b]) continue;
        files[b] = bq_stream_file_open(s, path, bq_reference_file(s, b, path, sizeof path));
        BQ_CHECK(files[b],
                 "%s was made by rank 0 and cannot be opened: is the run directory shared by all nodes?",
                 path);
    }
}

static void step(void *ctx, int unit, int64_t i) {
    (void)ctx, (void)unit, (void)i;
    bq_run_stopped();
}

static void open_way(way *w, bq_run *s, bq_shard share) {
    *w = (way){.s = s, .share = share, .buffer = bq_run_room(s, 1)};
    bq_stream_open(&w->stream, share.count, w->buffer.rows, w->buffer.cols, bq_run_home(s));
    bq_through_open(&w->through, &s->src, s->recipe.rope, &s->dev, share.count, w->buffer.rows,
                    bq_run_home(s));
    w->through.buffer = w->buffer, w->through.step = step, w->through.step_ctx = s;
}

/* Read my share of a head file. */
static void take(way *w, int block) {
    char path[BQ_PATH_MAX + 96];
    bq_acts *acts = bq_stream_file_open(w->s, path, bq_reference_file(w->s, block, path, sizeof path));
    for (int64_t i = 0; i < w->share.count; i++) {
        BQ_CHECK(acts && bq_acts_read(acts, w->share.first + i, w->buffer.data), "%s is damaged", path);
        bq_stream_put(&w->stream, i, w->buffer);
    }
    bq_acts_close(acts);
}

/* Take my share through block b; write the outputs to `to` unless it is NULL.  False: a stop came. */
static bool through(way *w, int b, bq_acts *to) {
    bq_source_prefetch(&w->s->src, b + 1);
    bq_through_block(&w->through, b, w->share.count, &w->stream, &w->stream);
    for (int64_t i = 0; i < w->share.count; i++) {
        bq_mat x = bq_stream_get(&w->stream, i, w->buffer);
        bq_run_finite(w->s, x, b, w->share.first + i, "original");
        if (to) bq_acts_write(to, w->share.first + i, bq_stream_host(&w->stream, i, w->buffer).data);
        if (bq_run_stopped()) return false;
    }
    return true;
}

void bq_reference_split(bq_run *s) {
    int blocks = s->grid.blocks, first = 0, last = 0;
    bool *starts = calloc(2 * (size_t)blocks, sizeof *starts), *lacks = starts + blocks;
    bq_acts **files = calloc((size_t)blocks, sizeof(bq_acts *));
    BQ_CHECK(starts && files, "no memory for %d blocks", blocks);
    bq_shard share = bq_shard_of(s->recipe.calibration.samples, s->comm->rank, s->comm->size);
    look(s, share, starts, lacks);
    for (int b = 0; b < blocks; b++)
        if (lacks[b]) last = b;
    for (int b = 1; b <= last && !lacks[b]; b++)
        if (starts[b]) first = b;
    make_files(s, lacks, files);
    size_t mark = bq_arena_mark(&s->dev.mem);
    way w;
    open_way(&w, s, share);
    if (last > first) take(&w, first);
    bool on = true;
    for (int b = first; b < last && on; b++) {
        on = through(&w, b, files[b + 1]);
        if (s->comm->rank == 0) bq_progress(b + 1 - first, last - first, "reference");
    }
    bq_progress_end();
    for (int b = 0; b < blocks; b++) {
        if (files[b]) bq_acts_sync(files[b]);
        bq_acts_close(files[b]);
    }
    bq_through_close(&w.through);
    bq_stream_close(&w.stream);
    free(w.buffer.data);
    bq_arena_reset(&s->dev.mem, mark);
    free(starts);
    free(files);
    bq_comm_barrier(s->comm);
}
