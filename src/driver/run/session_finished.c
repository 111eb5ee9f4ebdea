/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/session.h"

#include "base/die.h"
#include "comm/heartbeat.h"
#include "driver/load/device.h"
#include "driver/plan/mixed.h"
#include "driver/run/distill.h"
#include "driver/run/observe.h"
#include "driver/run/learning.h"
#include "driver/run/sensitivity.h"
#include "driver/score/observed.h"
#include "driver/score/prompts.h"
#include "driver/streams/sweep.h"
#include "io/state/checkpoint.h"
#include "io/files.h"
#include "io/state/raw.h"
#include "io/rundir.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Read the run's fingerprint from the seal of its first checkpoint.  It cannot be computed here: this machine
 * may be of another kind. */
static bool read_fingerprint(bq_run *s) {
    char path[BQ_PATH_MAX + 64];
    int64_t size;
    bq_ckpt_path(path, sizeof path, s->dir, 0, s->recipe.nphase - 1, 0);
    int fd;
    bool sealed = !bq_file_open_own(path, O_RDONLY, &fd) && bq_seal_check(fd, false, &size, &s->fingerprint);
    if (fd >= 0) close(fd);
    bq_distill_tag(s);
    return sealed;
}

static bool finished(const bq_run *s) {
    for (int b = 0; b < s->src.arch.model.blocks; b++)
        if (bq_sweep_latest(s, s->recipe.nphase - 1, b, s->recipe.sweeps) < 0) return false;
    return !s->recipe.distill.steps || bq_distill_done(s);
}

/* Refuse a recipe or a model that has changed since the run was made. */
static int check_parts(bq_run *s) {
    char cache[BQ_PATH_MAX + 32];
    bq_part part[BQ_PARTS];
    int parts = bq_recipe_parts(&s->recipe, part);
    for (int i = 0; i < parts; i++)
        if (bq_state_differs(s->dir, part[i].name, part[i].hash))
            return bq_refuse(
                BQ_DATA,
                "%s/recipe.json is not the recipe that the run was made by (%s differs): `blockq "
                "run` it again, that writes the file anew",
                s->dir, part[i].name);
    snprintf(cache, sizeof cache, "%s/ckpt/model.hash.json", s->dir);
    int code = bq_source_fingerprint(&s->src, cache, &s->model_hash);
    if (code) return code;
    if (bq_state_differs(s->dir, "model", s->model_hash))
        return bq_refuse(BQ_DATA, "%s: the model is not the one that the run in %s was made from", s->src.dir,
                         s->dir);
    return BQ_OK;
}

/* An evaluation needs the scales of a quantized cache, an export all that its formats write. */
static int check_observed(const bq_run *s) {
    const bool computes = s->args->command == BQ_COMMAND_EVAL || s->args->command == BQ_COMMAND_GENERATE;
    bool wanted = computes ? bq_recipe_cache_measured(&s->recipe) || bq_recipe_inputs_measured(&s->recipe)
                           : bq_observed_wanted(&s->recipe);
    return !wanted || bq_observe_there(s)
               ? BQ_OK
               : bq_refuse(BQ_DATA,
                           "%s/ckpt/observed.f32 is not there or not of this recipe: `blockq run` it again "
                           "with what is to be written; only that is made anew",
                           s->dir);
}

/* An export goes to a directory that is new, is empty, or holds a model; the exporter checks whose model that
 * is. */
static int check_place(const char *out) {
    char path[BQ_PATH_MAX + 32];
    struct dirent *entry;
    int code = bq_rundir_folder(out);
    if (code) return code;
    snprintf(path, sizeof path, "%s/config.json", out);
    DIR *dir = bq_file_exists(path) ? NULL : opendir(out);
    int others = 0;
    while (dir && (entry = readdir(dir))) others += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    if (dir) closedir(dir);
    return others
               ? bq_refuse(BQ_USAGE, "%s holds other things than a model: name a new or empty directory", out)
               : BQ_OK;
}

/* The copy of bits.schemes that the run has kept. */
static int read_schemes(bq_run *s) {
    char path[BQ_PATH_MAX + 32];
    if (!s->recipe.bits.schemes[0]) return BQ_OK;
    snprintf(path, sizeof path, "%s/schemes.json", s->dir);
    int code = bq_mixed_read(path, &s->recipe, &s->src, &s->layouts, &s->schemes_hash);
    if (!code && bq_state_differs(s->dir, "schemes", s->schemes_hash))
        code = bq_refuse(BQ_DATA, "%s has changed since the run was made: `blockq run` it again", path);
    return code;
}

