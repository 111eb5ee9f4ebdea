/* SPDX-License-Identifier: Apache-2.0 */
#include "io/out/publish.h"

#include "base/die.h"
#include "base/log.h"
#include "io/files.h"
#include "io/rundir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CARD, RECIPE, SUMMARY, SUMS, FILES };
static const char *const names[FILES] = {"README.md", "recipe.json", "quantization.json", "SHA256SUMS"};
#define CARD_BYTES ((size_t)16 << 20) /* a longer README.md is not blockq's */

bool bq_publish_names(const char *name) {
    int i = 0;
    while (i < FILES && strcmp(names[i], name)) i++;
    return i < FILES;
}

/* Is there a README.md that blockq did not write, with something in it? */
static bool is_kept(const char *path) {
    char *text;
    size_t bytes;
    int err = bq_file_read(path, CARD_BYTES, &text, &bytes);
    bool kept = err ? err != ENOENT : bytes && !strstr(text, BQ_CARD_MARK);
    free(text);
    return kept;
}

void bq_publish_remove(const char *dir) {
    char path[BQ_PATH];
    for (int i = 0; i < FILES; i++) {
        bq_path_join(path, sizeof path, dir, names[i]);
        if (i == CARD && is_kept(path)) continue;
        BQ_CHECK(unlink(path) == 0 || errno == ENOENT, "cannot remove '%s': %s", path, strerror(errno));
    }
}

static void put(const char *path, const char *text) {
    char *old;
    size_t bytes, size = strlen(text);
    int err = bq_file_read(path, size, &old, &bytes);
    bool same = !err && bytes == size && memcmp(old, text, size) == 0;
    free(old);
    err = same ? 0 : bq_file_write_atomic(path, text, size);
    BQ_CHECK(!err, "write of '%s' failed: %s", path, strerror(err));
}

static int by_name(const void *a, const void *b) {
    const bq_manifest_file *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* As coreutils do: a line whose name has a backslash or a line's end begins with a backslash, and the name
 * has `\\` and `\n`. */
static void put_line(FILE *to, const bq_manifest_file *f) {
    char hex[65];
    bq_sha256_hex(f->hash.sha256, hex);
    fprintf(to, "%s%s  ", strpbrk(f->name, "\\\n") ? "\\" : "", hex);
    for (const char *c = f->name; *c; c++)
        if (*c == '\n')
            fputs("\\n", to);
        else
            fprintf(to, *c == '\\' ? "\\%c" : "%c", *c);
    fputc('\n', to);
}

/* The sums of the listed files, and of the first three here, which are small and are read. */
static char *sums(const char *dir, const bq_manifest *list) {
    char *text = NULL;
    size_t bytes;
    bq_manifest all;
    bq_manifest_new(&all, "");
    for (int i = 0; i < list->count; i++)
        BQ_CHECK(bq_manifest_add(&all, dir, list->file[i].name, &list->file[i].hash),
                 "cannot open '%s/%s' again: %s", dir, list->file[i].name, bq_file_why(errno));
    for (int i = 0; i < SUMS; i++)
        BQ_CHECK(bq_manifest_add(&all, dir, names[i], NULL), "cannot read '%s/%s' again: %s", dir, names[i],
                 bq_file_why(errno));
    qsort(all.file, (size_t)all.count, sizeof *all.file, by_name);
    FILE *to = open_memstream(&text, &bytes);
    BQ_CHECK(to, "no memory for the sums of '%s'", dir);
    for (int i = 0; i < all.count; i++) put_line(to, &all.file[i]);
    fclose(to);
    bq_manifest_close(&all);
    return text;
}

int bq_publish(const char *dir, const bq_manifest *list, const bq_publication *of) {
    const char *const texts[SUMS] = {of->card, of->recipe, of->summary};
    char path[FILES][BQ_PATH];
    for (int i = 0; i < FILES; i++) {
        bq_path_join(path[i], sizeof path[i], dir, names[i]);
        int code = bq_rundir_file(path[i]);
        if (code) return code;
    }
    for (int i = 0; i < SUMS; i++)
        if (i == CARD && is_kept(path[i]))
            bq_log(BQ_INFO,
                   "%s is not blockq's and stays as it is: remove it, and the next run writes a card",
                   path[i]);
        else
            put(path[i], texts[i]);
    char *text = sums(dir, list);
    put(path[SUMS], text);
    free(text);
    return BQ_OK;
}
