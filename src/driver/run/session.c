/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/session.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "comm/heartbeat.h"
#include "comm/nccl.h"
#include "driver/streams/cache.h"
#include "driver/load/device.h"
#include "driver/plan/distill.h"
#include "driver/run/distill.h"
#include "driver/plan/mixed.h"
#include "driver/recipe/named.h"
#include "driver/recipe/traits.h"
#include "driver/run/account.h"
#include "driver/run/outputs.h"
#include "driver/run/publish.h"
#include "driver/score/observed.h"
#include "driver/score/score.h"
#include "io/state/checkpoint.h"
#include "io/files.h"

#include <errno.h>
#include <gnu/libc-version.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_tokens(const char *path, bq_tokens *t) { return path[0] ? bq_tokens_read(path, t) : BQ_OK; }

/* Does something beside the passes read samples? */
static bool reads_samples(const bq_recipe *r) {
    return r->bits.mixed.count || r->distill.steps || bq_recipe_learns(r);
}

static int lack_tokens(const bq_recipe *r) {
    if (r->bits.mixed.count && !r->calibration.tokens[0])
        return bq_refuse(BQ_USAGE, "calibration.tokens is missing, and bits.auto measures errors on samples: "
                                   "write it into the recipe or give --set calibration.tokens=...");
    if (bq_recipe_learns(r) && !r->calibration.tokens[0])
        return bq_refuse(BQ_USAGE,
                         "calibration.tokens is missing, and transforms.0.learn reads samples: write it "
                         "into the recipe or give --set calibration.tokens=...");
    if (r->distill.steps && !r->calibration.tokens[0])
        return bq_refuse(BQ_USAGE,
                         "calibration.tokens is missing, and distill reads samples: write it into the "
                         "recipe or give --set calibration.tokens=...");
    for (int p = 0; p < r->nphase && !r->calibration.tokens[0]; p++)
        if (bq_phase_calibrated(&r->phase[p]))
            return bq_refuse(BQ_USAGE,
                             "calibration.tokens is missing, and phases.%d reads samples: write it into the "
                             "recipe or give --set calibration.tokens=...",
                             p);
    return BQ_OK;
}

/* Can the outputs hold the schemes?  Where they are still to be chosen: any of them at any site. */
static int outputs_fit(bq_run *s) {
    const bq_mixed *m = &s->recipe.bits.mixed;
    bq_mixed_site *list;
    int code, count;
    if (!m->count) return bq_outputs_fit(s);
    if ((code = bq_mixed_check(m, &s->src))) return code;
    count = bq_mixed_sites(&s->src, &list);
    bq_mixed_open(&s->layouts, &s->src);
    for (int k = 0; k < m->count && !code; k++) {
        for (int i = 0; i < count; i++) {
            const bq_scheme scheme = m->scheme[(i + k) % m->count];
            if (isfinite(bq_mixed_cost(m, &list[i], scheme))) bq_mixed_set(&s->layouts, &list[i], scheme);
        }
        code = bq_outputs_fit(s);
    }
    bq_mixed_free(&s->layouts);
    free(list);
    return code;
}

