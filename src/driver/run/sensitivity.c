/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/sensitivity.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "driver/load/through.h"
#include "driver/plan/mixed.h"
#include "io/files.h"
#include "io/json.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bq_run *s;
    bq_mixed_site *site;
    bq_choose_item *item; /* one for each site */
    int sites, known;     /* known: so many have their errors */
    int64_t samples;
    bq_through t;
    bq_layouts layouts;        /* of the scheme that is tried */
    int at;                    /* the site that is rounded */
    bq_mat right, tried, norm; /* device (T, H), (T, H), (T, 1) */
    float *norms;              /* host (samples, T): of the original's outputs */
} survey;

/* ---- what is known ---- */

static void path_of(const bq_run *s, char path[BQ_PATH_MAX + 32]) {
    snprintf(path, BQ_PATH_MAX + 32, "%s/ckpt/sensitivity.json", s->dir);
}

static void open_items(survey *v) {
    const bq_mixed *m = &v->s->recipe.bits.mixed;
    v->sites = bq_mixed_sites(&v->s->src, &v->site);
    v->item = calloc((size_t)v->sites, sizeof *v->item);
    BQ_CHECK(v->item, "no memory for the errors of %d sites", v->sites);
    for (int k = 0; k < v->sites; k++) {
        v->item[k].count = m->count;
        for (int i = 0; i < m->count; i++) v->item[k].cost[i] = bq_mixed_cost(m, &v->site[k], m->scheme[i]);
    }
}

static void close_items(survey *v) {
    free(v->site);
    free(v->item);
}

/* Take what an earlier process of this run has measured, of whole blocks. */
static void read_errors(survey *v) {
    char path[BQ_PATH_MAX + 32], of[32];
    path_of(v->s, path);
    json_t *root = bq_json_read_sealed(path, BQ_MIXED_BYTES), *all = json_object_get(root, "errors");
    const char *tag = json_string_value(json_object_get(root, "of"));
    int count = v->s->recipe.bits.mixed.count, n = (int)json_array_size(all) / count;
    snprintf(of, sizeof of, "%016lx", (unsigned long)v->s->fingerprint);
    v->known = tag && strcmp(tag, of) == 0 && n <= v->sites ? n : 0;
    for (int k = 0; k < v->known * count; k++)
        v->item[k / count].error[k % count] = json_number_value(json_array_get(all, (size_t)k));
    json_decref(root);
}

static void write_errors(const survey *v) {
    char path[BQ_PATH_MAX + 32], of[32];
    json_t *all = json_array();
    for (int k = 0; k < v->known; k++)
        for (int i = 0; i < v->item[k].count; i++) json_array_append_new(all, json_real(v->item[k].error[i]));
    snprintf(of, sizeof of, "%016lx", (unsigned long)v->s->fingerprint);
    json_t *root = json_pack("{s:s, s:o}", "of", of, "errors", all);
    path_of(v->s, path);
    int error = bq_json_write_sealed(path, root);
    BQ_CHECK(!error, "write of '%s' failed: %s", path, bq_file_why(error));
    json_decref(root);
}

/* ---- the choice ---- */

/* How many weights each scheme has got, in percent: "0: 25 %, 1: 75 %". */
static void say(const survey *v, double cost, double limit) {
    const bq_mixed *m = &v->s->recipe.bits.mixed;
    static const char *const units[] = {"bits", "bytes", "microseconds"};
    double part[BQ_MIXED] = {0}, all = 0, error = 0, per = m->unit == BQ_BUDGET_BITS ? limit / m->budget : 1;
    char text[BQ_MIXED * 32];
    size_t n = 0;
    for (int k = 0; k < v->sites; k++) {
        const bq_site *at = &v->site[k].arch->site[v->site[k].site];
        double weights = (double)(at->rows * at->cols);
        if (v->site[k].arch->kind == BQ_UNIT_EXPERT) weights *= v->site[k].arch->model.experts;
        part[v->item[k].chosen] += weights, all += weights;
        error += v->item[k].error[v->item[k].chosen];
    }
    for (int i = 0; i < m->count; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%sscheme %d: %.1f %%", i ? ", " : "", i,
                              100 * part[i] / all);
    bq_log(BQ_INFO, "bits.auto: %.6g %s of %.6g; of the weights %s; sum of errors %.4g", cost / per,
           units[m->unit], m->budget, text, error);
}

static void choose(survey *v) {
    bq_run *s = v->s;
    const bq_mixed *m = &s->recipe.bits.mixed;
    double cost, limit = bq_mixed_limit(m, v->site, v->sites);
    BQ_CHECK(bq_choose(v->item, v->sites, limit, &cost), "the budget is below %g", cost); /* bq_mixed_check */
    bq_mixed_open(&s->layouts, &s->src);
    for (int k = 0; k < v->sites; k++) bq_mixed_set(&s->layouts, &v->site[k], m->scheme[v->item[k].chosen]);
    if (s->args->command == BQ_COMMAND_RUN) say(v, cost, limit);
}

