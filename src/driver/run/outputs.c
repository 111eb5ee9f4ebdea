#include "driver/run/outputs.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "driver/load/device.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/traits.h"
#include "io/in/fp8.h"
#include "io/state/checkpoint.h"
#include "io/out/export.h"
#include "io/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the exporter reads from: one checkpoint is open at a time. */
typedef struct {
    const bq_run *s;
    bool folds; /* the recipe's passes change norms or biases */
    int block, unit;
    bq_ckpt_file *file;
    bq_ckpt head;
    int8_t *code; /* room for the codes, scales, zero points and factors of the largest linear */
    float *scale, *zero, *pre;
} tensors;

static void open_unit(tensors *t, int block, int unit) {
    char path[BQ_PATH_MAX + 64], why[BQ_WHY];
    if (t->file && t->block == block && t->unit == unit) return;
    bq_ckpt_close(t->file);
    bq_run_checkpoint(t->s, block, unit, path, sizeof path);
    int found = bq_ckpt_open(&t->file, path, t->s->fingerprint, &t->head, why);
    BQ_CHECK(found == BQ_CKPT_OK, "%s: damaged since the run began: %s; `blockq run` makes it again", path,
             why);
    BQ_CHECK(t->folds || !bq_ckpt_folded(&t->head), "%s has norms of its own, which no pass makes", path);
    t->block = block, t->unit = unit;
}

static bool get(void *ctx, const char *name, bool want_data, bq_qtensor *q) {
    tensors *t = ctx;
    bq_heartbeat(t->s->comm);
    bq_tensor_id id = bq_source_id(&t->s->src, name);
    if (id.kind != BQ_TENSOR_WEIGHT) return false;
    int i, unit = bq_arch_unit_of(bq_source_arch(&t->s->src, id.block), id.at, &i);
    const bq_layout *layout = bq_run_layout(t->s, id.block, unit);
    const bq_linear *l = &layout->arch->linear[i];
    bq_scheme scheme = layout->scheme[i];
    if (scheme.group == l->cols) scheme.group = -1;
    int64_t groups = bq_linear_groups(layout->arch, layout->scheme, i);
    *q = (bq_qtensor){.scheme = scheme,
                      .activations = bq_recipe_activations(&t->s->recipe),
                      .code = bq_mat_host(NULL, l->rows, l->cols, BQ_I8),
                      .scale = bq_mat_host(NULL, l->rows, groups, BQ_F32),
                      .zero = bq_mat_host(NULL, scheme.symmetric ? 0 : l->rows, groups, BQ_F32),
                      .pre = bq_mat_host(NULL, bq_recipe_prescaled(&t->s->recipe), l->cols, BQ_F32)};
    if (!want_data) return true;
    open_unit(t, id.block, unit);
    q->code.data = t->code, q->scale.data = t->scale;
    bq_ckpt_read(t->file, i, BQ_CKPT_CODE, q->code);
    bq_ckpt_read(t->file, i, BQ_CKPT_SCALE, q->scale);
    if (scheme.scale == BQ_F8_E4M3)
        bq_ckpt_read(t->file, i, BQ_CKPT_OUTER, bq_mat_host(&q->scheme.outer, 1, 1, BQ_F32));
    if (q->pre.rows) q->pre.data = t->pre, bq_ckpt_read(t->file, i, BQ_CKPT_PRE, q->pre);
    if (q->zero.rows) q->zero.data = t->zero, bq_ckpt_read(t->file, i, BQ_CKPT_ZERO, q->zero);
    return true;
}

/* A tensor that transforms have changed, or that is FP8 in the model, which no output has; false: it is as in
 * the model. */
static bool of_source(const bq_source *src, const char *name, int64_t first, bq_mat to) {
    const bq_tensor *t = bq_weights_find(src->weights, name);
    if (bq_rotated_read(src->rotated, name, first, to)) return true;
    if (!t || !bq_fp8_tensor(src->weights, t)) return false;
    if (to.data) bq_weights_read(src->weights, t, first, to.rows, to);
    return true;
}

/* The same, or changed by passes.  The exporter must know which tensors are floats before it knows which
 * blocks the passes have changed.  So where passes may change norms and biases, those of all blocks are
 * written as floats. */
