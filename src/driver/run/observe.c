/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/observe.h"

#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "driver/load/through.h"
#include "driver/recipe/keys.h"
#include "driver/run/result.h"
#include "driver/score/observed.h"
#include "driver/score/range.h"
#include "io/files.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- where numbers are ---- */

/* Before a unit, in the file. */
static int64_t numbers_before(const bq_run *s, int block, int unit) {
    int64_t sum = 0;
    for (int b = 0; b <= block; b++) {
        int experts = b < block ? bq_source_arch(&s->src, b)->experts : unit - 1;
        if (b < block || unit) sum += bq_observed_numbers(&s->recipe, bq_source_core(&s->src, b));
        if (experts > 0) sum += experts * bq_observed_numbers(&s->recipe, &s->src.expert);
    }
    return sum;
}

static void path_of(const bq_run *s, char path[BQ_PATH_MAX + 32]) {
    snprintf(path, BQ_PATH_MAX + 32, "%s/ckpt/observed.f32", s->dir);
}

static uint64_t tag_of(const bq_run *s) {
    json_t *recipe = bq_keys_json(&s->recipe, false), *bits = json_object_get(recipe, "bits");
    json_object_del(bits, "kv");
    char *text = json_dumps(bits, JSON_COMPACT);
    BQ_CHECK(text, "no memory for a hash");
    const uint64_t of[] = {bq_run_tag(s), bq_hash_text(text)};
    free(text);
    json_decref(recipe);
    return bq_hash_bytes(of, sizeof of);
}

/* Is the hash behind the numbers that of the run's tokens?  The fingerprint has it only where passes read
 * samples.  eval and export have no tokens to compare it with. */
static bool same_tokens(const bq_run *s, int fd, int64_t at) {
    uint64_t hash;
    return bq_raw_read(fd, &hash, sizeof hash, at) && (!s->calibration.ids || hash == s->calibration.hash);
}

/* Open the file to read; -1: it is not there, or not this run's. */
static int open_whole(const bq_run *s, bool every) {
    char path[BQ_PATH_MAX + 32];
    int fd;
    int64_t size, bytes = numbers_before(s, s->src.arch.model.blocks, 0) * (int64_t)sizeof(float);
    uint64_t tag;
    path_of(s, path);
    if (bq_file_open_own(path, O_RDONLY, &fd)) return -1;
    if (bq_seal_check(fd, every, &size, &tag) && tag == tag_of(s) &&
        size == bytes + (int64_t)sizeof s->calibration.hash && same_tokens(s, fd, bytes))
        return fd;
    close(fd);
    return -1;
}

