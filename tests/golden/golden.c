/* SPDX-License-Identifier: Apache-2.0 */
#include "golden/golden.h"

#include "base/die.h"
#include "io/files.h"
#include "io/json.h"
#include "io/out/writer.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INIT "init/"

enum { NAME = 512 };

#define FORMAT(out, fmt)                                                                                     \
    do {                                                                                                     \
        va_list ap;                                                                                          \
        va_start(ap, fmt);                                                                                   \
        vsnprintf(out, sizeof(out), fmt, ap);                                                                \
        va_end(ap);                                                                                          \
    } while (0)

int golden_open(golden *g, const char *path) {
    *g = (golden){0};
    if (strlen(path) >= sizeof g->path) return bq_refuse(BQ_DATA, "%s: the path is too long", path);
    strcpy(g->path, path);
    int code = bq_weights_open(&g->file, path);
    if (code) return code;
    g->seen = golden_keep(g, (size_t)bq_weights_count(g->file) * sizeof *g->seen);
    return BQ_OK;
}

static int remove_entry(const char *path, const struct stat *s, int kind, struct FTW *place) {
    (void)s, (void)kind, (void)place;
    return remove(path);
}

void golden_close(golden *g) {
    if (*g->dir) nftw(g->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    for (size_t i = 0; i < g->reads; i++) free(g->memory[i]);
    free(g->memory);
    bq_weights_close(g->file);
    *g = (golden){0};
}

void *golden_keep(golden *g, size_t bytes) {
    void *memory = calloc(1, bytes + 1);
    g->memory = realloc(g->memory, (g->reads + 1) * sizeof *g->memory);
    BQ_CHECK(memory && g->memory, "no memory for %zu bytes of '%s'", bytes, g->path);
    return g->memory[g->reads++] = memory;
}

void golden_require(int code) {
    if (!code) return;
    fflush(NULL);
    _Exit(code);
}

/* ---- tensors ---- */

static const bq_tensor *find(golden *g, const char *name) {
    const bq_tensor *t = bq_weights_find(g->file, name);
    if (!t) bq_refuse_job(BQ_DATA, "%s: tensor '%.200s' is missing", g->path, name);
    g->seen[t - bq_weights_at(g->file, 0)] = true;
    return t;
}

bool golden_has(const golden *g, const char *fmt, ...) {
    char name[NAME];
    FORMAT(name, fmt);
    return bq_weights_find(g->file, name) != NULL;
}

void golden_pass_over(golden *g, const char *fmt, ...) {
    char start[NAME];
    FORMAT(start, fmt);
    for (int i = 0; i < bq_weights_count(g->file); i++)
        if (strncmp(bq_weights_at(g->file, i)->name, start, strlen(start)) == 0) g->seen[i] = true;
}

static const char *dtype_of(bq_type type) {
    static const char *const name[] = {
        [BQ_F32] = "F32", [BQ_F64] = "F64", [BQ_F16] = "F16", [BQ_BF16] = "BF16",
        [BQ_I8] = "I8",   [BQ_U8] = "U8",   [BQ_I32] = "I32", [BQ_I64] = "I64"};
    return name[type];
}

bq_mat golden_read(golden *g, bq_type type, int64_t rows, int64_t cols, const char *fmt, ...) {
    char name[NAME];
    FORMAT(name, fmt);
    const bq_tensor *t = find(g, name);
    int64_t n = bq_tensor_count(t), last = t->dims ? t->shape[t->dims - 1] : 1;
    if (strcmp(t->dtype, dtype_of(type)) != 0)
        bq_refuse_job(BQ_DATA, "%s: tensor '%.200s' has type %s: %s is needed", g->path, name, t->dtype,
                      dtype_of(type));
    bool fits =
        n > 0 && (rows >= 0 && cols >= 0 ? n == rows * cols
                                         : (rows < 0 || rows == n / last) && (cols < 0 || cols == last));
    if (!fits)
        bq_refuse_job(BQ_DATA, "%s: tensor '%.200s' has %lld values in rows of %lld, which does not fit",
                      g->path, name, (long long)n, (long long)last);
    void *data = golden_keep(g, t->bytes);
    bq_weights_read_raw(g->file, t, 0, data, t->bytes);
    return rows >= 0 && cols >= 0 ? bq_mat_host(data, rows, cols, type)
                                  : bq_mat_host(data, n / last, last, type);
}

bq_mat golden_tokens(golden *g) { return golden_read(g, BQ_I32, -1, -1, "tokens"); }

void golden_check_tokens(const golden *g, bq_mat ids, int64_t vocab) {
    const int32_t *id = ids.data;
    for (int64_t i = 0; i < ids.rows * ids.cols; i++)
        if (id[i] < 0 || id[i] >= vocab)
            bq_refuse_job(BQ_DATA, "%s: token %d is not one of the vocabulary's %lld", g->path, id[i],
                          (long long)vocab);
}

void golden_convert(golden *g, const char *name, bq_mat to) {
    const bq_tensor *t = find(g, name);
    bq_type type;
    bool fits = t->dims == 2 ? t->shape[0] == to.rows && t->shape[1] == to.cols
                             : t->dims == 1 && to.rows == 1 && t->shape[0] == to.cols;
    if (!bq_dtype_float(t->dtype, &type) || !fits)
        bq_refuse_job(BQ_DATA, "%s: tensor '%.200s' is not %lld x %lld of a float type", g->path, name,
                      (long long)to.rows, (long long)to.cols);
    bq_weights_read(g->file, t, 0, to.rows, to);
}

/* ---- metadata ---- */

const char *golden_text(const golden *g, const char *key) {
    const char *text = bq_weights_metadata(g->file, key);
    if (!text) bq_refuse_job(BQ_DATA, "%s: the metadata has no '%s'", g->path, key);
    return text;
}

double golden_number(const golden *g, const char *key) {
    const char *text = golden_text(g, key);
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= -1e300 && value <= 1e300))
        bq_refuse_job(BQ_DATA, "%s: metadata '%s' is '%.60s', which is not a number", g->path, key, text);
    return value;
}