static int open_inputs(void *session) {
    bq_run *s = session;
    const bq_recipe *r = &s->recipe;
    int code = bq_source_open(&s->src, s->args->model_copy ? s->args->model_copy : r->model);
    if (!code) bq_source_layouts(&s->src, &s->layouts);
    if (!code) code = bq_plan_schemes(r, &s->layouts);
    if (!code && r->bits.schemes[0])
        code = bq_mixed_read(r->bits.schemes, r, &s->src, &s->layouts, &s->schemes_hash);
    if (!code && s->src.arch.experts && bq_recipe_prescaled(r))
        code = bq_refuse(BQ_USAGE,
                         "smoothquant with fuse false: %s has experts, whose inputs have no factors of "
                         "their own: leave fuse out",
                         s->recipe.model);
    if (!code) code = bq_source_transform(&s->src, r);
    if (!code && (s->args->command == BQ_COMMAND_RUN || s->args->command == BQ_COMMAND_PLAN))
        code = outputs_fit(s);
    bq_mixed_bound_by(&s->layouts, &r->bits.mixed);
    if (!code && s->args->command == BQ_COMMAND_RUN) code = lack_tokens(r);
    if (!code) code = read_tokens(r->calibration.tokens, &s->calibration);
    if (!code && s->calibration.ids)
        code = bq_source_check_tokens(&s->src, r->calibration.tokens, &s->calibration, r->calibration.offset,
                                      (r->calibration.samples + (r->distill.steps ? r->distill.held : 0)) *
                                          r->calibration.length);
    if (!code && s->calibration.ids)
        bq_source_check_length(&s->src, "calibration.length", r->calibration.length);
    if (!code && !s->args->no_eval) code = bq_score_open(&s->evals, &s->recipe, &s->src, "eval.ctx");
    for (int i = 0; i < s->evals.count && !code && s->calibration.ids; i++) {
        const bq_eval *e = &s->evals.eval[i];
        if (e->tokens.tokenizer[0])
            code = bq_source_same_tokenizer(r->calibration.tokens, &s->calibration, e->path, &e->tokens);
    }
    if (!code) code = bq_distill_check(r, &s->layouts);
    const bq_phase *last = &r->phase[r->nphase - 1];
    if (!code && r->sweeps > 1 && (!(bq_phase_traits(last) & BQ_PASS_TRAINS) || last->inputs == BQ_INPUTS_FP))
        code = bq_refuse(
            BQ_USAGE,
            "sweeps is %d: repeats need a last phase that trains on the quantized stream (inputs qt "
            "or mix)",
            r->sweeps);
    if (!code && r->segments > s->src.arch.model.blocks)
        code = bq_refuse(BQ_USAGE, "segments is %d, the model has %d blocks", r->segments,
                         s->src.arch.model.blocks);
    if (!code) code = bq_observed_check(r, &s->src.arch.model);
    s->reference = s->calibration.ids && bq_recipe_traits(r) & BQ_PASS_CALIBRATED;
    if (!s->reference && !bq_observed_wanted(r) && !reads_samples(r)) bq_tokens_close(&s->calibration);
    return code;
}

static int choose_grid(void *session) {
    bq_run *s = session;
    s->grid = (bq_grid){&s->recipe, s->src.arch.model.blocks, 1, s->args->acts != BQ_ACTS_BY_ROOT};
    return bq_grid_choose(&s->grid, s->comm->size, s->args->ranks ? 0 : s->args->stages);
}

static int plan(void *session) {
    bq_run *s = session;
    const bq_args *a = s->args;
    bq_plan_make(&s->plan, &s->recipe, &s->layouts, s->comm, a, &s->evals, bq_device_memory(a, s->comm));
    return a->command == BQ_COMMAND_PLAN ? BQ_OK : bq_plan_check(&s->plan);
}

static int open_device(void *session) {
    bq_run *s = session;
    size_t arena =
        s->args->command == BQ_COMMAND_PLAN
            ? bq_machine_need(bq_source_first(&s->src), s->recipe.calibration.length, bq_plan_probe(&s->plan))
            : s->plan.arena;
    return bq_device_open(&s->dev, s->args, s->comm, arena);
}

static void want_stop(int number) {
    (void)number;
    bq_stop_wanted = 1;
}

/* A second SIGINT kills the process, as usual.  If SIGINT is ignored, as in a background job of a shell, it
 * stays ignored. */
static void catch_signals(void) {
    struct sigaction act = {.sa_handler = want_stop, .sa_flags = SA_RESTART}, before;
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGUSR1, &act, NULL);
    act.sa_flags |= (int)SA_RESETHAND;
    sigaction(SIGINT, NULL, &before);
    if (before.sa_handler != SIG_IGN) sigaction(SIGINT, &act, NULL);
}

/* Refuse ranks that compute differently (another device, CPU or BLAS): the others would refuse their
 * checkpoints.  mine: a number that is equal on ranks of one kind. */
static int check_class(const bq_run *s, uint64_t mine) {
    uint64_t first = mine;
    bq_comm_bcast(s->comm, &first, sizeof first);
    int odd = bq_comm_agree(s->comm, first == mine ? 0 : s->comm->rank);
    if (odd == 0) return BQ_OK;
    if (odd == s->comm->rank)
        bq_refuse(BQ_LAUNCH,
                  "this rank computes with '%s', rank 0 does not: start on nodes of one kind, with one "
                  "--device",
                  s->dev.name);
    return BQ_LAUNCH;
}

