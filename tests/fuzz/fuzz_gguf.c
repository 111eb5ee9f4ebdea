/* SPDX-License-Identifier: Apache-2.0 */
/* A GGUF file of any bytes is refused with one message, or every tensor it lists lies inside it, behind the
 * header, and its rows decode; every value of every key is inside, too; the files beside the weights are
 * made or refused; and so is the model.  Run with -close_fd_mask=2: every refusal is a line. */
#include "base/die.h"
#include "io/in/gguf_blocks.h"
#include "io/in/gguf_config.h"
#include "io/in/gguf_tokenizer.h"
#include "io/in/weights_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern const bq_weights_reader bq_weights_gguf;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds) {
    if (!holds) abort();
}

static void tensors(const bq_gguf *g, size_t bytes) {
    size_t end = 24;
    for (int i = 0; i < bq_gguf_count(g); i++) {
        const bq_tensor *t = bq_gguf_at(g, i);
        const bq_gguf_type *type = bq_gguf_type_named(t->dtype);
        must(t->offset >= end && t->bytes > 0 && t->offset <= bytes && t->bytes <= bytes - t->offset);
        must(t->dims >= 1 && t->dims <= BQ_GGUF_DIMS && bq_gguf_find(g, t->name) == t);
        int64_t rows = bq_gguf_rows(t), cols = bq_gguf_cols(t);
        must((size_t)(rows * cols / type->elements) * (size_t)type->bytes == t->bytes);
        end = t->offset + t->bytes;
        float *row = malloc((size_t)cols * sizeof *row);
        must(row != NULL);
        bq_gguf_read(g, t, rows - 1, 1, bq_mat_host(row, 1, cols, BQ_F32));
        free(row);
    }
}

/* Each getter takes the value of the key, or refuses it. */
static void value(const bq_gguf *g, const bq_gguf_value *v) {
    bq_gguf_keys k[6];
    int64_t n = 0, length;
    double x = 0;
    bool b = false;
    char word[64] = "";
    bq_text text = {"", 0};
    for (int i = 0; i < 6; i++) k[i] = bq_gguf_keys_of(g);
    bq_gguf_int(&k[0], v->key, -5, 1 << 20, &n);
    bq_gguf_real(&k[1], v->key, -1, 1, &x);
    bq_gguf_bool(&k[2], v->key, &b);
    bq_gguf_text(&k[3], v->key, &text);
    bq_gguf_word(&k[4], v->key, word);
    must(n >= -5 && n <= 1 << 20 && x >= -1 && x <= 1 && strlen(word) < 64);
    unsigned sum = 0;
    for (size_t i = 0; i < text.bytes; i++) sum += (unsigned char)text.at[i];
    if ((length = bq_gguf_length(&k[5], v->key)) < 0) return;
    void *all = malloc((size_t)length * sizeof text + 1);
    must(all != NULL);
    bq_gguf_keys ints = k[5], reals = k[5];
    bq_gguf_ints(&ints, v->key, INT64_MIN, INT64_MAX, length, all);
    bq_gguf_reals(&reals, v->key, -1, 1, length, all);
    bq_gguf_texts(&k[5], v->key, length, all);
    for (int64_t i = 0; i < length && v->type == BQ_GGUF_TEXT; i++) {
        const bq_text *t = (const bq_text *)all + i;
        for (size_t j = 0; j < t->bytes; j++) sum += (unsigned char)t->at[j];
    }
    free(all);
    if (sum == 1u << 31) abort(); /* so that the bytes are read */
}

static void files_beside(const bq_gguf *g) {
    json_t *config, *tokenizer, *more;
    int rc = bq_gguf_config(g, &config);
    must(rc == BQ_OK ? json_is_object(config) : rc == BQ_DATA && !config);
    json_decref(config);
    rc = bq_gguf_tokenizer(g, &tokenizer, &more);
    must(rc == BQ_OK || (rc == BQ_DATA && !tokenizer));
    must(tokenizer ? json_is_object(tokenizer) && json_is_object(more) : !more);
    json_decref(tokenizer);
    json_decref(more);
}

/* The same file as a model.  Its name has no .gguf, so the table of readers would not find it. */
static void as_a_model(const char *path) {
    bq_weights *w = calloc(1, sizeof *w);
    must(w != NULL);
    w->reader = &bq_weights_gguf, w->dir = strdup("");
    int rc = w->reader->open(w, path);
    must(rc == BQ_OK || rc == BQ_DATA);
    for (int i = 0; i < bq_weights_count(w) && !rc; i++) {
        const bq_tensor *t = bq_weights_at(w, i);
        int64_t rows = t->dims == 2 ? t->shape[0] : 1, cols = t->shape[t->dims - 1];
        float *row = malloc((size_t)cols * sizeof *row);
        must(row && t->dims <= 2 && bq_weights_find(w, t->name) == t);
        bq_weights_read(w, t, rows - 1, 1, bq_mat_host(row, 1, cols, BQ_F32));
        size_t last = t->bytes < 4 ? t->bytes : 4;
        bq_weights_read_raw(w, t, t->bytes - last, row, last);
        bq_weights_prefetch(w, t);
        free(row);
    }
    json_t *files = NULL;
    if (!rc) must(bq_weights_beside(w, true, &files) == (files ? BQ_OK : BQ_DATA));
    json_decref(files);
    bq_weights_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    bq_gguf *g;
    char path[64];
    int fd = memfd_create("model", 0);
    must(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = bq_gguf_open(&g, path);
    must((rc == BQ_OK && g) || (rc == BQ_DATA && !g));
    if (g) {
        bq_gguf_keys k = bq_gguf_keys_of(g);
        tensors(g, bytes);
        for (int i = 0; i < k.header->values; i++) value(g, &k.header->value[i]);
        files_beside(g);
    }
    bq_gguf_close(g);
    as_a_model(path);
    close(fd);
    return 0;
}
