/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of an export: who wrote what is there, what is removed first, what is copied. */
#include "base/die.h"
#include "io/out/format.h"
#include "io/out/publish.h"
#include "io/files.h"
#include "io/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool matches(const char *name, const char *const *patterns) {
    while (*patterns && fnmatch(*patterns, name, 0)) patterns++;
    return *patterns;
}

/* What makes a directory loadable, in the order of removal: loaders open the first one first; and files of
 * formats (bq_format.finish). */
static const char *const loadable[] = {"config.json", "*.index.json", "*.encodings", "imatrix.gguf", NULL};
static const char *const shards[] = {"*.safetensors", "*.gguf", NULL};
static const char *const leftovers[] = {"*.safetensors", "*.safetensors.*tmp", "*.gguf", "*.gguf.*tmp", NULL};

/* Copied from the source.  *.py, too, as config.json may name code, and licences. */
static const char *const copied[] = {"tokenizer*",
                                     "generation_config.json",
                                     "special_tokens_map.json",
                                     "added_tokens.json",
                                     "vocab*",
                                     "merges*",
                                     "chat_template*",
                                     "*.model",
                                     "*.py",
                                     "LICENSE*",
                                     "NOTICE*",
                                     NULL};

/* Not alphasort, which depends on the locale. */
static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The entries of dir in order of name; free_entries frees them.  -1 if dir cannot be read. */
static int entries(const char *dir, struct dirent ***list) { return scandir(dir, list, NULL, by_name); }

static void free_entries(struct dirent **list, int n) {
    for (int i = 0; i < n; i++) free(list[i]);
    if (n >= 0) free(list);
}

/* What our files have near their beginning (writer.c, gguf_head.c).  It shows that a file is ours even if the
 * rest is damaged. */
static const struct {
    const char *suffix;
    off_t at;
    const char *text;
    size_t bytes;
} begins[] = {
#define BEGIN(suffix, at, text)                                                                              \
    { suffix, at, text, sizeof text - 1 }
    BEGIN("*.safetensors", 8,
          "{\"" BQ_METADATA_KEY "\":{\"format\":\"pt\",\"producer\":\"" BQ_WRITER_PRODUCER "\"}"),
    BEGIN("*.gguf", 32, "general.quantized_by\10\0\0\0\6\0\0\0\0\0\0\0" BQ_WRITER_PRODUCER),
};

enum { FOREIGN = -1, BLANK, OURS }; /* BLANK: too short to tell, and worth nothing */

static int whose(const char *path) {
    char have[128];
    int fd, i = fnmatch(begins[0].suffix, path, 0) ? 1 : 0;
    if (bq_file_open_own(path, O_RDONLY, &fd)) return FOREIGN;
    ssize_t n = pread(fd, have, begins[i].bytes, begins[i].at);
    close(fd);
    if (n < 0 || memcmp(have, begins[i].text, (size_t)n)) return FOREIGN;
    return (size_t)n == begins[i].bytes ? OURS : BLANK;
}

/* Refuse if a model is there that somebody else wrote, or if a name that blockq removes or writes is not a
 * file's. */
static int refuse_foreign(const char *out_dir, struct dirent **list, int n, bool own) {
    bool ours = false, model = false;
    char path[BQ_PATH];
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        bool shard = matches(name, shards), loads = matches(name, loadable);
        bool known = shard || loads || matches(name, leftovers) || matches(name, copied);
        if (!known && !bq_publish_names(name)) continue;
        bq_path_join(path, sizeof path, out_dir, name);
        int code = bq_rundir_file(path), owner = !code && shard && !own ? whose(path) : BLANK;
        if (code) return code;
        if (owner == FOREIGN)
            return bq_refuse(BQ_DATA, "export: '%s' is not from blockq; choose another directory", path);
        model = model || loads, ours = ours || owner == OURS;
    }
    if (!model || ours || own) return BQ_OK;
    return bq_refuse(BQ_DATA, "export: '%s' holds a model that is not from blockq; choose another directory",
                     out_dir);
}

void bq_export_list_copied(const bq_export_job *job, bq_manifest *list) {
    struct dirent **entry = NULL;
    const char *out_dir = job->out_dir;
    int n = entries(out_dir, &entry);
    BQ_CHECK(n >= 0, "cannot list '%s': %s", out_dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *name = entry[i]->d_name;
        if ((!matches(name, loadable) && !matches(name, copied)) || fnmatch("*.tmp", name, 0) == 0) continue;
        BQ_CHECK(bq_manifest_add(list, out_dir, name, NULL), "cannot read '%s/%s' again: %s", out_dir, name,
                 bq_file_why(errno));
    }
    free_entries(entry, n);
}

static void remove_matching(const char *out_dir, struct dirent **list, int n, const char *const *patterns) {
    char path[BQ_PATH];
    for (int i = 0; i < n; i++) {
        if (!matches(list[i]->d_name, patterns)) continue;
        bq_path_join(path, sizeof path, out_dir, list[i]->d_name);
        bool gone = unlink(path) == 0 || errno == ENOENT; /* a name may be of two lists */
        BQ_CHECK(gone, "cannot remove '%s': %s", path, strerror(errno));
    }
    int err = bq_dir_sync(out_dir);
    BQ_CHECK(!err, "cannot sync '%s': %s", out_dir, strerror(err));
}

