#include "driver/run/observe.h"

#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "driver/load/through.h"
#include "driver/recipe/keys.h"
#include "driver/run/result.h"
#include "driver/score/observed.h"
#include "io/files.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FP8_LARGEST 448.0f /* of e4m3 */

/* ---- where numbers are ---- */

/* Before a unit, in the file. */
static int64_t numbers_before(const bq_run *s, int block, int unit) {
    int64_t sum = 0;
    for (int b = 0; b <= block; b++) {
        int experts = b < block ? bq_source_arch(&s->src, b)->experts : unit - 1;
        if (b < block || unit) sum += bq_observed_numbers(bq_source_core(&s->src, b));
        if (experts > 0) sum += experts * bq_observed_numbers(&s->src.expert);
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
    const uint64_t of[] = {s->fingerprint, bq_hash_text(text)};
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
    int64_t at = numbers_before(s, block, unit) + BQ_OBSERVED_SITES;
    for (int m = 0; m < site; m++) at += 1 + arch->site[m].cols;
    read_numbers(s, at, 1 + arch->site[site].cols, to);
}

void bq_observe_scales(bq_run *s) {
    const int blocks = s->src.arch.model.blocks;
    if (s->recipe.bits.kv == 16) return;
    s->kv = malloc((size_t)blocks * 2 * sizeof *s->kv);
    BQ_CHECK(s->kv, "no memory for the scales of %d blocks", blocks);
    for (int b = 0; b < blocks && s->comm->rank == 0; b++)
        read_numbers(s, numbers_before(s, b, 0), 2, s->kv + 2 * b);
    for (int i = 0; i < 2 * blocks && s->comm->rank == 0; i++)
        s->kv[i] = s->kv[i] > 0 ? s->kv[i] / FP8_LARGEST : FLT_EPSILON;
    bq_comm_bcast(s->comm, s->kv, (size_t)blocks * 2 * sizeof *s->kv);
}

/* ---- the walk ---- */

typedef struct {
    bq_run *s;
    bq_through t;
    bq_shard share;
    bq_mat room;  /* device (1, numbers of a unit) */
    float *row;   /* of each sample of my share; on rank 0 of one sample, and of another rank's share */
    double *sum;  /* rank 0: of the samples so far */
    int fd;       /* rank 0: of the file */
    int64_t size; /* its bytes */
    int block;
} walk;

static float *get_numbers(walk *w, bq_mat m, float *to) {
    w->s->dev.op->get(&w->s->dev, m, bq_mat_host(to, 1, m.cols, BQ_F32));
    return to + m.cols;
}

static void get_largest(walk *w, bq_mat x, float *to) {
    bq_dev *dev = &w->s->dev;
    bq_mat most = bq_mat_cols(w->room, 0, x.cols);
    dev->op->set(dev, most, 0);
    dev->op->column_max(dev, x, 0, most);
    dev->op->head_max(dev, most, 1);
    get_numbers(w, bq_mat_cols(most, 0, 1), to);
}

/* The numbers of the forward that the workspace has, of n tokens. */
static void observe(walk *w, const bq_arch *arch, const bq_work *k, int64_t n, float *to) {
    bq_dev *dev = &w->s->dev;
    bool expert = arch->kind == BQ_UNIT_EXPERT;
    to[BQ_OBSERVED_KEY] = to[BQ_OBSERVED_VALUE] = 0;
    if (!expert && !arch->model.kv_rank) {
        bq_heads h = bq_block_split(&arch->model, k->qkv);
        get_largest(w, h.k, to + BQ_OBSERVED_KEY), get_largest(w, h.v, to + BQ_OBSERVED_VALUE);
    }
    to += BQ_OBSERVED_SITES;
    for (int m = 0; m < arch->sites; m++) {
        bool gate_up = arch->site[m].role == BQ_GATE_UP;
        bq_mat x = expert && gate_up ? k->x : bq_block_input(arch, k, m),
               sum = bq_mat_cols(w->room, 0, x.cols);
        *to++ = (float)n;
        dev->op->column_squares(dev, bq_mat_rows(x, 0, n), sum);
        to = get_numbers(w, sum, to);
    }
    dev->op->wait(dev);
}

/* Rank 0: take a sample's numbers into those of the samples before it.  Maxima skip NaN, sums do not. */
static void join(walk *w, const float *row, int64_t numbers) {
    for (int64_t i = 0; i < numbers; i++)
        w->sum[i] = i >= BQ_OBSERVED_SITES ? w->sum[i] + row[i] : row[i] > w->sum[i] ? row[i] : w->sum[i];
}

/* Rank 0: take the samples of the other ranks, and write what all have together. */
static void finish_unit(walk *w, int64_t numbers) {
    const bq_comm *comm = w->s->comm;
    MPI_Request request;
    for (int r = 1; r < comm->size; r++) {
        int64_t count = bq_shard_of(w->share.total, r, comm->size).count;
        if (!count) continue;
        bq_comm_receive(comm, r, w->row, count * numbers, &request);
        bq_comm_wait(comm, &request, 1);
        for (int64_t i = 0; i < count; i++) join(w, w->row + i * numbers, numbers);
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
    size_t bytes = (size_t)numbers * sizeof *w->row;
    BQ_CHECK(bq_raw_write(w->fd, w->row, bytes, w->size), "write of '%s/ckpt/observed.f32' failed: %s",
             w->s->dir, strerror(errno));
    w->size += (int64_t)bytes;
}

static void step(void *ctx, int unit, int64_t i) {
    walk *w = ctx;
    const bq_comm *comm = w->s->comm;
    const bq_arch *arch = unit ? &w->t.expert : bq_source_core(&w->s->src, w->block);
    int64_t numbers = bq_observed_numbers(arch), n = w->s->recipe.calibration.length;
    float *row = w->row + (comm->rank ? i * numbers : 0);
    char note[64];
    if (unit) bq_routed_rows(&w->t.routed, i, unit - 1, &n);
    observe(w, arch, unit ? &w->t.inside : &w->t.work, n, row);
    bq_heartbeat(comm);
    if (comm->rank == 0) join(w, row, numbers);
    if (i + 1 < w->share.count) return;
    if (comm->rank == 0) {
        finish_unit(w, numbers);
    } else {
        MPI_Request request;
        bq_comm_send(comm, 0, w->row, w->share.count * numbers, &request);
        bq_comm_wait(comm, &request, 1);
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
    w->t.work.activations = bq_recipe_activations(r), w->t.work.token_group = bq_recipe_token_group(r);
    bq_quantized_push_any(&w->t.q, &s->layouts, prescaled, &s->dev.mem);
    for (w->block = 0; w->block < s->src.arch.model.blocks && !stop; w->block++) {
        stop = bq_comm_agree(s->comm, bq_run_stopped(s));
        if (!stop) bq_through_block(&w->t, w->block, w->share.count, stream, stream);
    }
    bq_through_close(&w->t);
    return !stop;
}

static void embed(walk *w, bq_stream *stream, bq_mat buffer) {
    const bq_run *s = w->s;
    for (int64_t i = 0; i < w->share.count; i++) {
        const int32_t *ids = s->calibration.ids + s->recipe.calibration.offset;
        bq_source_embed(&s->src, ids + (w->share.first + i) * buffer.rows, true, buffer);
        bq_stream_put(stream, i, buffer);
    }
}

static bool whole_walk(walk *w) {
    bq_run *s = w->s;
    const int64_t numbers = bq_observed_most(&s->layouts), hidden = s->src.arch.model.hidden;
    size_t mark = bq_arena_mark(&s->dev.mem);
    bq_stream stream;
    bq_mat buffer = bq_run_room(s, 1);
    w->share = bq_shard_of(s->recipe.calibration.samples, s->comm->rank, s->comm->size);
    w->row = malloc((size_t)(numbers * (w->share.count + 1)) * sizeof *w->row);
    w->sum = calloc((size_t)numbers, sizeof *w->sum);
    BQ_CHECK(w->row && w->sum, "no memory for the numbers of %ld samples", (long)w->share.count);
    bq_stream_open(&stream, w->share.count, buffer.rows, hidden, bq_run_home(s));
    w->room = bq_arena_push(&s->dev.mem, 1, numbers, BQ_F32);
    embed(w, &stream, buffer);
    bool whole = blocks(w, &stream, buffer);
    bq_progress_end();
    bq_stream_close(&stream);
    free(buffer.data);
    free(w->row);
    free(w->sum);
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