int bq_session_open(bq_run *s, const bq_args *args, bq_comm *comm) {
    *s = (bq_run){.args = args, .comm = comm, .first = {NAN, NAN, NAN}, .started = bq_seconds()};
    s->account.at = s->started;
    snprintf(s->dir, sizeof s->dir, "%s", args->out);
    if (args->command == BQ_COMMAND_RUN) catch_signals();
    int code = comm->rank == 0 ? bq_named_read(args, &s->recipe) : BQ_OK;
    if ((code = bq_comm_agree(comm, code))) return code;
    bq_comm_bcast(comm, &s->recipe, sizeof s->recipe);
    if ((code = bq_root_first(comm, open_inputs, s))) return code;
    if ((code = bq_root_first(comm, choose_grid, s))) return code;
    if ((code = bq_comm_grid(comm, s->grid.nstage))) return code;
    if ((code = bq_root_first(comm, plan, s))) return code;
    if ((code = bq_root_first(comm, open_device, s))) return code;
    if ((code = check_class(s, (uint64_t)s->dev.mem.place))) return code; /* else bq_nccl_open hangs */
    comm->nccl = bq_nccl_open(comm, &s->dev);
    if (!bq_comm_agree(comm, !s->plan.direct)) comm->depth = bq_nccl_open_depth(comm, &s->dev);
    return BQ_OK;
}

void bq_session_close(bq_run *s) {
    bq_cache_close(s);
    bq_state_close(s->state);
    free(s->latest);
    free(s->boundary);
    free(s->kv);
    free(s->grids);
    free(s->final_norm);
    if (s->comm) bq_nccl_close(s->comm->depth), bq_nccl_close(s->comm->nccl);
    if (s->comm) s->comm->depth = s->comm->nccl = NULL;
    bq_dev_close(&s->dev);
    bq_tokens_close(&s->calibration);
    bq_evals_close(&s->evals);
    bq_mixed_free(&s->layouts);
    bq_source_close(&s->src);
    bq_lock_release(&s->lock);
    bq_lock_release(&s->shared);
    bq_log_close();
    *s = (bq_run){0};
}

static void add_part(bq_run *s, const char *name, uint64_t hash) {
    BQ_CHECK(s->parts < BQ_PARTS, "more than %d parts in a fingerprint", BQ_PARTS);
    bq_part *p = &s->part[s->parts++];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->hash = hash;
}

static uint64_t part_of(const bq_run *s, const char *name) {
    int i = 0;
    while (i < s->parts && strcmp(s->part[i].name, name)) i++;
    BQ_CHECK(i < s->parts, "the fingerprint has no part '%s'", name);
    return s->part[i].hash;
}

/* Hash everything that changes bytes: each part by name, the FP stream (acts_hash), the run (fingerprint). */
static int fingerprint(bq_run *s) {
    char cache[BQ_PATH_MAX + 32];
    snprintf(cache, sizeof cache, "%s/ckpt/model.hash.json", s->dir);
    int code = bq_source_fingerprint(&s->src, cache, &s->model_hash);
    if (code) return code;
    snprintf(s->numerics, sizeof s->numerics, "%d %s glibc %s gcc %s", BQ_NUMERICS, s->dev.name,
             gnu_get_libc_version(), __VERSION__);
    s->parts = bq_recipe_parts(&s->recipe, s->part);
    add_part(s, "model", s->model_hash);
    add_part(s, "numerics", bq_hash_text(s->numerics));
    if (s->reference || reads_samples(&s->recipe)) add_part(s, "tokens", s->calibration.hash);
    if (s->recipe.bits.schemes[0]) add_part(s, "schemes", s->schemes_hash);
    bq_hash *all = bq_hash_open();
    for (int i = 0; i < s->parts; i++) {
        bq_hash_add(all, s->part[i].name, strlen(s->part[i].name) + 1);
        bq_hash_add(all, &s->part[i].hash, sizeof s->part[i].hash);
    }
    s->fingerprint = bq_hash_close(all);
    bq_distill_tag(s);
    const bool learns = bq_recipe_learns(&s->recipe); /* then the rotations follow from samples and schemes */
    const uint64_t acts[] = {s->model_hash,
                             s->calibration.hash,
                             (uint64_t)s->recipe.calibration.offset,
                             (uint64_t)s->recipe.rope | (uint64_t)s->recipe.reference << 8,
                             bq_hash_text(s->numerics),
                             part_of(s, "transforms"),
                             s->recipe.ntransform ? s->recipe.seed : 0,
                             learns ? part_of(s, "calibration") : 0,
                             learns ? part_of(s, "bits") : 0,
                             learns ? s->schemes_hash : 0};
    s->acts_hash = bq_hash_bytes(acts, sizeof acts);
    return BQ_OK;
}

