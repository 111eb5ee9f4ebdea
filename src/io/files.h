/* files.h - names, sizes, and files that are whole or absent.
 *
 * Functions that return int return 0, an errno or a code of base/open.h: the caller knows whether that is a
 * broken environment or bad input.
 * Fault points: file_write and file_rename, both as "no space left on device". */
#ifndef BQ_FILES_H
#define BQ_FILES_H

#include "base/open.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BQ_PATH 4096 /* room for a path, the closing 0 included */

/* out = dir/name; dies when it does not fit.  An empty dir, or an absolute name, gives name. */
void bq_path_join(char *out, size_t n, const char *dir, const char *name);

bool bq_file_exists(const char *path);
int64_t bq_file_size(const char *path); /* -1 when there is no such file */

/* The whole file, with a 0 after its end (not counted); free(*data).  EFBIG above max_bytes; else as open,
 * but a shell's nameless pipe, as in <(command), is read to its end. */
int bq_file_read(const char *path, size_t max_bytes, char **data, size_t *bytes);

/* out = "<path>.<pid>.tmp": where this process makes what becomes path, so that two processes never write
 * into one file, and the later rename wins.  Temporaries of the same path whose process is gone are removed;
 * one on another machine looks gone, too: in a run directory io/lock.h keeps those away. */
void bq_temp_name(char *out, size_t n, const char *path);
/* Remove all of them in a directory whose only writer is the caller's job, who has written nothing yet: a
 * process number may live again, or stay with a process that nobody waits for. */
void bq_temps_remove(const char *dir);

/* Write to descriptor until all is out; short writes and signals are handled. */
int bq_file_put(int fd, const void *data, size_t bytes);

/* Make path hold exactly these bytes, or leave it as it was: temporary, fsync, rename, fsync of the
 * directory. */
int bq_file_write_atomic(const char *path, const void *data, size_t bytes);

/* Add the bytes to the end of path, a file of blockq's own (base/open.h) made if absent, with one write. */
int bq_file_append(const char *path, const void *data, size_t bytes);

/* The second half alone: temp (written and closed by anyone, HDF5 say) becomes path.  A link there is
 * replaced, not followed; EEXIST for anything else that is no file.  temp stays on failure. */
int bq_file_rename(const char *temp, const char *path);

/* Create the directory and those above it; one that is there already is fine. */
int bq_dir_make(const char *path);
/* Make renames and new names in a directory durable.  File systems that cannot sync one (EINVAL) are
 * believed. */
int bq_dir_sync(const char *path);

#endif
