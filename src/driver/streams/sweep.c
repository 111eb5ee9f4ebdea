/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/streams/sweep.h"

#include "base/die.h"
#include "base/shard.h"
#include "comm/treesum.h"
#include "driver/streams/boundary.h"
#include "driver/plan/grid.h"
#include "io/state/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bq_boundary end_of(int sweep, int block) { return (bq_boundary){sweep, -1, block}; }

/* The latest sweep before `end` that kept the boundary; -1: none. */
static int latest(const bq_run *s, int end, int block) {
    for (int sweep = end - 1; sweep >= 0; sweep--) {
        if (bq_boundary_kept(s, end_of(sweep, block))) return sweep;
    }
    return -1;
}

/* Open a boundary that all replicas have found whole. */
static bq_acts *open_kept(const bq_run *s, int sweep, int block) {
    bq_acts *acts = bq_boundary_open(s, end_of(sweep, block));
    BQ_CHECK(acts,
             "the boundary before block %d in sweep %d cannot be opened: is the run directory shared by all "
             "nodes?",
             block, sweep);
    return acts;
}

/* Have a boundary's files of two sweeps the same bytes? */
static bool equal(const bq_run *s, int a, int b, int block) {
    int64_t t = s->recipe.calibration.length;
    bq_shard share = bq_run_share(s);
    bq_mat room = bq_run_room(s, 2), x = bq_mat_rows(room, 0, t), y = bq_mat_rows(room, t, t);
    bq_acts *fa = open_kept(s, a, block), *fb = open_kept(s, b, block);
    bool same = true;
    for (int64_t i = share.first; i < share.first + share.count && same; i++) {
        bq_boundary_read(fa, end_of(a, block), i, x), bq_boundary_read(fb, end_of(b, block), i, y);
        same = memcmp(x.data, y.data, bq_mat_bytes(x)) == 0;
    }
    bq_acts_close(fa);
    bq_acts_close(fb);
    free(room.data);
    return bq_run_all(s, same);
}

bool bq_sweep_frozen(const bq_run *s, int sweep, int block) {
    if (sweep == 0) return false;
    if (block == 0) return true;
    int head = latest(s, sweep, block);
    if (head < sweep - 1) return true; /* the segment before it was frozen, so this head is the old one */
    int before = latest(s, head, block);
    return before >= 0 && equal(s, head, before, block);
}

bool bq_sweep_head(const bq_run *s, int sweep, int block, bq_stream *qt, bq_mat buffer) {
    int from = block ? latest(s, sweep, block) : -1;
    if (from >= 0) bq_boundary_load(s, end_of(from, block), qt, buffer);
    return from >= 0;
}

bool bq_sweep_kept(const bq_run *s, int sweep, int block) {
    return bq_boundary_kept(s, end_of(sweep, block));
}

void bq_sweep_keep(const bq_run *s, int sweep, int block, const bq_stream *qt, bq_mat buffer) {
    bq_boundary_keep(s, end_of(sweep, block), qt, buffer);
}

/* Add |now - then|^2 to sum[0] and |then|^2 to sum[1]. */
static void add_squares(bq_mat now, bq_mat then, double sum[2]) {
    for (int64_t e = 0; e < now.rows * now.cols; e++) {
        double x = (double)bq_f32(then)[e], d = (double)bq_f32(now)[e] - x;
        sum[0] += d * d, sum[1] += x * x;
    }
}

double bq_sweep_moved(const bq_run *s, int sweep, int block, const bq_stream *fp, bq_mat a, bq_mat b) {
    bq_shard share = bq_run_share(s);
    int before = latest(s, sweep, block);
    bq_acts *now = bq_sweep_kept(s, sweep, block) ? open_kept(s, sweep, block) : NULL,
            *then = before >= 0 ? open_kept(s, before, block) : NULL;
    double *sums = calloc(2 * (size_t)share.total, sizeof *sums), moved = 0, size = 0;
    BQ_CHECK(sums, "no memory for %ld sums", (long)share.total);
    for (int64_t i = 0; i < share.count && now && (then || fp); i++) {
        bq_boundary_read(now, end_of(sweep, block), share.first + i, a);
        if (then) bq_boundary_read(then, end_of(before, block), share.first + i, b);
        add_squares(a, then ? b : bq_stream_host(fp, i, b), sums + 2 * (share.first + i));
    }
    bq_comm_fill(s->comm, sums, 2 * share.total);
    for (int64_t i = 0; i < share.total; i++) moved += sums[2 * i], size += sums[2 * i + 1];
    bq_acts_close(now);
    bq_acts_close(then);
    free(sums);
    return size > 0 ? sqrt(moved / size) : 0;
}

bool bq_sweep_settled(const bq_run *s, int sweep) {
    int64_t t = s->recipe.calibration.length;
    int blocks = s->src.arch.model.blocks;
    bq_shard mine = bq_grid_blocks(&s->grid, s->comm->istage);
    if (sweep == 0 || s->recipe.tolerance == 0) return false;
    bq_mat room = bq_run_room(s, 2), a = bq_mat_rows(room, 0, t), b = bq_mat_rows(room, t, t);
    double most = 0;
    for (int64_t block = mine.first + 1; block <= mine.first + mine.count && block < blocks; block++)
        if (bq_grid_is_start(&s->grid, (int)block))
            most = fmax(most, bq_sweep_moved(s, sweep, (int)block, NULL, a, b));
    free(room.data);
    return bq_comm_agree(s->comm, most > s->recipe.tolerance) == 0;
}

int bq_sweep_latest(const bq_run *s, int phase, int block, int end) {
    char path[BQ_PATH_MAX + 64];
    for (int sweep = end - 1; sweep >= 0; sweep--) {
        bq_ckpt_path(path, sizeof path, s->dir, sweep, phase, block);
        if (!bq_fault("sweep_late") && bq_ckpt_peek(path, s->fingerprint) == BQ_CKPT_OK) return sweep;
    }
    return -1;
}

int bq_sweep_start(const bq_run *s, int phase, int block, int end) {
    int sweep = s->comm->replica ? -1 : bq_sweep_latest(s, phase, block, end);
    bq_comm_stage_bcast(s->comm, &sweep, sizeof sweep);
    return sweep;
}

void bq_sweep_results(bq_run *s) {
    int blocks = s->src.arch.model.blocks;
    s->latest = calloc((size_t)blocks, sizeof *s->latest);
    BQ_CHECK(s->latest, "no memory for %d blocks", blocks);
    for (int b = 0; b < blocks && s->recipe.sweeps > 1; b++)
        s->latest[b] = bq_comm_agree(s->comm, bq_sweep_latest(s, s->recipe.nphase - 1, b, s->recipe.sweeps));
}
