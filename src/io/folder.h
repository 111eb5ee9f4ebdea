/* SPDX-License-Identifier: Apache-2.0 */
/* folder.h - a private folder in a directory that others may write to, too: a node's scratch.
 *
 * Its name cannot be guessed, and only its user may enter it.  A lock (flock) marks it as in use until it is
 * closed or its process ends: so what a killed run left can be told from what is in use.  All calls are
 * local. */
#ifndef BQ_FOLDER_H
#define BQ_FOLDER_H

#include "io/files.h"

/* Zeroed: no folder. */
typedef struct {
    char path[BQ_PATH];
    int fd; /* of the folder; valid if path is not "" */
} bq_folder;

/* Make <parent>/<name>-<host>-XXXXXX, and parent where it is absent.  Returns 0, or an errno. */
int bq_folder_make(bq_folder *f, const char *parent, const char *name);

/* Remove the files in it that match one of the patterns (fnmatch; the list ends with NULL), then the folder
 * and the lock.  If anything else is in the folder, that and the folder stay.  A zeroed struct is fine. */
void bq_folder_remove(bq_folder *f, const char *const *patterns);

/* The same for folders of that name, user and host in parent that nobody holds: what killed processes left.
 * Does nothing where the file system has no locks. */
void bq_folder_remove_left(const char *parent, const char *name, const char *const *patterns);

/* Remove the regular files in a directory that match one of the patterns; links and folders stay.  dry: only
 * count.  Adds to *files; returns their bytes, 0 where there is no such directory. */
int64_t bq_folder_clear(const char *dir, const char *const *patterns, bool dry, int64_t *files);

#endif
