/* manifest.h - what a finished directory holds: its files' names, sizes and hashes, in a sealed object
 * (json.h) that lies elsewhere.
 *
 * A file is the one that was written if it has its size, and has not changed (ctime) since the manifest was
 * written or else has its hash.  Looking at a directory that was left alone reads nothing, at a copy of it
 * each file once.  All calls are local. */
#ifndef BQ_MANIFEST_H
#define BQ_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char *name; /* in the directory itself */
    int64_t size;
    uint64_t hash; /* XXH3 of its bytes */
} bq_manifest_file;

typedef struct {
    char *of;        /* what the directory holds, in the caller's words */
    int64_t written; /* ctime of the manifest in ns since 1970, when it was read */
    int count, room;
    bq_manifest_file *file;
} bq_manifest;

/* A new one has no file; close takes a zeroed struct, too. */
void bq_manifest_new(bq_manifest *m, const char *of);
/* A file of the directory as it is now; its hash, where that is known, or NULL.  False, and nothing is added:
 * errno, or BQ_NOT_FILE. */
bool bq_manifest_add(bq_manifest *m, const char *dir, const char *name, const uint64_t *hash);
void bq_manifest_close(bq_manifest *m);

/* Whole or not at all; ends the job when the disk fails. */
void bq_manifest_write(const bq_manifest *m, const char *path);
/* False where there is none that can be believed; silent.  The caller closes in any case. */
bool bq_manifest_read(bq_manifest *m, const char *path);

enum {
    BQ_MANIFEST_SAME,  /* unchanged since */
    BQ_MANIFEST_EQUAL, /* changed in time, not in content: it was read */
    BQ_MANIFEST_OTHER, /* gone, or of other content */
};
int bq_manifest_look(const bq_manifest *m, int i, const char *dir);

#endif