static int look(void *session) {
    bq_run *s = session;
    const bq_args *a = s->args;
    int code = s->comm->rank ? BQ_OK : bq_rundir_check(s->dir, false);
    if (!code) code = bq_source_open(&s->src, s->recipe.model);
    if (!code) bq_source_layouts(&s->src, &s->layouts);
    if (!code) code = bq_plan_schemes(&s->recipe, &s->layouts);
    if (!code) code = read_schemes(s);
    if (!code) code = bq_source_transform(&s->src, &s->recipe);
    if (!code && (!read_fingerprint(s) || !finished(s)))
        code = bq_refuse(BQ_DATA, "%s is not finished: `blockq run` it to the end first", s->dir);
    s->distilled = s->recipe.distill.steps > 0;
    if (!code) code = bq_learning_read(s);
    bq_mixed_bound_by(&s->layouts, &s->recipe.bits.mixed);
    if (!code) code = bq_sensitivity_read(s);
    if (!code && a->command == BQ_COMMAND_EXPORT) code = check_place(a->out);
    if (!code && s->comm->rank == 0) code = check_parts(s);
    if (!code && s->comm->rank == 0) code = check_observed(s);
    if (!code) code = bq_prompts_or_evals(&s->evals, &s->recipe, a, &s->src);
    size_t arena = 0;
    if (!code && s->evals.count) {
        size_t host = bq_rotated_need(&s->recipe, &s->src.arch) +
                      bq_score_host(bq_source_first(&s->src), &s->evals, s->comm->size);
        arena = bq_score_need(&s->layouts, true, bq_recipe_prescaled(&s->recipe), &s->evals);
        code = bq_plan_evaluation(arena + host, bq_score_stream(&s->src.arch, &s->evals, s->comm->size),
                                  a->memory, s->comm, a->scratch, &s->plan.home.scratch);
    }
    if (!code) code = bq_device_open(&s->dev, a, s->comm, arena);
    return code;
}

/* Check every byte of the checkpoints that will be used, each rank those of its share of the blocks, before
 * any other work.  The rank that read the last damaged one names it. */
static int check_blocks(const bq_run *s) {
    char path[BQ_PATH_MAX + 64], why[BQ_WHY], bad_path[BQ_PATH_MAX + 64], bad_why[BQ_WHY];
    int bad = 0, code = BQ_OK, units = 1 + s->src.arch.experts;
    for (int i = s->comm->rank; i < s->src.arch.model.blocks * units; i += s->comm->size) {
        bq_ckpt_file *f;
        bq_ckpt head;
        int phase = s->recipe.nphase - 1, b = i / units, unit = i % units,
            listed = bq_state_listed(s->dir, phase, b), /* it may be of a later sweep that is damaged */
            sweep = listed > s->latest[b] ? listed : s->latest[b];
        if (unit > bq_source_arch(&s->src, b)->experts) continue;
        if (s->distilled)
            phase = s->recipe.nphase, sweep = 0, bq_run_checkpoint(s, b, unit, path, sizeof path);
        else if (unit)
            bq_ckpt_expert_path(path, sizeof path, s->dir, sweep, phase, b, unit - 1);
        else
            bq_ckpt_path(path, sizeof path, s->dir, sweep, phase, b);
        bq_ckpt_at at = {sweep, phase, b, unit};
        if (bq_ckpt_open_at(&f, path, bq_run_tag(s), at, &head, why) != BQ_CKPT_OK) {
            bad = b + 1;
            memcpy(bad_path, path, sizeof path), memcpy(bad_why, why, sizeof why);
        }
        bq_ckpt_close(f);
        bq_heartbeat();
    }
    int last = bq_comm_agree(s->comm, bad);
    if (last && last == bad)
        code =
            bq_refuse(BQ_DATA, "%s: %s: `blockq run` it again, that makes the block anew", bad_path, bad_why);
    return bq_comm_agree(s->comm, code);
}

int bq_session_open_finished(bq_run *s, const bq_args *args, bq_comm *comm) {
    char recipe[BQ_PATH_MAX + 16];
    *s = (bq_run){.args = args, .comm = comm};
    snprintf(s->dir, sizeof s->dir, "%s", args->run);
    snprintf(recipe, sizeof recipe, "%s/recipe.json", args->run);
    int code = comm->rank == 0 ? bq_recipe_read(recipe, 0, NULL, &s->recipe) : BQ_OK;
    if (comm->rank == 0 && !code && args->command == BQ_COMMAND_EVAL)
        code = bq_recipe_evaluate(&s->recipe, args);
    if (comm->rank == 0 && !code && args->format) code = bq_recipe_export(&s->recipe, args);
    if ((code = bq_comm_agree(comm, code))) return code;
    bq_comm_bcast(comm, &s->recipe, sizeof s->recipe);
    if ((code = bq_root_first(comm, look, s))) return code;
    bq_sweep_results(s);
    bq_observe_scales(s);
    if ((code = check_blocks(s))) return code;
    bq_distill_final(s);
    return BQ_OK;
}
