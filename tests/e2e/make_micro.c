/* SPDX-License-Identifier: Apache-2.0 */
/* make_micro VECTOR DIR: a golden vector file's model (two blocks, hidden size near 50) as a model directory.
 */
#include "base/die.h"
#include "base/num.h"
#include "io/files.h"
#include "io/tokens.h"
#include "io/in/weights.h"
#include "io/out/writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "init/"

static void copy_tensor(const bq_weights *from, const bq_tensor *to, bq_writer *w) {
    char name[512];
    snprintf(name, sizeof name, PREFIX "%s", to->name);
    const bq_tensor *t = bq_weights_find(from, name);
    void *data = malloc(t->bytes + 1);
    BQ_CHECK(data, "no memory for '%s'", name);
    bq_weights_read_raw(from, t, 0, data, t->bytes);
    bq_writer_put(w, data, t->bytes);
    free(data);
}

/* Tensors of A whose names have this word are in B, with the same bytes; there must be some. */
static int same_tensors(const char *a, const char *b, const char *word) {
    bq_weights *w[2];
    int same = 0;
    for (int i = 0; i < 2; i++) BQ_CHECK(bq_weights_open(&w[i], i ? b : a) == 0, "%s", i ? b : a);
    for (int i = 0; i < bq_weights_count(w[0]); i++) {
        const bq_tensor *t[2] = {bq_weights_at(w[0], i)};
        if (!strstr(t[0]->name, word)) continue;
        t[1] = bq_weights_find(w[1], t[0]->name);
        BQ_CHECK(t[1] && t[1]->dtype == t[0]->dtype && t[1]->bytes == t[0]->bytes, "'%s'", t[0]->name);
        char *data[2];
        for (int k = 0; k < 2; k++) {
            data[k] = malloc(t[k]->bytes + 1);
            BQ_CHECK(data[k], "no memory for '%s'", t[k]->name);
            bq_weights_read_raw(w[k], t[k], 0, data[k], t[k]->bytes);
        }
        BQ_CHECK(memcmp(data[0], data[1], t[0]->bytes) == 0, "'%s' has other bytes", t[0]->name);
        free(data[0]), free(data[1]);
        same++;
    }
    for (int i = 0; i < 2; i++) bq_weights_close(w[i]);
    return same ? 0 : 1;
}

/* The same tokens, by another tokenizer's name. */
static int rename_tokenizer(const char *from, const char *to, const char *name) {
    bq_tokens t;
    int code = bq_tokens_read(from, &t);
    if (code) return code;
    snprintf(t.tokenizer, sizeof t.tokenizer, "%s", name);
    code = bq_tokens_write(to, &t);
    bq_tokens_close(&t);
    return code;
}

/* ---- FP8 ---- */

enum { TILE = 128 };
#define SCALES "_scale_inv"

static bool becomes_fp8(const bq_tensor *t) {
    return t->dims == 2 && strstr(t->name, ".layers.") && !strstr(t->name, SCALES);
}

static uint8_t nearest(float x) {
    int best = 0;
    for (int code = 0; code < 256; code++)
        if (fabsf(bq_from_e4m3((uint8_t)code) - x) < fabsf(bq_from_e4m3((uint8_t)best) - x)) best = code;
    return (uint8_t)best;
}

/* The scale of a tile: its largest value becomes the largest code. */
static float scale_of(bq_mat x, int64_t row, int64_t col) {
    float most = 0;
    for (int64_t r = row; r < x.rows && r < row + TILE; r++)
        for (int64_t c = col; c < x.cols && c < col + TILE; c++)
            most = fmaxf(most, fabsf(*(float *)bq_mat_at(x, r, c)));
    return most / 448;
}

