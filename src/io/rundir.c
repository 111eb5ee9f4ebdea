/* SPDX-License-Identifier: Apache-2.0 */
#include "io/rundir.h"

#include "base/die.h"
#include "io/files.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

static bool has(const char *dir, const char *name) {
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, dir, name);
    return bq_file_exists(path);
}

bool bq_rundir_is(const char *dir) {
    return has(dir, "ckpt/lock") || (has(dir, "recipe.json") && (has(dir, "ckpt") || has(dir, "run.log")));
}

/* What a run that was killed at its start, or a job script, may have left. */
static bool is_beginning(const char *name) {
    return strcmp(name, "ckpt") == 0 || strcmp(name, "acts") == 0 || fnmatch("job.*", name, 0) == 0 ||
           strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

int bq_rundir_place(const char *dir) {
    DIR *list = bq_rundir_is(dir) ? NULL : opendir(dir);
    char other[sizeof((struct dirent *)NULL)->d_name] = "";
    for (struct dirent *e; list && !other[0] && (e = readdir(list));)
        if (!is_beginning(e->d_name)) snprintf(other, sizeof other, "%s", e->d_name);
    if (list) closedir(list);
    if (!other[0]) return BQ_OK;
    return bq_refuse(BQ_USAGE,
                     "%s is neither empty nor a run directory (it holds '%s'): give another --out, a new "
                     "folder in it, say",
                     dir, other);
}

static int refuse(const char *path, bool folder, bool written) {
    int error = bq_path_own(path, folder, written);
    if (!error) return BQ_OK;
    return bq_refuse(BQ_USAGE, "'%s': %s; put a %s of its own there, or remove it", path, bq_file_why(error),
                     folder ? "folder" : "file");
}

int bq_rundir_folder(const char *path) { return refuse(path, true, false); }
int bq_rundir_file(const char *path) { return refuse(path, false, false); }

/* Check a folder in which every file is blockq's.  Only in acts/ are files written in place. */
static int check_folder(const char *dir, bool written) {
    char path[BQ_PATH];
    struct dirent *e;
    int code = bq_rundir_folder(dir);
    DIR *list = code ? NULL : opendir(dir);
    while (!code && list && (e = readdir(list))) {
        if (e->d_name[0] == '.') continue;
        bq_path_join(path, sizeof path, dir, e->d_name);
        code = refuse(path, false, written);
    }
    if (list) closedir(list);
    return code;
}

int bq_rundir_check(const char *dir, bool written) {
    static const char *const file[] = {"run.log", "run.csv", "ckpt/lock", "recipe.json", "result.json"};
    enum { FILES = sizeof file / sizeof *file, IN_PLACE = 3 };
    char path[BQ_PATH];
    bq_path_join(path, sizeof path, dir, "ckpt");
    int code = check_folder(path, false);
    bq_path_join(path, sizeof path, dir, "acts");
    if (!code) code = check_folder(path, written);
    for (int i = 0; i < FILES && !code; i++) {
        bq_path_join(path, sizeof path, dir, file[i]);
        code = refuse(path, false, written && i < IN_PLACE);
    }
    return code;
}