/* Python's print of dictionaries, tuples, truth values and None as JSON; JSON stays as it is. */
static char *json_of_python(golden *scratch, const char *text) {
    static const char *const word[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}};
    char *out = golden_keep(scratch, strlen(text) + 4), *to = out;
    bool json = strchr(text, '"') != NULL;
    for (const char *from = text; *from;) {
        int k = 0;
        while (!json && k < 3 && strncmp(from, word[k][0], strlen(word[k][0])) != 0) k++;
        if (!json && k < 3) {
            to = stpcpy(to, word[k][1]), from += strlen(word[k][0]);
            continue;
        }
        char c = *from++;
        if (!json) c = c == '\'' ? '"' : c == '(' ? '[' : c == ')' ? ']' : c;
        *to++ = c;
    }
    return out;
}

json_t *golden_json(const golden *g, const char *key) {
    golden scratch = {.path = ""};
    json_t *object;
    char *text = json_of_python(&scratch, golden_text(g, key));
    int code = bq_json_parse(g->path, text, strlen(text), &object);
    golden_close(&scratch);
    golden_require(code);
    return object;
}

/* ---- the model ---- */

static void write_weights(golden *g) {
    char path[NAME];
    bq_writer *w = bq_writer_plan();
    for (int i = 0; i < bq_weights_count(g->file); i++) {
        const bq_tensor *t = bq_weights_at(g->file, i);
        if (strncmp(t->name, INIT, strlen(INIT)) != 0) continue;
        bq_writer_add(w, t->name + strlen(INIT), t->dtype, t->dims, t->shape);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", g->dir);
    bq_writer_open(w, path);
    for (int i = 0; i < bq_writer_count(w); i++) {
        const char *name = bq_writer_at(w, i)->name;
        char *full = golden_keep(g, strlen(INIT) + strlen(name) + 1);
        strcat(strcpy(full, INIT), name);
        const bq_tensor *t = find(g, full);
        char *data = malloc(t->bytes + 1);
        BQ_CHECK(data, "no memory for %zu bytes of '%s'", t->bytes, g->path);
        bq_weights_read_raw(g->file, t, 0, data, t->bytes);
        bq_writer_put(w, data, t->bytes);
        free(data);
    }
    bq_writer_close(w);
}

void golden_model(golden *g, const json_t *missing) {
    char path[NAME];
    size_t bytes;
    json_t *config = golden_json(g, "config");
    if (missing) json_object_update_missing(config, (json_t *)(uintptr_t)missing);
    const char *temp = getenv("TMPDIR");
    snprintf(g->dir, sizeof g->dir, "%.200s/bq_golden_XXXXXX", temp ? temp : "/tmp");
    BQ_CHECK(mkdtemp(g->dir), "%s cannot be made", g->dir);
    write_weights(g);
    char *text = bq_json_text_of(config, &bytes);
    snprintf(path, sizeof path, "%s/config.json", g->dir);
    BQ_CHECK(bq_file_write_atomic(path, text, bytes) == 0, "%s cannot be written", path);
    free(text);
    json_decref(config);
}
