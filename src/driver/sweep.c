#include "driver/sweep.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/shard.h"
#include "comm/treesum.h"
#include "driver/grid.h"
#include "driver/reference.h"
#include "io/acts.h"
#include "io/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(const bq_session *s, int sweep, int block) {
    const uint64_t of[] = {s->fingerprint, (uint64_t)sweep, (uint64_t)block};
    return bq_hash_bytes(of, sizeof of);
}

static void path_of(const bq_session *s, int sweep, int block, char *path, size_t n) {
    snprintf(path, n, "%s/acts/qt_%03d.s%d.h5", s->dir, block, sweep);
}

/* The boundary file with every sample in it, or NULL. */
static bq_acts *open_boundary(const bq_session *s, int sweep, int block) {
    char path[BQ_PATH_MAX + 32];
    path_of(s, sweep, block, path, sizeof path);
    bq_acts *acts = bq_reference_open(s, path, hash_of(s, sweep, block));
    if (acts && bq_acts_count(acts) == s->recipe.calibration.samples) return acts;
    bq_acts_close(acts);
    return NULL;
}

/* The latest boundary kept in sweeps before `end`; -1: none. */
static int latest(const bq_session *s, int end, int block) {
    for (int sweep = end - 1; sweep >= 0; sweep--) {
        bq_acts *acts = open_boundary(s, sweep, block);
        bq_acts_close(acts);
        if (acts) return sweep;
    }
    return -1;
}

static void read_sample(bq_acts *acts, int64_t sample, bq_mat to, int block) {
    BQ_CHECK(bq_acts_read(acts, sample, to.data),
             "sample %ld of the boundary before block %d is damaged: remove acts/qt_%03d.*", (long)sample,
             block, block);
}

/* Are two boundaries the same, byte by byte? */
static bool equal(const bq_session *s, int a, int b, int block) {
    int64_t t = s->recipe.calibration.length, h = s->src.arch.model.hidden;
    float *memory = malloc((size_t)(2 * t * h) * sizeof *memory);
    BQ_CHECK(memory, "no memory for two samples of %ld x %ld", (long)t, (long)h);
    bq_mat x = bq_mat_host(memory, t, h, BQ_F32), y = bq_mat_host(memory + t * h, t, h, BQ_F32);
    bq_acts *fa = open_boundary(s, a, block), *fb = open_boundary(s, b, block);
    bool same = fa && fb;
    for (int64_t i = 0; i < s->recipe.calibration.samples && same; i++) {
        read_sample(fa, i, x, block), read_sample(fb, i, y, block);
        same = memcmp(x.data, y.data, bq_mat_bytes(x)) == 0;
    }
    bq_acts_close(fa);
    bq_acts_close(fb);
    free(memory);
    return same;
}

bool bq_sweep_frozen(const bq_session *s, int sweep, int block) {
    if (sweep == 0) return false;
    if (block == 0) return true;
    int head = latest(s, sweep, block);
    if (head < sweep - 1) return true; /* the segment before it was frozen: nothing has come since */
    int before = latest(s, head, block);
    return before >= 0 && equal(s, head, before, block);
}

bool bq_sweep_head(const bq_session *s, int sweep, int block, bq_stream *qt, bq_mat buffer) {
    int from = block ? latest(s, sweep, block) : -1;
    if (from < 0) return false;
    bq_shard share = bq_shard_of(s->recipe.calibration.samples, s->comm->replica, s->comm->nreplica);
    bq_acts *acts = open_boundary(s, from, block);
    for (int64_t i = 0; i < share.count; i++) {
        read_sample(acts, share.first + i, buffer, block);
        bq_stream_put(qt, i, buffer);
    }
    bq_acts_close(acts);
    return true;
}

bool bq_sweep_kept(const bq_session *s, int sweep, int block) {
    bq_acts *acts = open_boundary(s, sweep, block);
    bq_acts_close(acts);
    return acts != NULL;
}