static void put_fp8(const bq_weights *from, const bq_tensor *to, bq_writer *w) {
    char name[512];
    bool scales = strstr(to->name, SCALES);
    snprintf(name, sizeof name, "%.*s", (int)(strlen(to->name) - (scales ? strlen(SCALES) : 0)), to->name);
    const bq_tensor *t = bq_weights_find(from, name);
    int64_t rows = t->dims == 2 ? t->shape[0] : 1, cols = t->shape[t->dims - 1];
    bq_mat x = bq_mat_host(malloc((size_t)(rows * cols) * sizeof(float)), rows, cols, BQ_F32);
    BQ_CHECK(x.data, "no memory for '%s'", name);
    bq_weights_read(from, t, 0, rows, x);
    for (int64_t r = 0; r < rows; r += scales ? TILE : 1)
        for (int64_t c = 0; c < cols; c += scales ? TILE : 1) {
            float *at = bq_mat_at(x, r, c), scale = scale_of(x, r / TILE * TILE, c / TILE * TILE);
            if (!scales && !becomes_fp8(to))
                bq_writer_put(w, at, sizeof *at);
            else if (scales)
                bq_writer_put(w, &scale, sizeof scale);
            else
                bq_writer_put(w, (uint8_t[]){nearest(*at / scale)}, 1);
        }
    free(x.data);
}

/* The weights of a model as DIR/model.safetensors, those of its blocks in FP8. */
static int make_fp8(const char *model, const char *dir) {
    char path[BQ_PATH], name[512];
    bq_weights *from;
    BQ_CHECK(bq_weights_open(&from, model) == 0, "%s", model);
    bq_writer *w = bq_writer_plan();
    for (int i = 0; i < bq_weights_count(from); i++) {
        const bq_tensor *t = bq_weights_at(from, i);
        const int64_t tiles[2] = {(t->shape[0] + TILE - 1) / TILE, (t->shape[1] + TILE - 1) / TILE};
        bq_writer_add(w, t->name, becomes_fp8(t) ? "F8_E4M3" : "F32", t->dims, t->shape);
        snprintf(name, sizeof name, "%s" SCALES, t->name);
        if (becomes_fp8(t)) bq_writer_add(w, name, "F32", 2, tiles);
    }
    bq_path_join(path, sizeof path, dir, "model.safetensors");
    bq_writer_open(w, path);
    for (int i = 0; i < bq_writer_count(w); i++) put_fp8(from, bq_writer_at(w, i), w);
    bq_writer_close(w);
    bq_weights_close(from);
    return 0;
}

int main(int argc, char **argv) {
    char path[BQ_PATH];
    bq_weights *from;
    if (argc == 5 && strcmp(argv[1], "tokens") == 0) return rename_tokenizer(argv[2], argv[3], argv[4]);
    if (argc == 5 && strcmp(argv[1], "same") == 0) return same_tensors(argv[2], argv[3], argv[4]);
    if (argc == 4 && strcmp(argv[1], "fp8") == 0) return make_fp8(argv[2], argv[3]);
    BQ_CHECK(argc == 3, "two arguments are needed: the vector's name, the directory to make");
    snprintf(path, sizeof path, "%s/%s.safetensors", BQ_VECTORS, argv[1]);
    int code = bq_weights_open(&from, path);
    if (code) return code;
    BQ_CHECK(bq_dir_make(argv[2]) == 0, "%s cannot be made", argv[2]);
    bq_writer *w = bq_writer_plan();
    for (int i = 0; i < bq_weights_count(from); i++) {
        const bq_tensor *t = bq_weights_at(from, i);
        if (strncmp(t->name, PREFIX, strlen(PREFIX)) == 0)
            bq_writer_add(w, t->name + strlen(PREFIX), t->dtype, t->dims, t->shape);
    }
    bq_path_join(path, sizeof path, argv[2], "model.safetensors");
    bq_writer_open(w, path);
    for (int i = 0; i < bq_writer_count(w); i++) copy_tensor(from, bq_writer_at(w, i), w);
    bq_writer_close(w);
    const char *config = bq_weights_metadata(from, "config");
    BQ_CHECK(config, "%s has no config in its metadata", argv[1]);
    bq_path_join(path, sizeof path, argv[2], "config.json");
    BQ_CHECK(bq_file_write_atomic(path, config, strlen(config)) == 0, "%s cannot be written", path);
    bq_weights_close(from);
    return 0;
}
