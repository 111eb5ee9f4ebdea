#include "driver/session.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "driver/device.h"
#include "driver/methods.h"
#include "io/checkpoint.h"
#include "io/export.h"
#include "io/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK 64 /* bytes of a mark file */

static void restore(bq_dev *dev, bq_ckpt_file *f, int linear, bq_ckpt_part part, bq_mat to) {
    bq_mat room = bq_device_room(dev, to);
    bq_ckpt_read(f, linear, part, room);
    bq_device_fill(dev, room, to);
}

/* Norms and biases that passes had changed. */
static void restore_folded(bq_dev *dev, const bq_arch *arch, bq_ckpt_file *f, bq_block *blk) {
    for (int i = 0; i < 2; i++) {
        bq_mat room = bq_device_room(dev, blk->norm[i]);
        bq_ckpt_read_norm(f, i, room);
        bq_device_fill(dev, room, blk->norm[i]);
    }
    for (int i = 0; i < arch->linears; i++) {
        const bq_linear *l = &arch->linear[i];
        if (l->bias) restore(dev, f, i, BQ_CKPT_BIAS, bq_mat_cols(blk->bias[l->mat], l->row, l->rows));
    }
    blk->folded = true;
}

bool bq_session_restore(const bq_session *s, bq_dev *dev, const char *path, bq_block *blk, bq_quantized *q,
                        bool fold) {
    const bq_arch *arch = &s->src.arch;
    bq_ckpt_file *f;
    bq_ckpt head;
    char why[BQ_WHY];
    if (bq_ckpt_open(&f, path, s->fingerprint, &head, why) != BQ_CKPT_OK) {
        bq_log(BQ_WARN, "%s is made again: %s", path, why);
        return false;
    }
    BQ_CHECK(head.linears == arch->linears, "%s has %d linears, the model %d", path, head.linears,
             arch->linears);
    for (int i = 0; i < arch->linears; i++) {
        if (fold) restore(dev, f, i, BQ_CKPT_FOLD, bq_linear_view(arch, i, q->fold));
        restore(dev, f, i, BQ_CKPT_CODE, bq_linear_view(arch, i, q->code));
        int64_t groups = bq_linear_groups(arch, q->scheme, i);
        restore(dev, f, i, BQ_CKPT_SCALE, bq_mat_reshape(q->scale[i], groups));
        if (q->zero[i].data) restore(dev, f, i, BQ_CKPT_ZERO, bq_mat_reshape(q->zero[i], groups));
        if (!head.linear[i].pre.rows) continue;
        restore(dev, f, i, BQ_CKPT_PRE, q->pre[i]);
        blk->pre = q->pre;
    }
    if (bq_ckpt_folded(&head)) restore_folded(dev, arch, f, blk);
    bq_ckpt_close(f);
    bq_quantized_decode(dev, q);
    return true;
}

/* The exporter's view of the run: tensors of the checkpoint that was asked for last. */
typedef struct {
    const bq_session *s;
    bool folds; /* the recipe's passes change norms or biases */
    int block;
    bq_ckpt_file *file;
    bq_ckpt head;
    int8_t *code; /* room for the largest linear, and for its scales and zero points */
    float *scale, *zero, *pre;
} tensors;

static void open_block(tensors *t, int block) {
    char path[BQ_PATH_MAX + 64], why[BQ_WHY];
    if (t->file && t->block == block) return;
    bq_ckpt_close(t->file);
    bq_session_checkpoint(t->s, block, path, sizeof path);
    int found = bq_ckpt_open(&t->file, path, t->s->fingerprint, &t->head, why);
    BQ_CHECK(found == BQ_CKPT_OK, "checkpoint %s cannot be exported: %s", path, why);
    BQ_CHECK(t->folds || !bq_ckpt_folded(&t->head), "%s has norms of its own, which no pass makes", path);
    t->block = block;
}