int bq_export_look(const char *src_dir, const char *out_dir, bool own) {
    struct stat src, out;
    struct dirent **list = NULL;
    if (stat(src_dir, &src))
        return bq_refuse(BQ_DATA, "export: cannot look at '%s': %s", src_dir, strerror(errno));
    if (stat(out_dir, &out) == 0 && src.st_dev == out.st_dev && src.st_ino == out.st_ino)
        return bq_refuse(BQ_DATA, "export: '%s' is the source model itself", out_dir);
    int code = bq_rundir_folder(out_dir);
    if (code) return code;
    int n = entries(out_dir, &list);
    if (n < 0 && (errno == ENOENT || errno == ENOTDIR)) return BQ_OK; /* bq_dir_make will say why */
    if (n < 0) return bq_refuse(BQ_DATA, "export: cannot list '%s': %s", out_dir, strerror(errno));
    code = refuse_foreign(out_dir, list, n, own);
    free_entries(list, n);
    return code;
}

int bq_export_claim(const bq_export_job *job) {
    struct dirent **list = NULL;
    const char *out_dir = job->out_dir;
    int code = bq_export_look(bq_weights_dir(job->src), out_dir, false),
        err = code ? 0 : bq_dir_make(out_dir);
    if (code) return code;
    if (err) return bq_refuse(BQ_DATA, "export: cannot create '%s': %s", out_dir, strerror(err));
    int n = entries(out_dir, &list);
    if (n < 0) return bq_refuse(BQ_DATA, "export: cannot list '%s': %s", out_dir, strerror(errno));
    remove_matching(out_dir, list, n, loadable); /* first, so that nothing incomplete can be loaded */
    remove_matching(out_dir, list, n, leftovers);
    free_entries(list, n);
    bq_publish_remove(out_dir);
    bq_temps_remove(out_dir);
    return BQ_OK;
}

/* Copy all bytes from one descriptor to another.  BQ_OK, or BQ_DATA after one message if reading fails;
 * *err: the errno of writing. */
static int pour(int in, int out, const char *from, int *err) {
    enum { CHUNK = 1 << 20 };
    char *buffer = malloc(CHUNK);
    BQ_CHECK(buffer, "no memory to copy a file");
    ssize_t got;
    while (!*err && ((got = read(in, buffer, CHUNK)) > 0 || (got < 0 && errno == EINTR)))
        if (got > 0) *err = bq_fault("copy_write") ? ENOSPC : bq_file_put(out, buffer, (size_t)got);
    free(buffer);
    return !*err && got < 0 ? bq_refuse(BQ_DATA, "cannot read '%s': %s", from, strerror(errno)) : BQ_OK;
}

static int copy_file(const char *from, const char *to) {
    char temp[BQ_PATH + 32];
    int in, out, err = bq_file_open(from, O_RDONLY, &in);
    if (err) return bq_refuse(BQ_DATA, "cannot open '%s': %s", from, bq_file_why(err));
    bq_temp_name(temp, sizeof temp, to);
    err = bq_file_create(temp, &out);
    BQ_CHECK(!err, "cannot create '%s': %s", temp, bq_file_why(err));
    int code = pour(in, out, from, &err);
    close(in);
    if (close(out) && !err) err = errno;
    if (!code && !err) err = bq_file_rename(temp, to);
    if (code || err) unlink(temp);
    BQ_CHECK(!err, "write of '%s' failed: %s", to, strerror(err));
    return code;
}

int bq_export_copy(const bq_export_job *job) {
    struct dirent **list = NULL;
    const char *src_dir = bq_weights_dir(job->src);
    struct stat st;
    int rc = BQ_OK, n = entries(src_dir, &list);
    if (n < 0) return bq_refuse(BQ_DATA, "export: cannot list '%s': %s", src_dir, strerror(errno));
    for (int i = 0; i < n && !rc; i++) {
        char from[BQ_PATH], to[BQ_PATH];
        if (!matches(list[i]->d_name, copied)) continue;
        bq_path_join(from, sizeof from, src_dir, list[i]->d_name);
        bq_path_join(to, sizeof to, job->out_dir, list[i]->d_name);
        if (stat(from, &st) == 0 && S_ISREG(st.st_mode)) rc = copy_file(from, to);
    }
    free_entries(list, n);
    return rc;
}

void bq_export_dir_put(const json_t *beside, const char *out_dir) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *value = json_object_get(beside, names[i]);
        char path[BQ_PATH], *text = NULL;
        size_t bytes = 0;
        bq_path_join(path, sizeof path, out_dir, names[i]);
        if (value) text = bq_json_text_of(value, &bytes);
        int err = value                             ? bq_file_write_atomic(path, text, bytes)
                  : unlink(path) && errno != ENOENT ? errno
                                                    : 0;
        BQ_CHECK(!err, "write of '%s' failed: %s", path, strerror(err));
        free(text);
    }
}