static void part_arrays(const bq_run *s, const char **names, uint64_t *hashes) {
    for (int i = 0; i < s->parts; i++) names[i] = s->part[i].name, hashes[i] = s->part[i].hash;
}

void bq_session_save(bq_run *s, double seconds) {
    const char *names[BQ_PARTS];
    uint64_t hashes[BQ_PARTS];
    char grid[32];
    part_arrays(s, names, hashes);
    snprintf(grid, sizeof grid, "%dx%d", s->comm->nstage, s->comm->nreplica);
    if (s->comm->rank == 0) bq_state_save(s->state, names, hashes, s->parts, seconds, grid);
}

static void write_recipe(const bq_run *s) {
    char *text = NULL, path[BQ_PATH_MAX + 16];
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    BQ_CHECK(f, "no memory for the resolved recipe");
    bq_recipe_write(&s->recipe, f);
    fclose(f);
    snprintf(path, sizeof path, "%s/recipe.json", s->dir);
    int error = bq_file_write_atomic(path, text, bytes);
    BQ_CHECK(error == 0, "write of '%s' failed: %s", path, strerror(error));
    free(text);
}

/* Keep bits.schemes: eval and export need it, and its owner may edit it. */
static void keep_schemes(const bq_run *s) {
    char path[BQ_PATH_MAX + 16], *text;
    size_t bytes;
    snprintf(path, sizeof path, "%s/schemes.json", s->dir);
    if (!s->recipe.bits.schemes[0]) return;
    int error = bq_file_read(s->recipe.bits.schemes, BQ_MIXED_BYTES, &text, &bytes);
    if (!error) error = bq_file_write_atomic(path, text, bytes);
    BQ_CHECK(!error, "'%s' cannot be copied to '%s': %s", s->recipe.bits.schemes, path, bq_file_why(error));
    free(text);
}

static int enter(void *session) {
    bq_run *s = session;
    int code = bq_session_place(s);
    if (!code) code = fingerprint(s);
    if (!code) code = bq_session_resume(s);
    if (!code) code = bq_session_reference(s);
    if (code) return code;
    if (s->comm->rank == 0 && s->args->command == BQ_COMMAND_RUN) bq_account_open(s);
    return BQ_OK;
}

int bq_session_enter(bq_run *s) {
    int code = bq_root_first(s->comm, enter, s);
    if (!code) code = check_class(s, s->fingerprint);
    if (code) return code;
    bq_cache_open(s);
    s->boundary =
        calloc((size_t)s->recipe.sweeps * ((size_t)s->recipe.nphase + 1), (size_t)s->src.arch.model.blocks);
    BQ_CHECK(s->boundary, "no memory for the boundaries of %d blocks", s->src.arch.model.blocks);
    int64_t done = bq_state_count(s->state), phases = s->recipe.nphase + s->recipe.sweeps - 1;
    if (s->comm->rank == 0 && s->args->command == BQ_COMMAND_RUN) {
        write_recipe(s);
        keep_schemes(s);
        bq_publish_origin(s);
        bq_session_save(s, 0);
    }
    if (done)
        bq_log(BQ_INFO, "%s: %ld of %s%ld blocks are done, going on from there", s->dir, (long)done,
               s->recipe.sweeps > 1 ? "at most " : "", (long)phases * s->src.arch.model.blocks);
    return BQ_OK;
}
