/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/run/session.h"

#include "base/die.h"
#include "base/log.h"
#include "io/files.h"
#include "io/out/export.h"
#include "io/rundir.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { RUN_DIRS = 3 };
static void run_dir(const bq_run *s, int i, char path[BQ_PATH_MAX + 16]) {
    static const char *const sub[RUN_DIRS] = {"", "/ckpt", "/acts"};
    snprintf(path, BQ_PATH_MAX + 16, "%s%s", s->dir, sub[i]);
}

/* Check the run directory before anything is made or opened there. */
static int check_place(const bq_run *s) {
    char path[2 * BQ_PATH_MAX], mark[2 * BQ_PATH_MAX];
    if (s->comm->rank) return BQ_OK;
    int code = bq_rundir_place(s->dir);
    if (!code) code = bq_rundir_check(s->dir, true);
    for (int i = 0; i < s->recipe.noutput && !code; i++) {
        snprintf(path, sizeof path, "%s/%s", s->dir, s->recipe.output[i].dir);
        snprintf(mark, sizeof mark, "%s/ckpt/export_%s.done", s->dir, s->recipe.output[i].dir);
        code = bq_export_look(s->src.dir, path, bq_file_exists(mark));
    }
    return code;
}

static int make_dirs(const bq_run *s) {
    char path[BQ_PATH_MAX + 16];
    for (int i = 0; i < RUN_DIRS; i++) {
        run_dir(s, i, path);
        int error = bq_dir_make(path);
        if (error) return bq_refuse(BQ_USAGE, "run directory %s cannot be made: %s", path, strerror(error));
    }
    return BQ_OK;
}

static int take_lock(bq_run *s) {
    char path[BQ_PATH_MAX + 16];
    if (s->comm->rank || s->args->command != BQ_COMMAND_RUN) return BQ_OK;
    int code = bq_lock_take(&s->lock, s->dir);
    for (int i = 0; i < RUN_DIRS && s->lock.held; i++) {
        run_dir(s, i, path);
        bq_temps_remove(path);
    }
    return code;
}

static int open_log(bq_run *s) {
    char log[BQ_PATH_MAX + 16];
    snprintf(log, sizeof log, "%s/run.log", s->dir);
    if (s->comm->rank && s->args->acts != BQ_ACTS_BY_ROOT) bq_log_errors_to(log);
    int error = s->comm->rank == 0 ? bq_log_open(log) : 0;
    if (error) return bq_refuse(BQ_USAGE, "'%s' cannot be written: %s", log, bq_file_why(error));
    return BQ_OK;
}

int bq_session_place(bq_run *s) {
    int code = check_place(s);
    if (!code) code = make_dirs(s);
    if (!code) code = take_lock(s);
    return code ? code : open_log(s);
}

int bq_session_reference(bq_run *s) {
    if (!s->args->reference) return BQ_OK;
    int code = bq_rundir_folder(s->args->reference);
    snprintf(s->heads, sizeof s->heads, "%s/%016" PRIx64, s->args->reference, s->acts_hash);
    if (!code) code = bq_rundir_folder(s->heads);
    if (code) return code;
    int error = bq_dir_make(s->heads);
    if (error) return bq_refuse(BQ_USAGE, "--reference: %s cannot be made: %s", s->heads, strerror(error));
    if (s->comm->rank) return BQ_OK;
    code = bq_lock_take_at(&s->shared, s->heads, "lock", "--reference");
    if (!code) bq_temps_remove(s->heads);
    return code;
}
