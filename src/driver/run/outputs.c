/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/outputs.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "driver/recipe/keys.h"
#include "driver/recipe/traits.h"
#include "driver/run/publish.h"
#include "driver/run/result.h"
#include "driver/run/tensors.h"
#include "io/out/export.h"
#include "io/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One output that is being written. */
typedef struct {
    const bq_run *s;
    const char *dir;
    const bq_output *of; /* of the recipe */
    bq_result_tensors t;
    bq_export_job *job;
} output;

static int open_output(void *ctx) {
    output *o = ctx;
    const bq_run *s = o->s;
    bq_qsource source = bq_result_tensors_of(&o->t, s);
    return bq_export_open(&o->job, s->src.weights, o->dir, source, bq_format_at(o->of->format),
                          o->of->options, (size_t)o->of->shard_bytes);
}

static void close_output(output *o) {
    bq_export_close(o->job);
    bq_result_tensors_close(&o->t);
}

/* The steps of io/out/export.h; each bq_comm_agree is also the barrier before the next step. */
static int write_output(output *o) {
    const bq_comm *comm = o->s->comm;
    int code = bq_comm_agree(comm, comm->rank == 0 ? bq_export_claim(o->job) : BQ_OK);
    if (code) return code;
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

/* List the files, on rank 0.  Each rank has the hashes of its shards; they are gathered as doubles, which
 * hold 32 bits exactly. */
static void list_output(output *o, const char *of, bq_manifest *list) {
    const bq_comm *comm = o->s->comm;
    int shards = bq_export_shards(o->job);
    bq_file_hash *hash = bq_export_hashes(o->job);
    double *word = calloc((size_t)shards, sizeof *word);
    BQ_CHECK(word, "no memory for the hashes of %d shards", shards);
    for (size_t at = 0; at < sizeof *hash; at += 4) {
        uint32_t value;
        for (int i = 0; i < shards; i++) memcpy(&value, (char *)&hash[i] + at, 4), word[i] = value;
        bq_comm_gather(comm, word, shards);
        for (int i = 0; i < shards; i++) value = (uint32_t)word[i], memcpy((char *)&hash[i] + at, &value, 4);
    }
    free(word);
    if (comm->rank) return;
    bq_manifest_new(list, of);
    bq_export_list(o->job, list);
}

/* Write an output; list: its files, for the caller to close, on rank 0. */
static int export_one(const bq_run *s, const bq_output *out, const char *dir, const char *of,
                      bq_manifest *list) {
    double since = bq_seconds();
    output o = {s, dir, out, {0}, NULL};
    int code = bq_root_first(s->comm, open_output, &o);
    if (!code) code = write_output(&o);
    if (!code) list_output(&o, of, list);
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
        bq_heartbeat();
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

/* What the recipe says of embedding and head, of inputs, keys and values, if one of them is rounded; the
 * caller frees it. */
static char *said_of_others(const bq_run *s) {
    json_t *said = bq_result_bits(s);
    char *text = json_object_size(said) ? json_dumps(said, JSON_COMPACT) : strdup("");
    json_decref(said);
    return text;
}

/* What decides the bytes of an output: the run's fingerprint, what the recipe says of the output, but for
 * what only its card has, and the samples if something was measured on them for it. */
static char *identity(const bq_run *s, int i) {
    const bq_output *o = &s->recipe.output[i];
    char measured[32] = "";
    if (bq_recipe_cache_measured(&s->recipe) || bq_recipe_inputs_measured(&s->recipe) ||
        bq_format_wants_inputs(o->format, o->options))
        snprintf(measured, sizeof measured, " %016lx", (unsigned long)s->calibration.hash);
    json_t *recipe = bq_keys_json(&s->recipe, false);
    json_t *one = json_array_get(json_object_get(recipe, "outputs"), (size_t)i);
    json_object_del(one, "base_model");
    json_object_del(one, "license");
    char *said = json_dumps(one, JSON_COMPACT), *rounded = said_of_others(s), *all = NULL;
    BQ_CHECK(said && rounded &&
                 asprintf(&all, "%016lx %s%s%s", (unsigned long)bq_run_tag(s), said, rounded, measured) >= 0,
             "no memory for the name of an output");
    free(said);
    free(rounded);
    json_decref(recipe);
    return all;
}

/* The paths of an output's folder and of the list of its files. */
typedef struct {
    char dir[2 * BQ_PATH_MAX], mark[2 * BQ_PATH_MAX];
} output_paths;

static output_paths paths_of(const bq_run *s, int i) {
    output_paths p;
    snprintf(p.dir, sizeof p.dir, "%s/%s", s->dir, s->recipe.output[i].dir);
    snprintf(p.mark, sizeof p.mark, "%s/ckpt/export_%s.done", s->dir, s->recipe.output[i].dir);
    return p;
}

static int export_output(const bq_run *s, int i) {
    output_paths p = paths_of(s, i);
    char *of = identity(s, i);
    bq_manifest list = {0};
    int code = exported(s, p.mark, of, p.dir) ? BQ_OK : export_one(s, &s->recipe.output[i], p.dir, of, &list);
    if (list.of && !code) bq_manifest_write(&list, p.mark);
    bq_manifest_close(&list);
    free(of);
    return code;
}

int bq_outputs_write(const bq_run *s) {
    int code = BQ_OK;
    for (int i = 0; i < s->recipe.noutput && !code; i++) code = export_output(s, i);
    return code;
}

int bq_outputs_publish(const bq_run *s) {
    int code = BQ_OK;
    for (int i = 0; i < s->recipe.noutput && !code && s->comm->rank == 0; i++) {
        output_paths p = paths_of(s, i);
        bq_manifest list;
        BQ_CHECK(bq_manifest_read(&list, p.mark), "'%s' has gone since the output was written", p.mark);
        code = bq_publish_output(s, &s->recipe.output[i], p.dir, &list);
        bq_manifest_close(&list);
    }
    return bq_comm_agree(s->comm, code);
}

int bq_outputs_write_one(const bq_run *s, const char *dir) {
    bq_manifest list = {0};
    int code = export_one(s, s->recipe.output, dir, "", &list);
    if (!code && s->comm->rank == 0) code = bq_publish_output(s, s->recipe.output, dir, &list);
    bq_manifest_close(&list);
    return bq_comm_agree(s->comm, code);
}