static bool get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    tensors *t = ctx;
    const bq_arch *arch = &t->s->src.arch;
    int block, i;
    bq_heartbeat(t->s->comm);
    if (!bq_arch_find(arch, name, &block, &i)) return false;
    const bq_linear *l = &arch->linear[i];
    bq_scheme scheme = t->s->scheme[i];
    int64_t groups = bq_linear_groups(arch, t->s->scheme, i);
    *q = (bq_qtensor){.bits = scheme.bits,
                      .group = scheme.group > 0 ? scheme.group : 0,
                      .activations = bq_recipe_activations(&t->s->recipe),
                      .code = bq_mat_host(NULL, l->rows, l->cols, BQ_I8),
                      .scale = bq_mat_host(NULL, l->rows, groups, BQ_F32),
                      .zero = bq_mat_host(NULL, scheme.symmetric ? 0 : l->rows, groups, BQ_F32),
                      .pre = bq_mat_host(NULL, bq_recipe_prescaled(&t->s->recipe), l->cols, BQ_F32)};
    if (!want_data) return true;
    open_block(t, block);
    q->code.data = t->code, q->scale.data = t->scale;
    bq_ckpt_read(t->file, i, BQ_CKPT_CODE, q->code);
    bq_ckpt_read(t->file, i, BQ_CKPT_SCALE, q->scale);
    if (q->pre.rows) q->pre.data = t->pre, bq_ckpt_read(t->file, i, BQ_CKPT_PRE, q->pre);
    if (q->zero.rows) q->zero.data = t->zero, bq_ckpt_read(t->file, i, BQ_CKPT_ZERO, q->zero);
    return true;
}

/* Is this tensor a norm of a block (linear -1), or a linear's bias? */
static bool find_folded(const bq_arch *arch, const char *name, int *block, int *norm, int *linear) {
    char other[256];
    if (sscanf(name, "model.layers.%d.", block) != 1 || *block < 0 || *block >= arch->model.blocks)
        return false;
    for (*linear = -1, *norm = 0; *norm < 2; ++*norm) {
        bq_arch_tensor(other, sizeof other, *block, arch->norm[*norm], "weight");
        if (strcmp(name, other) == 0) return true;
    }
    for (*linear = 0; *linear < arch->linears; ++*linear) {
        bq_arch_tensor(other, sizeof other, *block, arch->linear[*linear].module, "bias");
        if (arch->linear[*linear].bias && strcmp(name, other) == 0) return true;
    }
    return false;
}

/* What transforms have changed, and what passes have, which lies on it.
 * Which blocks the passes have changed is known when they are done, which tensors are written before: where
 * passes might change some, those of all blocks are written as floats. */
static bool dense(void *ctx, const char *name, int64_t first, bq_mat to) {
    tensors *t = ctx;
    int block, norm, linear;
    bq_heartbeat(t->s->comm);
    const bq_source *src = &t->s->src;
    if (!t->folds || !find_folded(&src->arch, name, &block, &norm, &linear))
        return bq_rotated_read(src->rotated, name, first, to);
    if (!to.data) return true;
    open_block(t, block);
    if (!bq_ckpt_folded(&t->head))
        bq_source_rows(src, name, first, to);
    else if (linear < 0)
        bq_ckpt_read_norm(t->file, norm, to);
    else
        bq_ckpt_read(t->file, linear, BQ_CKPT_BIAS, to);
    return true;
}

/* Passes that prepare may change norms and biases. */
static bool folds(const bq_recipe *r) {
    bool any = false;
    for (int i = 0; i < r->nphase; i++)
        for (int k = 0; k < r->phase[i].npass; k++) any |= !bq_methods[r->phase[i].pass[k].kind].quantizes;
    return any;
}

/* One output, as every rank sees it. */
typedef struct {
    const bq_session *s;
    const char *dir;
    const bq_export_format *format;
    size_t shard_bytes;
    tensors t;
    bq_export_job *job;
} output;

/* The largest linear: its codes, the scales (or zero points) of the one that has the most, its columns. */
typedef struct {
    size_t codes, scales, cols;
} room;

static room room_of(const bq_arch *arch, const bq_scheme *scheme) {
    room most = {0};
    for (int i = 0; i < arch->linears; i++) {
        size_t c = (size_t)(arch->linear[i].rows * arch->linear[i].cols);
        size_t g = (size_t)(arch->linear[i].rows * bq_linear_groups(arch, scheme, i));
        size_t k = (size_t)arch->linear[i].cols;
        most = (room){c > most.codes ? c : most.codes, g > most.scales ? g : most.scales,
                      k > most.cols ? k : most.cols};
    }
    return most;
}

size_t bq_session_export_need(const bq_arch *arch, const bq_scheme *scheme) {
    room most = room_of(arch, scheme);
    return most.codes + (2 * most.scales + most.cols) * sizeof(float) + BQ_EXPORT_BUFFER;
}

static void take_room(tensors *t) {
    room most = room_of(&t->s->src.arch, t->s->scheme);
    t->code = malloc(most.codes);
    t->scale = malloc(most.scales * sizeof(float));
    t->zero = malloc(most.scales * sizeof(float));
    t->pre = malloc(most.cols * sizeof(float));
    BQ_CHECK(t->code && t->scale && t->zero && t->pre, "no memory to export a linear of %zu weights",
             most.codes);
}