int bq_sensitivity_read(bq_run *s) {
    survey v = {.s = s};
    int code = BQ_OK;
    if (!s->recipe.bits.mixed.count) return BQ_OK;
    open_items(&v);
    read_errors(&v);
    if (v.known == v.sites)
        choose(&v);
    else
        code =
            bq_refuse(BQ_DATA,
                      "%s/ckpt/sensitivity.json is gone or damaged, and the choice of schemes follows from "
                      "it: `blockq run` it again",
                      s->dir);
    close_items(&v);
    return code;
}

/* ---- measuring ---- */

/* The original's weights, but of the site that is tried those of its scheme. */
static void try_site(void *ctx, bq_dev *dev, bq_block *blk, bq_quantized *q) {
    const survey *v = ctx;
    const bq_mixed_site *at = &v->site[v->at];
    const bq_arch *arch = blk->arch;
    for (int m = 0; m < arch->sites; m++) dev->op->copy(dev, blk->w[m], q->fold[m]);
    bq_quantized_outer(dev, q);
    for (int m = 0; m < arch->sites; m++) dev->op->copy(dev, blk->w[m], q->w_hat[m]);
    if (arch->kind != at->arch->kind) return;
    const bq_site *site = &arch->site[at->site];
    for (int i = site->first; i < site->first + site->linears; i++)
        bq_linear_range(dev, q, i), bq_linear_encode(dev, q, i);
}

/* The error of what `tried` has, where `right` has the original's outputs. */
static double error_of(survey *v, const bq_stream *right, const bq_stream *tried) {
    bq_dev *dev = &v->s->dev;
    double sum = 0, one;
    for (int64_t i = 0; i < v->samples; i++) {
        dev->op->put(dev, bq_mat_host(v->norms + i * v->norm.rows, v->norm.rows, 1, BQ_F32), v->norm);
        dev->op->put(dev, bq_stream_get(right, i, v->t.buffer), v->right);
        dev->op->wait(dev); /* the buffer is used again */
        dev->op->put(dev, bq_stream_get(tried, i, v->t.buffer), v->tried);
        dev->op->over_rows(dev, v->right, v->norm, v->right);
        dev->op->over_rows(dev, v->tried, v->norm, v->tried);
        dev->op->mse(dev, v->tried, v->right, 1, (bq_mat){0}, &one);
        dev->op->wait(dev);
        sum += one;
        bq_heartbeat();
    }
    return sum;
}

/* Try a scheme at a site: the block's output for all samples, and its error. */
static double try_scheme(survey *v, int at, int scheme, const bq_stream *from, const bq_stream *right,
                         bq_stream *tried) {
    const bq_scheme s = v->s->recipe.bits.mixed.scheme[scheme];
    const bq_mixed_site *site = &v->site[at];
    if (!isfinite(v->item[at].cost[scheme])) return 0;
    for (int k = 0; k < v->layouts.count; k++) {
        bq_layout *l = &v->layouts.at[k];
        for (int i = 0; i < l->arch->linears; i++) {
            bool other = l->arch != site->arch || l->arch->linear[i].site != site->site;
            l->scheme[i] = other ? v->s->recipe.bits.decoder : s;
        }
    }
    v->at = at;
    v->t.weights = try_site;
    bq_through_block(&v->t, site->block, v->samples, from, tried);
    v->t.weights = NULL;
    return error_of(v, right, tried);
}