bool bq_observe_there(const bq_run *s) {
    int fd = open_whole(s, true);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

static void read_numbers(const bq_run *s, int64_t first, int64_t count, float *to) {
    int fd = open_whole(s, false);
    BQ_CHECK(fd >= 0 && bq_raw_read(fd, to, (size_t)count * sizeof *to, first * (int64_t)sizeof *to),
             "'%s/ckpt/observed.f32' has gone or changed: `blockq run` makes it again", s->dir);
    close(fd);
}

void bq_observe_site(const bq_run *s, int block, int unit, int site, float *to) {
    const bq_arch *arch = bq_run_layout(s, block, unit)->arch;
    int64_t at = numbers_before(s, block, unit) + bq_observed_maxima(&s->recipe, arch);
    for (int m = 0; m < site; m++) at += 1 + arch->site[m].cols;
    read_numbers(s, at, 1 + arch->site[site].cols, to);
}

/* The scales of keys and values of all blocks. */
static void load_cache(bq_run *s) {
    const bq_model *m = &s->src.arch.model;
    const bq_rounding how = bq_recipe_cache(&s->recipe, m);
    const int64_t each = 2 * bq_observed_heads(&s->recipe, &s->src.arch), count = m->blocks * each;
    s->kv = malloc((size_t)count * sizeof *s->kv);
    BQ_CHECK(s->kv, "no memory for the scales of %d blocks", m->blocks);
    for (int b = 0; b < m->blocks && s->comm->rank == 0; b++)
        read_numbers(s, numbers_before(s, b, 0), each, s->kv + b * each);
    for (int64_t i = 0; i < count && s->comm->rank == 0; i++)
        s->kv[i] = bq_grid_of_ends(0, s->kv[i], how).scale;
    bq_comm_bcast(s->comm, s->kv, (size_t)count * sizeof *s->kv);
}

/* An expert without tokens gets the widest range that others of its block have: an output has numbers for
 * it. */
static void widen_experts(float *ends, int experts, int each) {
    float widest[2 * BQ_SITES] = {0};
    for (int i = 0; i < experts * each; i++) widest[i % each] = fmaxf(widest[i % each], ends[i]);
    for (int i = 0; i < experts * each; i += 2)
        if (ends[i] == 0 && ends[i + 1] == 0) memcpy(ends + i, widest + i % each, 2 * sizeof *ends);
}

/* The ends of the inputs of all units of a block; then their grids.  Inputs without a range stay as they
 * are. */
static void load_block(bq_run *s, int block) {
    const bq_arch *core = bq_source_core(&s->src, block);
    float *first = s->grids + 2 * bq_through_sites(&s->src, block, 0),
          *end = s->grids + 2 * bq_through_sites(&s->src, block + 1, 0);
    for (int u = 0; u <= core->experts; u++) {
        const bq_arch *arch = bq_run_layout(s, block, u)->arch;
        int64_t at = numbers_before(s, block, u) + 2 * bq_observed_heads(&s->recipe, arch);
        read_numbers(s, at, 2 * arch->sites, s->grids + 2 * bq_through_sites(&s->src, block, u));
    }
    if (core->experts) widen_experts(first + 2 * core->sites, core->experts, 2 * s->src.expert.sites);
    for (float *grid = first; grid < end; grid += 2) {
        const bool none = grid[0] == 0 && grid[1] == 0;
        const bq_ends_grid of = bq_grid_of_ends(-grid[0], grid[1], bq_recipe_inputs(&s->recipe));
        grid[0] = none ? 0 : of.scale, grid[1] = none ? 0 : of.zero;
    }
}

static void load_inputs(bq_run *s) {
    const int blocks = s->src.arch.model.blocks;
    const int64_t count = 2 * bq_through_sites(&s->src, blocks, 0);
    s->grids = malloc((size_t)count * sizeof *s->grids);
    BQ_CHECK(s->grids, "no memory for the grids of %d blocks", blocks);
    for (int b = 0; b < blocks && s->comm->rank == 0; b++) load_block(s, b);
    bq_comm_bcast(s->comm, s->grids, (size_t)count * sizeof *s->grids);
}

void bq_observe_scales(bq_run *s) {
    if (bq_recipe_cache_measured(&s->recipe)) load_cache(s);
    if (bq_recipe_inputs_measured(&s->recipe)) load_inputs(s);
}

/* ---- the walk ---- */

typedef struct {
    bq_run *s;
    bq_through t;
    bq_shard share;
    bq_mat room; /* device (1, numbers of a unit) */
    bq_mat
        bins; /* device (1, BQ_BINS) i32; no data where ranges do not come from histograms, as the next two */
    int32_t *bin; /* of a site of a sample */
    int64_t
        *count;  /* (BQ_SITES, BQ_BINS): of the samples so far; on rank 0 behind them those of another rank */
    float *row;  /* of each sample of my share; on rank 0 of one sample, and of another rank's share */
    double *sum; /* rank 0: of the samples so far */
    int fd;      /* rank 0: of the file */
    int64_t size; /* its bytes */
    int block;
} walk;

static float *get_numbers(walk *w, bq_mat m, float *to) {
    w->s->dev.op->get(&w->s->dev, m, bq_mat_host(to, 1, m.cols, BQ_F32));
    return to + m.cols;
}

/* -lo and hi of each group of columns. */
static void get_ends(walk *w, bq_mat x, int64_t groups, float *to) {
    bq_dev *dev = &w->s->dev;
    bq_mat ends = bq_mat_cols(w->room, 0, 2 * groups);
    ends.ld = ends.cols; /* one row */
    dev->op->zero(dev, ends);
    dev->op->ends(dev, x, x.cols / groups, bq_mat_reshape(ends, 2));
    get_numbers(w, ends, to);
    dev->op->wait(dev);
    for (int64_t g = 0; g < groups; g++) to[2 * g] = -to[2 * g];
}

/* The largest |value| of each group of columns; as many numbers behind them are overwritten. */
static float *get_largest(walk *w, bq_mat x, int64_t groups, float *to) {
    get_ends(w, x, groups, to);
    for (int64_t g = 0; g < groups; g++) to[g] = fmaxf(to[2 * g], to[2 * g + 1]);
    return to + groups;
}

static void count_values(walk *w, bq_mat x, int64_t *count) {
    bq_dev *dev = &w->s->dev;
    dev->op->zero(dev, w->bins);
    dev->op->histogram(dev, x, w->bins);
    dev->op->get(dev, w->bins, bq_mat_host(w->bin, 1, BQ_BINS, BQ_I32));
    dev->op->wait(dev);
    for (int b = 0; b < BQ_BINS; b++) count[b] += w->bin[b];
}

/* The numbers of the forward that the workspace has, of n tokens. */
static void observe(walk *w, const bq_arch *arch, const bq_work *k, int64_t n, float *to) {
    bq_dev *dev = &w->s->dev;
    bool expert = arch->kind == BQ_UNIT_EXPERT;
    int64_t heads = bq_observed_heads(&w->s->recipe, arch);
    float *end = to + 2 * heads;
    memset(to, 0, (size_t)bq_observed_maxima(&w->s->recipe, arch) * sizeof *to);
    if (!expert && !arch->model.kv_rank) {
        bq_heads h = bq_block_split(&arch->model, k->qkv);
        get_largest(w, h.v, heads, get_largest(w, h.k, heads, to));
    }
    to += bq_observed_maxima(&w->s->recipe, arch);
    for (int m = 0; m < arch->sites; m++) {
        bool gate_up = arch->site[m].role == BQ_GATE_UP;
        bq_mat x = bq_mat_rows(expert && gate_up ? k->x : bq_block_input(arch, k, m), 0, n),
               sum = bq_mat_cols(w->room, 0, x.cols);
        if (bq_recipe_inputs_measured(&w->s->recipe)) get_ends(w, x, 1, end + 2 * m);
        if (w->count) count_values(w, x, w->count + m * BQ_BINS);
        *to++ = (float)n;
        dev->op->column_squares(dev, x, sum);
        to = get_numbers(w, sum, to);
    }
    dev->op->wait(dev);
}

/* Rank 0: take a sample's numbers into those of the samples before it.  Maxima skip NaN, sums do not. */
static void join(walk *w, const float *row, int64_t maxima, int64_t numbers) {
    for (int64_t i = 0; i < numbers; i++)
        w->sum[i] = i >= maxima ? w->sum[i] + row[i] : row[i] > w->sum[i] ? row[i] : w->sum[i];
}

/* Counts as messages have them. */
static float *as_floats(int64_t *count) { return (float *)(void *)count; }
enum { COUNTS = BQ_SITES * BQ_BINS, FLOATS = 2 * COUNTS };

/* Rank 0: narrow the ranges of a unit's inputs, which row has, by the histograms of all ranks. */
static void narrow(walk *w, const bq_arch *arch, float *row) {
    const bq_recipe *r = &w->s->recipe;
    row += 2 * bq_observed_heads(r, arch);
    for (int m = 0; m < arch->sites; m++, row += 2) {
        float lo = -row[0];
        bq_range_narrow(w->count + m * BQ_BINS, &r->bits.activations, bq_recipe_inputs(r), &lo, row + 1);
        row[0] = -lo;
    }
    memset(w->count, 0, COUNTS * sizeof *w->count);
}

/* Rank 0: take the samples of the other ranks, and write what all have together. */
static void finish_unit(walk *w, const bq_arch *arch, int64_t numbers) {
    const bq_comm *comm = w->s->comm;
    const int64_t maxima = bq_observed_maxima(&w->s->recipe, arch);
    MPI_Request request;
    for (int r = 1; r < comm->size; r++) {
        int64_t count = bq_shard_of(w->share.total, r, comm->size).count;
        if (!count) continue;
        bq_comm_receive(comm, r, w->row, count * numbers, &request);
        bq_comm_wait(&request, 1);
        for (int64_t i = 0; i < count; i++) join(w, w->row + i * numbers, maxima, numbers);
        if (!w->count) continue;
        bq_comm_receive(comm, r, as_floats(w->count + COUNTS), FLOATS, &request);
        bq_comm_wait(&request, 1);
        for (int64_t i = 0; i < COUNTS; i++) w->count[i] += w->count[COUNTS + i];
    }
    for (int64_t i = 0; i < numbers; i++) {
        w->row[i] = (float)w->sum[i], w->sum[i] = 0;
        if (!isfinite(w->row[i]))
            bq_refuse_job(
                BQ_DATA,
                "%s: block %d/%d: keys, values or inputs of linears have %g: the weights are damaged, "
                "or too large for f32",
                w->s->src.dir, w->block + 1, w->s->src.arch.model.blocks, (double)w->row[i]);
    }
    if (w->count) narrow(w, arch, w->row);
    size_t bytes = (size_t)numbers * sizeof *w->row;
    BQ_CHECK(bq_raw_write(w->fd, w->row, bytes, w->size), "write of '%s/ckpt/observed.f32' failed: %s",
             w->s->dir, strerror(errno));
    w->size += (int64_t)bytes;
}

static void step(void *ctx, int unit, int64_t i) {
    walk *w = ctx;
    const bq_comm *comm = w->s->comm;
    const bq_arch *arch = unit ? &w->t.expert : bq_source_core(&w->s->src, w->block);
    int64_t numbers = bq_observed_numbers(&w->s->recipe, arch), n = w->s->recipe.calibration.length;
    float *row = w->row + (comm->rank ? i * numbers : 0);
    char note[64];
    if (unit) bq_routed_rows(&w->t.routed, i, unit - 1, &n);
    observe(w, arch, unit ? &w->t.inside : &w->t.work, n, row);
    bq_heartbeat();
    if (comm->rank == 0) join(w, row, bq_observed_maxima(&w->s->recipe, arch), numbers);
    if (i + 1 < w->share.count) return;
    if (comm->rank == 0) {
        finish_unit(w, arch, numbers);
    } else {
        MPI_Request request[2];
        bq_comm_send(comm, 0, w->row, w->share.count * numbers, request);
        if (w->count) bq_comm_send(comm, 0, as_floats(w->count), FLOATS, request + 1);
        bq_comm_wait(request, w->count ? 2 : 1);
        if (w->count) memset(w->count, 0, COUNTS * sizeof *w->count);
    }
    snprintf(note, sizeof note, "keys, values and inputs  block %d/%d", w->block + 1,
             w->s->src.arch.model.blocks);
    bq_progress(w->block + 1, w->s->src.arch.model.blocks, note);
}

/* False on all ranks: a stop came to one. */
static bool blocks(walk *w, bq_stream *stream, bq_mat buffer) {
    bq_run *s = w->s;
    const bq_recipe *r = &s->recipe;
    bool stop = false, prescaled = bq_recipe_prescaled(r);
    bq_through_open(&w->t, &s->src, r->rope, &s->dev, w->share.count, r->calibration.length, bq_run_home(s));
    w->t.buffer = buffer, w->t.step = step, w->t.step_ctx = w;
    w->t.layouts = &s->layouts, w->t.weights = bq_result_weights, w->t.ctx = s;
    if (!bq_recipe_inputs_measured(r)) w->t.work.inputs = bq_recipe_inputs(r);
    bq_quantized_push_any(&w->t.q, &s->layouts, prescaled, &s->dev.mem);
    for (w->block = 0; w->block < s->src.arch.model.blocks && !stop; w->block++) {
        stop = bq_comm_agree(s->comm, bq_run_stopped());
        if (!stop) bq_through_block(&w->t, w->block, w->share.count, stream, stream);
    }
    bq_through_close(&w->t);
    return !stop;
}

static void open_counts(walk *w) {
    if (!bq_observed_counts(&w->s->recipe)) return;
    w->bins = bq_arena_push(&w->s->dev.mem, 1, BQ_BINS, BQ_I32);
    w->bin = malloc(BQ_BINS * sizeof *w->bin);
    w->count = calloc((size_t)COUNTS * (w->s->comm->rank ? 1 : 2), sizeof *w->count);
    BQ_CHECK(w->bin && w->count, "no memory for histograms of %d bins", BQ_BINS);
}

static bool whole_walk(walk *w) {
    bq_run *s = w->s;
    const int64_t numbers = bq_observed_most(&s->recipe, &s->layouts), hidden = s->src.arch.model.hidden;
    size_t mark = bq_arena_mark(&s->dev.mem);
    bq_stream stream;
    bq_mat buffer = bq_run_room(s, 1);
    w->share = bq_shard_of(s->recipe.calibration.samples, s->comm->rank, s->comm->size);
    w->row = malloc((size_t)(numbers * (w->share.count + 1)) * sizeof *w->row);
    w->sum = calloc((size_t)numbers, sizeof *w->sum);
    BQ_CHECK(w->row && w->sum, "no memory for the numbers of %ld samples", (long)w->share.count);
    bq_stream_open(&stream, w->share.count, buffer.rows, hidden, bq_run_home(s));
    w->room = bq_arena_push(&s->dev.mem, 1, numbers, BQ_F32);
    open_counts(w);
    for (int64_t i = 0; i < w->share.count; i++)
        bq_run_embed(s, w->share.first + i, true, buffer, &stream, i);
    bool whole = blocks(w, &stream, buffer);
    bq_progress_end();
    bq_stream_close(&stream);
    free(buffer.data);
    free(w->row);
    free(w->sum);
    free(w->bin);
    free(w->count);
    bq_arena_reset(&s->dev.mem, mark);
    return whole;
}

int bq_observe_run(bq_run *s) {
    char path[BQ_PATH_MAX + 32], temp[BQ_PATH_MAX + 64];
    walk w = {.s = s, .fd = -1};
    bool root = s->comm->rank == 0;
    if (!bq_observed_wanted(&s->recipe)) return BQ_OK;
    if (!bq_comm_agree(s->comm, root && !bq_observe_there(s))) return BQ_OK;
    path_of(s, path);
    bq_temp_name(temp, sizeof temp, path);
    int error = root ? bq_file_create(temp, &w.fd) : 0;
    BQ_CHECK(!error, "'%s' cannot be made: %s", temp, bq_file_why(error));
    bool whole = whole_walk(&w);
    if (root && whole) {
        const uint64_t hash = s->calibration.hash;
        bool good = bq_raw_write(w.fd, &hash, sizeof hash, w.size);
        good = good && bq_seal_append(w.fd, w.size + (int64_t)sizeof hash, tag_of(s));
        BQ_CHECK(good, "write of '%s' failed: %s", temp, strerror(errno));
        error = bq_raw_sync(w.fd);
        if (!error) error = bq_file_rename(temp, path);
        BQ_CHECK(!error, "write of '%s' failed: %s", path, bq_file_why(error));
    }
    if (root) close(w.fd), unlink(temp);
    bq_comm_barrier(s->comm);
    return whole ? BQ_OK : BQ_STOPPED;
}