static int open_output(void *ctx) {
    output *o = ctx;
    const bq_session *s = o->s;
    o->t = (tensors){.s = s, .folds = folds(&s->recipe)};
    bq_qsource source = {&o->t, get, dense};
    return bq_export_open(&o->job, s->src.weights, o->dir, source, o->format, o->shard_bytes);
}

static void close_output(output *o) {
    bq_export_close(o->job);
    bq_ckpt_close(o->t.file);
    free(o->t.code);
    free(o->t.scale);
    free(o->t.zero);
    free(o->t.pre);
}

/* The steps of io/export.h; each agreement is also the barrier before the next step. */
static int write_output(output *o) {
    const bq_comm *comm = o->s->comm;
    int code = bq_comm_agree(comm, comm->rank == 0 ? bq_export_claim(o->job) : BQ_OK);
    if (code) return code;
    take_room(&o->t);
    bq_export_write(o->job, comm->rank, comm->size);
    bq_comm_barrier(comm);
    return bq_comm_agree(comm, comm->rank == 0 ? bq_export_finish(o->job) : BQ_OK);
}

static const bq_export_format *format_of(bq_format format) {
    return format == BQ_OUT_COMPRESSED ? &bq_export_ct : &bq_export_dense;
}

int bq_session_outputs_fit(const bq_session *s) {
    int code = BQ_OK;
    for (int i = 0; i < s->recipe.noutput && !code; i++) {
        const bq_output *out = &s->recipe.output[i];
        output o = {s, out->dir, format_of(out->format), (size_t)out->shard_bytes, {0}, NULL};
        code = open_output(&o);
        close_output(&o);
    }
    return code;
}

static int export_one(const bq_session *s, bq_format format, size_t shard_bytes, const char *dir) {
    double since = bq_seconds();
    output o = {s, dir, format_of(format), shard_bytes, {0}, NULL};
    int code = bq_root_first(s->comm, open_output, &o);
    if (!code) code = write_output(&o);
    if (!code) {
        int shards = bq_export_shards(o.job), ranks = s->comm->size < shards ? s->comm->size : shards;
        bq_log(BQ_INFO, "wrote %s: %d shard%s by %d rank%s in %.1f s", dir, shards, &"s"[shards == 1], ranks,
               &"s"[ranks == 1], bq_seconds() - since);
    }
    close_output(&o);
    return code;
}

/* A mark says of which run and how cut the directory is; it counts once the directory is whole. */
static bool exported(const char *mark, const char *text, const char *dir) {
    char *have = NULL, config[2 * BQ_PATH_MAX + 16];
    size_t bytes = 0;
    snprintf(config, sizeof config, "%s/config.json", dir);
    bool same = bq_file_read(mark, MARK, &have, &bytes) == 0 && strcmp(have, text) == 0;
    free(have);
    return same && bq_file_exists(config);
}

static void write_mark(const char *mark, const char *text) {
    int error = bq_file_write_atomic(mark, text, strlen(text));
    BQ_CHECK(error == 0, "write of '%s' failed: %s", mark, strerror(error));
}

/* The mark of an older export goes before its directory does: a kill between must not leave it believed. */
static int export_output(const bq_session *s, const bq_output *o) {
    char dir[2 * BQ_PATH_MAX], mark[2 * BQ_PATH_MAX], text[MARK];
    bool root = s->comm->rank == 0;
    snprintf(dir, sizeof dir, "%s/%s", s->dir, o->dir);
    snprintf(mark, sizeof mark, "%s/ckpt/export_%s.done", s->dir, o->dir);
    snprintf(text, sizeof text, "%016lx %s %ld%s\n", (unsigned long)s->fingerprint,
             o->format == BQ_OUT_COMPRESSED ? "compressed-tensors" : "safetensors", (long)o->shard_bytes,
             bq_recipe_activations(&s->recipe) ? " a8" : "");
    if (bq_comm_agree(s->comm, root && exported(mark, text, dir))) return BQ_OK;
    if (root && bq_file_exists(mark)) write_mark(mark, "being written again\n");
    int code = export_one(s, o->format, (size_t)o->shard_bytes, dir);
    if (root && !code) write_mark(mark, text);
    return code;
}

int bq_session_export(const bq_session *s) {
    int code = BQ_OK;
    for (int i = 0; i < s->recipe.noutput && !code; i++) code = export_output(s, &s->recipe.output[i]);
    return code;
}

int bq_session_export_to(const bq_session *s, bq_format format, size_t shard_bytes, const char *dir) {
    return export_one(s, format, shard_bytes, dir);
}
