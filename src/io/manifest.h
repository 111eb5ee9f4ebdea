/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.h - the files of a finished directory: their names, sizes and hashes, kept as a sealed object
 * (json.h) outside of it.  docs/files.md has the file (export_<dir>.done).
 *
 * A file is taken for the one that was written if it has its size, and either has not changed (ctime) since
 * the manifest was written, or has its XXH3.  So of a directory that was left alone nothing is read, and of
 * a copy each file is read once.  All calls are local. */
#ifndef BQ_MANIFEST_H
#define BQ_MANIFEST_H

#include "base/hash.h"

typedef struct {
    char *name; /* without a folder */
    int64_t size;
    bq_file_hash hash;
} bq_manifest_file;

typedef struct {
    char *of;        /* what the directory holds, in the caller's words; owned */
    int64_t written; /* ctime of the file that it was read from, in ns since 1970; 0 for a new one */
    int count, room;
    bq_manifest_file *file;
} bq_manifest;

/* A new manifest without files; `of` is copied.  close also takes a zeroed struct. */
void bq_manifest_new(bq_manifest *m, const char *of);
/* Add a file of the directory as it is now; hash: its hashes if they are known, else NULL and the file is
 * read.  On false nothing is added, and errno has an errno or BQ_NOT_FILE. */
bool bq_manifest_add(bq_manifest *m, const char *dir, const char *name, const bq_file_hash *hash);
void bq_manifest_close(bq_manifest *m);

/* Write the file, whole or not at all.  Ends the job when the disk fails. */
void bq_manifest_write(const bq_manifest *m, const char *path);
/* False, silently, where there is no file that can be believed.  The caller closes in any case. */
bool bq_manifest_read(bq_manifest *m, const char *path);

/* Not changed since the manifest was written; changed ctime, equal content (read); gone, other or
 * unreadable. */
enum { BQ_MANIFEST_SAME, BQ_MANIFEST_EQUAL, BQ_MANIFEST_OTHER };
int bq_manifest_look(const bq_manifest *m, int i, const char *dir);

#endif
