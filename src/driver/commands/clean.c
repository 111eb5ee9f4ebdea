/* SPDX-License-Identifier: Apache-2.0 */
/* clean.c - `blockq clean`: from run directories that are done, what the next start would make again if it
 * were needed: activation files, and states inside blocks.  Checkpoints, outputs, logs and numbers stay. */
#include "driver/commands/commands.h"

#include "base/die.h"
#include "base/log.h"
#include "io/folder.h"
#include "io/rundir.h"
#include "io/state/lock.h"
#include "io/state/state.h"

#include <stdio.h>

/* Has every phase of it every block? */
static bool is_done(const char *dir) {
    bq_state_summary made;
    if (!bq_state_read(dir, &made)) return false;
    for (int p = 0; p < made.phases; p++)
        for (int b = 0; b < made.blocks; b++)
            if (bq_state_listed(dir, p, b) < 0) return false;
    return true;
}

static int clean(const char *dir, bool dry) {
    static const char *const acts[] = {"fp_*.h5", "qt_*.h5", "*.h5.valid", "*.tmp", NULL};
    static const char *const ckpt[] = {"inside_*.h5", "*.tmp", NULL};
    char path[BQ_PATH];
    int64_t bytes, files = 0;
    bq_lock lock = {0};
    if (!bq_rundir_is(dir)) return bq_refuse(BQ_USAGE, "%s: there is no run", dir);
    int code = bq_rundir_check(dir, true);
    if (!code) code = bq_lock_take(&lock, dir);
    if (!code && !is_done(dir))
        code = bq_refuse(
            BQ_USAGE,
            "%s: not all of its blocks are done, and it would lose time: let it end, or remove the directory",
            dir);
    if (!code) {
        bq_path_join(path, sizeof path, dir, "acts");
        bytes = bq_folder_clear(path, acts, dry, &files);
        bq_path_join(path, sizeof path, dir, "ckpt");
        bytes += bq_folder_clear(path, ckpt, dry, &files);
        printf("%s: %ld files, %.1f MB%s\n", dir, (long)files, (double)bytes / 1e6,
               dry ? ", would be removed" : "");
    }
    bq_lock_release(&lock);
    return code;
}

int bq_cmd_clean(const bq_args *args, bq_comm *comm) {
    (void)comm;
    int first = BQ_OK;
    for (int i = 0; i < args->nfile; i++) {
        const int code = clean(args->file[i], args->dry_run);
        if (!first) first = code;
    }
    return first;
}
