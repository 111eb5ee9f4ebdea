/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/fp8.h"

#include "base/die.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

#define CONFIG "quantization_config"
#define SUFFIX "_scale_inv"

enum { TILE = 128, ROOM = 1 << 20 };

void bq_fp8_config(bq_json *config) {
    char prefix[64];
    const char *method = "", *format = "e4m3";
    double tile[2];
    bq_json q = bq_json_object(config, CONFIG, prefix);
    bq_json_text(&q, "quant_method", &method);
    bq_json_text(&q, "fmt", &format);
    if (strcmp(method, "fp8") || strcmp(format, "e4m3"))
        bq_json_refuse(&q, "quant_method",
                       "'%.60s' (%.60s): this checkpoint is quantized already; start from the unquantized "
                       "model, or from the released one in fp8 (e4m3)",
                       method, format);
    bq_json_reals(&q, "weight_block_size", TILE, TILE, 2, tile);
    bq_json_join(config, &q);
}

static bool is_e4m3(const bq_tensor *t) { return strcmp(t->dtype, "F8_E4M3") == 0; }

static bool said(const bq_weights *w) {
    const char *path;
    const json_t *config = bq_weights_config(w, &path);
    return json_is_object(json_object_get(config, CONFIG));
}

/* The scales of a tensor; NULL: it has none. */
static const bq_tensor *scales_of(const bq_weights *w, const bq_tensor *t) {
    char name[512];
    int n = snprintf(name, sizeof name, "%s" SUFFIX, t->name);
    return n < (int)sizeof name ? bq_weights_find(w, name) : NULL;
}

/* Of that many elements. */
static int64_t tiles(int64_t n) { return n / TILE + (n % TILE != 0); }

/* What is wrong with a tensor of F8_E4M3; NULL: nothing. */
static const char *wrong(const bq_weights *w, const bq_tensor *t) {
    const bq_tensor *s = scales_of(w, t);
    if (!said(w)) return "config.json has no " CONFIG;
    if (t->dims != 2) return "it is not a matrix";
    if (!s) return "it has no scales, a tensor with " SUFFIX " behind its name";
    if (strcmp(s->dtype, "F32")) return "its scales are not F32";
    if (s->dims != 2 || s->shape[0] != tiles(t->shape[0]) || s->shape[1] != tiles(t->shape[1]))
        return "its scales are not one for each tile of 128 x 128";
    return NULL;
}

bool bq_fp8_tensor(const bq_weights *w, const bq_tensor *t) { return is_e4m3(t) && !wrong(w, t); }

int bq_fp8_check(const bq_weights *w, const bq_tensor *t) {
    const char *why = is_e4m3(t) ? wrong(w, t) : NULL;
    if (!why) return BQ_OK;
    return bq_refuse(BQ_DATA, "%s: tensor '%.200s' has type F8_E4M3, but %s", bq_weights_dir(w), t->name,
                     why);
}

size_t bq_fp8_held(const bq_weights *w, const bq_tensor *t) {
    return bq_fp8_tensor(w, t) ? scales_of(w, t)->bytes : 0;
}

bool bq_fp8_scales(const bq_weights *w, const bq_tensor *t) {
    char name[512];
    size_t n = strlen(t->name), cut = strlen(SUFFIX);
    if (n <= cut || n - cut >= sizeof name || strcmp(t->name + n - cut, SUFFIX)) return false;
    snprintf(name, sizeof name, "%.*s", (int)(n - cut), t->name);
    const bq_tensor *of = bq_weights_find(w, name);
    return of && bq_fp8_tensor(w, of);
}

/* Rows of one row of tiles, with its scales. */
static void decode(const float value[256], const float *scale, const uint8_t *code, bq_mat to) {
    for (int64_t r = 0; r < to.rows; r++, code += to.cols) {
        float *out = bq_mat_at(to, r, 0);
        for (int64_t c = 0; c < to.cols; c++) out[c] = value[code[c]] * scale[c / TILE];
    }
}

void bq_fp8_read(const bq_weights *w, const bq_tensor *t, int64_t first, int64_t rows, bq_mat to) {
    const bq_tensor *s = scales_of(w, t);
    int64_t cols = to.cols, across = s->shape[1], room = cols < ROOM ? ROOM / (cols + !cols) : 1;
    float value[256], *scale = malloc((size_t)across * sizeof *scale + 1);
    uint8_t *code = malloc((size_t)(room * cols) + 1);
    BQ_CHECK(scale && code, "no memory to read '%s'", t->name);
    for (int i = 0; i < 256; i++) value[i] = bq_from_e4m3((uint8_t)i);
    for (int64_t r = 0, n; r < rows; r += n) {
        int64_t at = first + r, left = TILE - at % TILE;
        n = rows - r < left ? rows - r : left;
        n = n < room ? n : room;
        bq_weights_read_raw(w, s, (size_t)(at / TILE * across) * sizeof *scale, scale,
                            (size_t)across * sizeof *scale);
        bq_weights_read_raw(w, t, (size_t)(at * cols), code, (size_t)(n * cols));
        decode(value, scale, code, bq_mat_rows(to, r, n));
    }
    free(scale);
    free(code);
}
