/* folder.h - a private folder below a directory that others may write to, too: a node's scratch.
 *
 * Its name is new and cannot be guessed, only its user reaches it, and it is held by a lock on it (flock)
 * until it is closed, however the process ends.  So two runs work beside each other, and what a killed one
 * has left is told from what is in use.  All calls are local. */
#ifndef BQ_FOLDER_H
#define BQ_FOLDER_H

#include "io/files.h"

/* Zeroed: none. */
typedef struct {
    char path[BQ_PATH];
    int fd; /* of the folder, valid while path is not "" */
} bq_folder;

/* Make parent where it is absent, and <parent>/<name>-<host>-XXXXXX in it.  0, or an errno. */
int bq_folder_make(bq_folder *f, const char *parent, const char *name);

/* Remove the files whose names match one of the patterns (fnmatch, closed by NULL), and then the folder; what
 * else is in it stays, and keeps it.  A zeroed struct is fine. */
void bq_folder_remove(bq_folder *f, const char *const *patterns);

/* The same for what killed processes left: folders of that name in parent which are of this user and host and
 * which nobody holds.  Where the file system has no locks: nothing. */
void bq_folder_remove_left(const char *parent, const char *name, const char *const *patterns);

#endif