static bool dense(void *ctx, const char *name, int64_t first, bq_mat to) {
    tensors *t = ctx;
    bq_heartbeat(t->s->comm);
    const bq_source *src = &t->s->src;
    bq_tensor_id id = bq_source_id(src, name);
    bool gain = id.kind == BQ_TENSOR_BLOCK_NORM && id.at < BQ_NORMS_FOLDED;
    if (!t->folds || (!gain && id.kind != BQ_TENSOR_BIAS)) return of_source(src, name, first, to);
    if (!to.data) return true;
    int at = id.at, unit = gain ? 0 : bq_arch_unit_of(bq_source_arch(src, id.block), id.at, &at);
    open_unit(t, id.block, unit);
    if (!bq_ckpt_folded(&t->head))
        bq_source_rows(src, name, first, to);
    else if (gain)
        bq_ckpt_read_norm(t->file, id.at, to);
    else
        bq_ckpt_read(t->file, at, BQ_CKPT_BIAS, to);
    for (int64_t i = 0; i < to.cols && gain; i++) bq_f32(to)[i] -= src->arch.gain_of_zero;
    return true;
}

/* Passes that prepare may change norms and biases. */
static bool folds(const bq_recipe *r) {
    bool any = false;
    for (int i = 0; i < r->nphase; i++) any |= bq_phase_prepares(&r->phase[i]);
    return any;
}

/* One output that is being written. */
typedef struct {
    const bq_run *s;
    const char *dir;
    const bq_output *of; /* of the recipe */
    tensors t;
    bq_export_job *job;
} output;

static void take_room(tensors *t) {
    bq_linear_most most = bq_linear_most_of(&t->s->layouts);
    t->code = malloc(most.codes);
    t->scale = malloc(most.scales * sizeof(float));
    t->zero = malloc(most.scales * sizeof(float));
    t->pre = malloc(most.cols * sizeof(float));
    BQ_CHECK(t->code && t->scale && t->zero && t->pre, "no memory to export a linear of %zu weights",
             most.codes);
}

static int open_output(void *ctx) {
    output *o = ctx;
    const bq_run *s = o->s;
    o->t = (tensors){.s = s, .folds = folds(&s->recipe)};
    bq_qsource source = {&o->t, get, dense};
    return bq_export_open(&o->job, s->src.weights, o->dir, source, bq_format_at(o->of->format),
                          o->of->options, (size_t)o->of->shard_bytes);
}

static void close_output(output *o) {
    bq_export_close(o->job);
    bq_ckpt_close(o->t.file);
    free(o->t.code);
    free(o->t.scale);
    free(o->t.zero);
    free(o->t.pre);
}

/* The steps of io/out/export.h; each bq_comm_agree is also the barrier before the next step. */
static int write_output(output *o) {
    const bq_comm *comm = o->s->comm;
    int code = bq_comm_agree(comm, comm->rank == 0 ? bq_export_claim(o->job) : BQ_OK);
    if (code) return code;
    take_room(&o->t);
    bq_export_write(o->job, comm->rank, comm->size);
    bq_comm_barrier(comm);
    return bq_comm_agree(comm, comm->rank == 0 ? bq_export_finish(o->job) : BQ_OK);
}

int bq_outputs_fit(const bq_run *s) {
    int code = BQ_OK;
    for (int i = 0; i < s->recipe.noutput && !code; i++) {
        const bq_output *out = &s->recipe.output[i];
        output o = {s, out->dir, out, {0}, NULL};
        code = open_output(&o);
        close_output(&o);
    }
    return code;
}

/* Write the list of files.  Each rank has the hashes of its shards; they are gathered as doubles, which hold
 * 32 bits exactly. */
static void list_output(output *o, const char *mark, const char *of) {
    const bq_comm *comm = o->s->comm;
    int shards = bq_export_shards(o->job);
    uint64_t *hash = bq_export_hashes(o->job);
    double *half = calloc((size_t)shards, sizeof *half);
    BQ_CHECK(half, "no memory for the hashes of %d shards", shards);
    for (int shift = 0; shift < 64; shift += 32) {
        for (int i = 0; i < shards; i++) half[i] = (double)(uint32_t)(hash[i] >> shift);
        bq_comm_gather(comm, half, shards);
        for (int i = 0; i < shards; i++)
            hash[i] = (hash[i] & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)half[i] << shift;
    }
    free(half);
    if (comm->rank) return;
    bq_manifest m;
    bq_manifest_new(&m, of);
    bq_export_list(o->job, &m);
    bq_manifest_write(&m, mark);
    bq_manifest_close(&m);
}

