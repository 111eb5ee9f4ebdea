/* SPDX-License-Identifier: Apache-2.0 */
/* files.h - paths, sizes, and files that are whole or absent.
 *
 * Functions that return int return 0, an errno, or a code of base/open.h.  They print nothing: the caller
 * decides whether that is a broken environment or bad input.  All calls are local.
 *
 * Fault points: file_read, file_sync, dir_sync (EIO); file_write, file_rename, file_append (ENOSPC);
 * dir_make (EACCES). */
#ifndef BQ_FILES_H
#define BQ_FILES_H

#include "base/open.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BQ_PATH 4096 /* room for a path, the closing 0 included */

/* out = dir/name.  An empty dir or an absolute name gives name.  A path that does not fit ends the job. */
void bq_path_join(char *out, size_t n, const char *dir, const char *name);

bool bq_file_exists(const char *path);
int64_t bq_file_size(const char *path); /* -1 if there is no such file */

/* Read the whole file into *data, with a 0 after its end that *bytes does not count; free(*data).  EFBIG if
 * it is longer than max_bytes.  It must be a regular file, or a pipe without a name, as the shell makes for
 * <(command): that is read to its end.  On failure *data is NULL. */
int bq_file_read(const char *path, size_t max_bytes, char **data, size_t *bytes);

/* out = "<path>.<pid>.tmp", where this process makes what becomes path.  So two processes never write into
 * one file, and the later rename wins.  Temporary files of the same path are removed if their process is
 * gone. A process on another machine looks gone, too; in a run directory the lock (state/lock.h) keeps those
 * away. */
void bq_temp_name(char *out, size_t n, const char *path);
/* Remove all temporary files in dir, also those whose process seems to live: its number may have been given
 * to another one.  Only for a directory that this job alone writes to, before it has written there. */
void bq_temps_remove(const char *dir);

/* Write all bytes to the descriptor, through short writes and signals. */
int bq_file_put(int fd, const void *data, size_t bytes);

/* Make path hold exactly these bytes, or leave it as it was: write a temporary file, fsync, rename, fsync
 * the directory. (Only if the last step fails, path has the new bytes already.) */
int bq_file_write_atomic(const char *path, const void *data, size_t bytes);

/* Append the bytes to path, an own file (base/open.h) that is made if absent.  One write, unless the system
 * takes less than all. */
int bq_file_append(const char *path, const void *data, size_t bytes);

/* The second half alone: temp, which anyone has written and closed (the HDF5 library, say), becomes path.
 * A link at path is replaced, not followed; anything else that is not a regular file gives EEXIST.  Where
 * it fails before the rename, temp stays. */
int bq_file_rename(const char *temp, const char *path);

/* A copy of the text, for free().  Room for one more element behind `count`: the array, moved where it
 * grows. */
char *bq_text_copy(const char *text);
void *bq_grow(void *array, int count, int *room, size_t size);

/* Create the directory and those above it.  It may exist already. */
int bq_dir_make(const char *path);
/* Make renames and new names in a directory durable.  Where the file system cannot sync a directory
 * (EINVAL, ENOTSUP), that counts as done. */
int bq_dir_sync(const char *path);

#endif
