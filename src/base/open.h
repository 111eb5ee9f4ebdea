/* open.h - how blockq opens files: it waits for nobody, and writes into no file but its own.
 *
 * What a user names (models, tokens, texts, recipes) may be a link, as in the caches of model hubs, but leads
 * to a regular file.  What lies in a folder that blockq writes to (run directory, output, scratch) is no
 * link, and has no second name where it is written: whoever could make files there would choose what is
 * overwritten.  Folders on the way to a file are followed.  All descriptors are closed on exec.
 *
 * Functions return 0, or an errno, or one of these codes; then *fd is -1. */
#ifndef BQ_OPEN_H
#define BQ_OPEN_H

#include <stdbool.h>
#include <sys/stat.h>

#define BQ_NOT_FILE   (-1) /* a FIFO, a socket or a device, which might keep us waiting for ever */
#define BQ_FILE_LINK  (-2) /* a symbolic link, in a folder that blockq writes to */
#define BQ_FILE_NAMES (-3) /* a file to be written that has several names (hard links) */

/* strerror for these codes, too. */
const char *bq_file_why(int error);

/* Open an input.  flags as of open.  The caller closes. */
int bq_file_open(const char *path, int flags, int *fd);
/* The same, but *st says what it is: anything but a directory. */
int bq_file_open_any(const char *path, int flags, int *fd, struct stat *st);

/* Open a file in a folder that blockq writes to, made if absent where flags have O_CREAT.  Nothing is cut off
 * (O_TRUNC) before it is known to be ours. */
int bq_file_open_own(const char *path, int flags, int *fd);

/* A new file to read and write: what has the name is removed first, and is neither followed nor written. */
int bq_file_create(const char *path, int *fd);

/* Open a folder, to sync or to list it.  own: it is no link. */
int bq_dir_open(const char *path, bool own, int *fd);

/* May what is at path be a file (folder: a directory) of blockq's own?  written: one that is written.  0:
 * yes, or nothing can be seen there.  Nothing is opened. */
int bq_path_own(const char *path, bool folder, bool written);

#endif