void bq_sweep_keep(const bq_session *s, int sweep, int block, const bq_stream *qt, bq_mat buffer) {
    char path[BQ_PATH_MAX + 32];
    bool there = bq_sweep_kept(s, sweep, block);
    bq_comm_stage_bcast(s->comm, &there, sizeof there);
    if (there) return;
    path_of(s, sweep, block, path, sizeof path);
    bq_shard share = bq_shard_of(s->recipe.calibration.samples, s->comm->replica, s->comm->nreplica);
    bq_acts *acts = bq_reference_make(s, path, hash_of(s, sweep, block));
    for (int64_t i = 0; i < share.count; i++)
        bq_acts_write(acts, share.first + i, bq_stream_get(qt, i, buffer).data);
    bq_acts_sync(acts);
    bq_acts_close(acts);
    bq_comm_stage_barrier(s->comm);
}

/* now, the head it replaces: sums of the squared difference and of the head's squares. */
static void add_squares(bq_mat now, bq_mat then, double sum[2]) {
    for (int64_t e = 0; e < now.rows * now.cols; e++) {
        double x = (double)bq_f32(then)[e], d = (double)bq_f32(now)[e] - x;
        sum[0] += d * d, sum[1] += x * x;
    }
}

double bq_sweep_moved(const bq_session *s, int sweep, int block, const bq_stream *fp, bq_mat a, bq_mat b) {
    bq_shard share = bq_shard_of(s->recipe.calibration.samples, s->comm->replica, s->comm->nreplica);
    int before = latest(s, sweep, block);
    bq_acts *now = open_boundary(s, sweep, block),
            *then = before >= 0 ? open_boundary(s, before, block) : NULL;
    double *sums = calloc(2 * (size_t)share.total, sizeof *sums), moved = 0, size = 0;
    BQ_CHECK(sums, "no memory for %ld sums", (long)share.total);
    for (int64_t i = 0; i < share.count && now && (then || fp); i++) {
        read_sample(now, share.first + i, a, block);
        if (then) read_sample(then, share.first + i, b, block);
        add_squares(a, then ? b : bq_stream_get(fp, i, b), sums + 2 * (share.first + i));
    }
    bq_comm_fill(s->comm, sums, (int)(2 * share.total));
    for (int64_t i = 0; i < share.total; i++) moved += sums[2 * i], size += sums[2 * i + 1];
    bq_acts_close(now);
    bq_acts_close(then);
    free(sums);
    return size > 0 ? sqrt(moved / size) : 0;
}

bool bq_sweep_settled(const bq_session *s, int sweep) {
    int64_t t = s->recipe.calibration.length, h = s->src.arch.model.hidden;
    int blocks = s->src.arch.model.blocks;
    bq_shard mine = bq_grid_blocks(&s->recipe, blocks, s->comm->istage, s->comm->nstage);
    if (sweep == 0 || s->recipe.tolerance == 0) return false;
    float *memory = malloc((size_t)(2 * t * h) * sizeof *memory);
    BQ_CHECK(memory, "no memory for two samples of %ld x %ld", (long)t, (long)h);
    bq_mat a = bq_mat_host(memory, t, h, BQ_F32), b = bq_mat_host(memory + t * h, t, h, BQ_F32);
    double most = 0;
    for (int64_t block = mine.first + 1; block <= mine.first + mine.count && block < blocks; block++)
        if (bq_grid_is_start(&s->recipe, blocks, (int)block))
            most = fmax(most, bq_sweep_moved(s, sweep, (int)block, NULL, a, b));
    free(memory);
    return bq_comm_agree(s->comm, most > s->recipe.tolerance) == 0;
}

int bq_sweep_latest(const bq_session *s, int phase, int block, int end) {
    char path[BQ_PATH_MAX + 64];
    for (int sweep = end - 1; sweep >= 0; sweep--) {
        bq_ckpt_path(path, sizeof path, s->dir, sweep, phase, block);
        if (bq_ckpt_peek(path, s->fingerprint) == BQ_CKPT_OK) return sweep;
    }
    return -1;
}
