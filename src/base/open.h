/* SPDX-License-Identifier: Apache-2.0 */
/* open.h - how blockq opens files: no open waits for somebody else, and blockq writes only to its own files.
 *
 * Inputs are what a user names: models, tokens, texts, recipes.  An input may be a symbolic link, as in the
 * caches of model hubs, but it must lead to a regular file.
 *
 * Own files are in folders that blockq writes to: run directory, output, scratch.  An own file must not be
 * a link, and where it is written it must not have a second name (hard link): otherwise anybody who can
 * make files there could choose what blockq overwrites.  Only the last part of the path is checked: folders
 * on the way may be links.
 *
 * Every descriptor is closed on exec.  Functions return 0, or an errno, or one of the codes below;
 * unless it is 0, *fd is -1. */
#ifndef BQ_OPEN_H
#define BQ_OPEN_H

#include <stdbool.h>
#include <sys/stat.h>

#define BQ_NOT_FILE   (-1) /* a FIFO, a socket or a device: to open or read it might wait for ever */
#define BQ_FILE_LINK  (-2) /* a symbolic link where an own file should be */
#define BQ_FILE_NAMES (-3) /* a file to be written that has several names (hard links) */

/* What an error means, in words: strerror, and texts for the codes above. */
const char *bq_file_why(int error);

/* Open an input, which must be a regular file.  flags as for open.  The caller closes *fd. */
int bq_file_open(const char *path, int flags, int *fd);
/* The same for anything but a directory; *st says what it is. */
int bq_file_open_any(const char *path, int flags, int *fd, struct stat *st);

/* Open an own file; flags as for open, with O_CREAT it is made if absent.  With O_TRUNC it is emptied only
 * after it has been checked. */
int bq_file_open_own(const char *path, int flags, int *fd);

/* Make a new own file to read and write.  What has the name is removed first: it is neither
 * followed nor written. */
int bq_file_create(const char *path, int *fd);

/* Open a directory, to sync or to list it.  own: it must not be a link. */
int bq_dir_open(const char *path, bool own, int *fd);

/* Is what exists at path fit to be an own file (folder: an own directory)?  written: blockq will
 * write to it.  Returns 0 if it is, or if there is nothing or it cannot be seen; else a code as
 * above.  Nothing is opened. */
int bq_path_own(const char *path, bool folder, bool written);

#endif