/* mark: the path of the list of files, or NULL. */
static int export_one(const bq_run *s, const bq_output *out, const char *dir, const char *mark,
                      const char *of) {
    double since = bq_seconds();
    output o = {s, dir, out, {0}, NULL};
    int code = bq_root_first(s->comm, open_output, &o);
    if (!code) code = write_output(&o);
    if (!code && mark) list_output(&o, mark, of);
    if (!code) {
        int shards = bq_export_shards(o.job), ranks = s->comm->size < shards ? s->comm->size : shards;
        bq_log(BQ_INFO, "wrote %s: %d shard%s by %d rank%s in %.1f s", dir, shards, shards == 1 ? "" : "s",
               ranks, ranks == 1 ? "" : "s", bq_seconds() - since);
    }
    close_output(&o);
    return code;
}

static void remove_listed(const bq_manifest *m, int i, const char *dir) {
    char path[4 * BQ_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, m->file[i].name);
    unlink(path);
}

/* Compare my share of the listed files with the list; returns the worst result.  Files that differ are
 * removed: the directory is the run's own, and an export would refuse them.  warn: log a warning for each. */
static int look_at(const bq_run *s, const bq_manifest *m, const char *dir, bool warn) {
    int worst = BQ_MANIFEST_SAME;
    for (int i = s->comm->rank; i < m->count; i += s->comm->size) {
        int found = bq_manifest_look(m, i, dir);
        worst = found > worst ? found : worst;
        bq_heartbeat(s->comm);
        if (found != BQ_MANIFEST_OTHER) continue;
        if (warn) bq_log_all(BQ_WARN, "%s is written again: %s is gone or has changed", dir, m->file[i].name);
        remove_listed(m, i, dir);
    }
    return worst;
}

/* Is the output there, made by this run, and unchanged? */
static bool exported(const bq_run *s, const char *mark, const char *of, const char *dir) {
    bq_manifest m;
    bool same = bq_manifest_read(&m, mark) && strcmp(m.of, of) == 0;
    int found = look_at(s, &m, dir, same), worst = bq_comm_agree(s->comm, same ? found : BQ_MANIFEST_OTHER);
    for (int i = 0; i < m.count && worst == BQ_MANIFEST_OTHER && s->comm->rank == 0; i++) {
        const char *name = m.file[i].name; /* so that nobody loads the rest */
        if (strcmp(name, "config.json") == 0 || strstr(name, ".index.json")) remove_listed(&m, i, dir);
    }
    if (worst == BQ_MANIFEST_EQUAL && s->comm->rank == 0)
        bq_manifest_write(&m, mark); /* with the new ctimes: the next run need not read the files */
    bq_manifest_close(&m);
    return worst != BQ_MANIFEST_OTHER;
}

/* What decides the bytes of an output: the run's fingerprint, and what the recipe says of the output. */
static char *identity(const bq_run *s, int i) {
    json_t *recipe = bq_keys_json(&s->recipe, false);
    char *said = json_dumps(json_array_get(json_object_get(recipe, "outputs"), (size_t)i), JSON_COMPACT);
    char *all = NULL;
    BQ_CHECK(said && asprintf(&all, "%016lx %s%s", (unsigned long)s->fingerprint, said,
                              bq_recipe_activations(&s->recipe) ? " a8" : "") >= 0,
             "no memory for the name of an output");
    free(said);
    json_decref(recipe);
    return all;
}

static int export_output(const bq_run *s, int i) {
    char dir[2 * BQ_PATH_MAX], mark[2 * BQ_PATH_MAX], *of = identity(s, i);
    const bq_output *out = &s->recipe.output[i];
    snprintf(dir, sizeof dir, "%s/%s", s->dir, out->dir);
    snprintf(mark, sizeof mark, "%s/ckpt/export_%s.done", s->dir, out->dir);
    int code = exported(s, mark, of, dir) ? BQ_OK : export_one(s, out, dir, mark, of);
    free(of);
    return code;
}

int bq_outputs_write(const bq_run *s) {
    int code = BQ_OK;
    for (int i = 0; i < s->recipe.noutput && !code; i++) code = export_output(s, i);
    return code;
}

int bq_outputs_write_one(const bq_run *s, const char *dir) {
    return export_one(s, &s->recipe.output[0], dir, NULL, NULL);
}