/* All sites of the block at v->known, my share of the tries; rank 0 gets all errors. */
static void measure_block(survey *v, const bq_stream *from, const bq_stream *right, bq_stream *tried) {
    const bq_comm *comm = v->s->comm;
    const int first = v->known, schemes = v->s->recipe.bits.mixed.count, block = v->site[first].block;
    int end = first;
    while (end < v->sites && v->site[end].block == block) end++;
    const int64_t tries = (int64_t)(end - first) * schemes;
    double *error = calloc((size_t)tries, sizeof *error);
    BQ_CHECK(error, "no memory for %ld errors", (long)tries);
    bq_shard mine = bq_shard_of(tries, comm->rank, comm->size);
    for (int64_t i = 0; i < v->samples && mine.count; i++)
        bq_run_norms(bq_stream_host(right, i, v->t.buffer), v->norms + i * v->norm.rows);
    for (int64_t k = mine.first; k < mine.first + mine.count; k++) {
        char note[64];
        error[k] = try_scheme(v, first + (int)(k / schemes), (int)(k % schemes), from, right, tried);
        snprintf(note, sizeof note, "schemes  block %d/%d", block + 1, v->s->src.arch.model.blocks);
        bq_progress(block * mine.count + k - mine.first + 1, v->s->src.arch.model.blocks * mine.count, note);
    }
    bq_comm_gather(comm, error, tries);
    for (int64_t k = 0; k < tries; k++) v->item[first + k / schemes].error[k % schemes] = error[k];
    for (int64_t k = 0; k < tries && comm->rank == 0; k++)
        if (!isfinite(error[k]))
            bq_refuse_job(
                BQ_DATA,
                "%s: block %d/%d: its output has %g with a site rounded to bits.auto.schemes.%d: the "
                "weights are damaged, or too large for f32",
                v->s->src.dir, block + 1, v->s->src.arch.model.blocks, error[k], (int)(k % schemes));
    free(error);
    v->known = end;
    if (comm->rank == 0) write_errors(v), bq_fault_signal("sensitivity", SIGKILL);
}

/* All blocks, one after the other.  False on all ranks: a stop came to one. */
static bool walk(survey *v, bq_stream *from, bq_stream *right, bq_stream *tried) {
    bq_run *s = v->s;
    bool stop = false;
    for (int b = 0; b < s->src.arch.model.blocks && !stop; b++) {
        stop = bq_comm_agree(s->comm, bq_run_stopped());
        if (stop || v->known == v->sites) continue;
        bq_through_block(&v->t, b, v->samples, from, right);
        if (v->site[v->known].block == b) measure_block(v, from, right, tried);
        bq_stream_swap(from, right);
    }
    bq_progress_end();
    return !stop;
}

static bool measure(survey *v) {
    bq_run *s = v->s;
    const int64_t hidden = s->src.arch.model.hidden, tokens = s->recipe.calibration.length;
    size_t mark = bq_arena_mark(&s->dev.mem);
    bq_mat buffer = bq_run_room(s, 1);
    bq_stream stream[3] = {0};
    v->layouts = s->layouts, v->layouts.own = NULL;
    for (int k = 0; k < 3; k++) bq_stream_open(&stream[k], v->samples, tokens, hidden, bq_run_home(s));
    v->right = bq_arena_push(&s->dev.mem, tokens, hidden, BQ_F32);
    v->tried = bq_arena_push(&s->dev.mem, tokens, hidden, BQ_F32);
    v->norm = bq_arena_push(&s->dev.mem, tokens, 1, BQ_F32);
    v->norms = malloc((size_t)(v->samples * tokens) * sizeof *v->norms);
    BQ_CHECK(v->norms, "no memory for the norms of %ld samples", (long)v->samples);
    bq_through_open(&v->t, &s->src, s->recipe.rope, &s->dev, v->samples, tokens, bq_run_home(s));
    v->t.buffer = buffer, v->t.layouts = &v->layouts, v->t.ctx = v, v->t.keeps = true;
    bq_quantized_push_any(&v->t.q, &s->layouts, false, &s->dev.mem);
    for (int64_t i = 0; i < v->samples; i++) bq_run_embed(s, i, false, buffer, &stream[0], i);
    bool whole = walk(v, &stream[0], &stream[1], &stream[2]);
    bq_through_close(&v->t);
    for (int k = 2; k >= 0; k--) bq_stream_close(&stream[k]);
    free(v->norms);
    free(buffer.data);
    bq_arena_reset(&s->dev.mem, mark);
    return whole;
}

/* All ranks get rank 0's errors. */
static void share_errors(survey *v) {
    for (int k = 0; k < v->sites; k++) bq_comm_bcast(v->s->comm, v->item[k].error, sizeof v->item[k].error);
}

int bq_sensitivity_run(bq_run *s) {
    const bq_recipe *r = &s->recipe;
    survey v = {.s = s};
    if (!r->bits.mixed.count) return BQ_OK;
    double since = bq_seconds();
    v.samples = bq_mixed_samples(r);
    open_items(&v);
    if (s->comm->rank == 0) read_errors(&v);
    bq_comm_bcast(s->comm, &v.known, sizeof v.known);
    bool begun = v.known < v.sites, whole = !begun || measure(&v);
    if (whole) share_errors(&v), choose(&v);
    if (whole && s->comm->rank == 0) {
        char path[BQ_PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/schemes.json", s->dir);
        bq_mixed_write(path, &r->bits.mixed, v.site, v.item, v.sites);
        if (begun) bq_log(BQ_INFO, "bits.auto: measured in %.1f s", bq_seconds() - since);
    }
    close_items(&v);
    return whole ? BQ_OK : BQ_STOPPED;
}
