/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints that stack the experts of a block in one tensor (gpt-oss), in safetensors files.  Here each
 * expert has its own tensors, as in other families' files: mlp.experts.3.gate_proj.weight (I, H), say.
 *
 *   mlp.experts.gate_up_proj (E, H, 2 I)   columns 2 i and 2 i + 1 of an expert are rows i of gate and of up
 *   mlp.experts.down_proj (E, I, H)        the transpose of an expert's down
 *   mlp.experts.gate_up_proj_bias (E, 2 I), down_proj_bias (E, H)
 *
 * In released checkpoints the weights are MXFP4, U8, a row of an expert in blocks of 32 values:
 *
 *   mlp.experts.gate_up_proj_blocks (E, 2 I, H / 32, 16), gate_up_proj_scales (E, 2 I, H / 32)
 *   mlp.experts.down_proj_blocks (E, H, I / 32, 16), down_proj_scales (E, H, I / 32)
 *
 * Byte j of a block has values 2 j (low bits) and 2 j + 1.  They are BF16 here, which holds all of them. */
#include "base/die.h"
#include "base/family.h"
#include "base/num.h"
#include "io/in/config.h"
#include "io/in/stored.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPERTS     "mlp.experts."
#define BLOCK       32
#define BLOCK_BYTES 16
#define TENSORS_MAX (1 << 20) /* of the model, each expert's counted: ten times what any model has */

typedef enum { COLUMNS, BLOCKS, SCALES } form;

/* A weight or bias of each expert in a stacked tensor: its row r is the expert's stored column, or row of
 * blocks, number step r + first. */
typedef struct {
    const char *stored, *tensor; /* behind "mlp.experts.", and behind that and the expert's number */
    form form;
    int dims; /* of the stored tensor */
    int64_t step, first;
} row;

static const row rows[] = {
    {"gate_up_proj", "gate_proj.weight", COLUMNS, 3, 2, 0},
    {"gate_up_proj", "up_proj.weight", COLUMNS, 3, 2, 1},
    {"gate_up_proj_bias", "gate_proj.bias", COLUMNS, 2, 2, 0},
    {"gate_up_proj_bias", "up_proj.bias", COLUMNS, 2, 2, 1},
    {"gate_up_proj_blocks", "gate_proj.weight", BLOCKS, 4, 2, 0},
    {"gate_up_proj_blocks", "up_proj.weight", BLOCKS, 4, 2, 1},
    {"gate_up_proj_scales", NULL, SCALES, 3, 1, 0},
    {"down_proj", "down_proj.weight", COLUMNS, 3, 1, 0},
    {"down_proj_bias", "down_proj.bias", COLUMNS, 2, 1, 0},
    {"down_proj_blocks", "down_proj.weight", BLOCKS, 4, 1, 0},
    {"down_proj_scales", NULL, SCALES, 3, 1, 0},
};
enum { ROWS = sizeof rows / sizeof *rows };

/* Where a tensor of the model is; how NULL: it is stored as it is. */
typedef struct {
    const bq_tensor *stored, *scales;
    const row *how;
    int64_t expert;
} place;

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to list a model's experts");
    return memory;
}

/* ---- opening ---- */

static bool knows(const char *path, const json_t *config) {
    int family = bq_config_family(config);
    return family >= 0 && bq_family_at(family)->traits & BQ_FAMILY_STACKED &&
           bq_weights_safetensors.knows(path, config);
}

/* The scales of a tensor of blocks, the blocks of one of scales; NULL: there are none. */
static const bq_tensor *scales_of(const bq_stored *s, const bq_tensor *blocks) {
    return bq_stored_beside(s, blocks, strlen("_blocks"), "_scales");
}
static const bq_tensor *blocks_of(const bq_stored *s, const bq_tensor *scales) {
    return bq_stored_beside(s, scales, strlen("_scales"), "_blocks");
}

/* What is wrong with blocks and their scales, or NULL. */
static const char *wrong_blocks(const bq_tensor *blocks, const bq_tensor *scales) {
    if (!scales) return "its scales are not there";
    if (strcmp(blocks->dtype, "U8") != 0 || strcmp(scales->dtype, "U8") != 0)
        return "blocks and scales must be U8";
    if (blocks->shape[3] != BLOCK_BYTES) return "its blocks are not of 16 bytes";
    if (scales->dims != 3 || memcmp(blocks->shape, scales->shape, 3 * sizeof *scales->shape) != 0)
        return "its scales have another shape";
    return NULL;
}

/* The same of a stacked tensor. */
static const char *wrong(const bq_stored *s, const bq_tensor *t, const row *r) {
    bq_type type;
    if (r->form == SCALES) return blocks_of(s, t) ? NULL : "its blocks are not there";
    if (t->dims != r->dims) return "it has another number of dimensions";
    for (int i = 0; i < t->dims; i++)
        if (t->shape[i] < 1 || t->shape[i] > BQ_SIZE_MAX) return "its shape is out of range";
    if (t->shape[0] > BQ_EXPERTS_MAX) return "it has too many experts";
    if (t->shape[r->form == BLOCKS ? 1 : t->dims - 1] % r->step) return "gate and up are not alike";
    if (r->form == BLOCKS) return wrong_blocks(t, scales_of(s, t));
    return bq_dtype_float(t->dtype, &type) ? NULL : "F32, F16 or BF16 is needed";
}

/* One linear of all experts: weights or biases. */
static int add_experts(bq_weights *w, const bq_tensor *t, const row *r) {
    const char *why = wrong(w->own, t, r);
    size_t size = strlen(t->name) + 40;
    if (!why && r->form != SCALES && t->shape[0] > TENSORS_MAX - w->count) why = "there are too many";
    if (why) return bq_refuse(BQ_DATA, "%s: tensor '%.200s': %s", w->dir, t->name, why);
    if (r->form == SCALES) return BQ_OK;
    const bool blocks = r->form == BLOCKS;
    const bq_tensor *scales = blocks ? scales_of(w->own, t) : NULL;
    bq_tensor one = {
        .dtype = blocks ? bq_dtype_name("BF16") : t->dtype,
        .dims = r->dims == 2 ? 1 : 2,
        .shape = {t->shape[blocks ? 1 : t->dims - 1] / r->step, blocks ? BLOCK * t->shape[2] : t->shape[1]},
        .file = t->file,
        .offset = t->offset};
    one.bytes = (size_t)bq_tensor_count(&one) * (size_t)bq_dtype_bits(one.dtype) / 8;
    char *name = need(malloc(size));
    for (int64_t e = 0; e < t->shape[0]; e++) {
        snprintf(name, size, "%.*s%lld.%s", (int)(strlen(t->name) - strlen(r->stored)), t->name, (long long)e,
                 r->tensor);
        one.name = name;
        bq_stored_add(w, &one, &(place){t, scales, r, e});
    }
    free(name);
    return BQ_OK;
}

static int take(bq_weights *w, const bq_tensor *t) {
    const char *at = strstr(t->name, EXPERTS);
    bool stacked = false;
    int rc = BQ_OK;
    for (int i = 0; i < ROWS && at && !rc; i++) {
        if (strcmp(at + strlen(EXPERTS), rows[i].stored) != 0) continue;
        stacked = true;
        rc = add_experts(w, t, &rows[i]);
    }
    if (!stacked) bq_stored_add(w, t, &(place){t, NULL, NULL, 0});
    return rc;
}

/* The key leaves config: here the experts are not quantized. */
static void drop_mxfp4(json_t *config) {
    static const char key[] = "quantization_config";
    const char *method = json_string_value(json_object_get(json_object_get(config, key), "quant_method"));
    if (method && strcmp(method, "mxfp4") == 0) json_object_del(config, key);
}

static int open_stacked(bq_weights *w, const char *path) {
    bq_stored *s = w->own = need(calloc(1, sizeof *s));
    int rc = bq_stored_open(w, path, sizeof(place));
    if (rc) return rc;
    drop_mxfp4(w->config);
    for (int i = 0; i < s->count && !rc; i++) rc = take(w, &s->at[i]);
    return rc ? rc : bq_weights_listed(w);
}

/* ---- reading ---- */

/* Values [from, end) of a linear whose rows are stored columns: for each of its columns a run of a stored
 * row.  A bias has one column. */
static void read_columns(const bq_weights *w, const place *p, size_t size, int64_t from, int64_t end,
                         uint8_t *to) {
    const bq_tensor *t = p->stored;
    const int64_t step = p->how->step, cols = t->dims == 3 ? t->shape[1] : 1, width = t->shape[t->dims - 1];
    const int64_t first = from / cols, last = (end - 1) / cols;
    const size_t bytes = (size_t)(step * (last - first) + 1) * size;
    uint8_t *run = need(malloc(bytes));
    for (int64_t c = 0; c < cols; c++) {
        int64_t at = (p->expert * cols + c) * width + step * first + p->how->first;
        bq_weights_pread(w, t->file, t->offset + (size_t)at * size, run, bytes);
        for (int64_t r = first; r <= last; r++) {
            int64_t k = r * cols + c;
            const uint8_t *value = run + (size_t)(step * (r - first)) * size;
            if (k >= from && k < end) memcpy(to + (size_t)(k - from) * size, value, size);
        }
    }
    free(run);
}

/* The values of a block, as bits of BF16. */
static void decode(const uint8_t *block, uint8_t scale, uint16_t *to) {
    static const float e2m1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    const float unit = bq_float(scale ? (uint32_t)scale << 23 : 0x00400000u); /* 2^(scale - 127) */
    for (int j = 0; j < BLOCK_BYTES; j++) {
        to[2 * j] = (uint16_t)(bq_bits(e2m1[block[j] & 15] * unit) >> 16);
        to[2 * j + 1] = (uint16_t)(bq_bits(e2m1[block[j] >> 4] * unit) >> 16);
    }
}

/* Values [from, end) of a linear in blocks, row by row. */
static void read_blocks(const bq_weights *w, const place *p, int64_t from, int64_t end, uint8_t *to) {
    const bq_tensor *t = p->stored;
    const size_t groups = (size_t)t->shape[2];
    const int64_t cols = BLOCK * t->shape[2];
    uint8_t *block = need(malloc(groups * (BLOCK_BYTES + 1))), *scale = block + groups * BLOCK_BYTES;
    uint16_t *value = need(malloc((size_t)cols * sizeof *value));
    for (int64_t at = from, n; at < end; at += n, to += (size_t)n * sizeof *value) {
        int64_t r = at / cols, skip = at % cols;
        n = cols - skip < end - at ? cols - skip : end - at;
        size_t stored = (size_t)(p->expert * t->shape[1] + p->how->step * r + p->how->first) * groups;
        bq_weights_pread(w, t->file, t->offset + stored * BLOCK_BYTES, block, groups * BLOCK_BYTES);
        bq_weights_pread(w, p->scales->file, p->scales->offset + stored, scale, groups);
        for (size_t g = 0; g < groups; g++) {
            if (scale[g] == 255)
                bq_refuse_job(BQ_DATA, "%s: tensor '%.200s' has a NaN at expert %lld, row %lld, block %zu",
                              w->part[p->scales->file].name, p->scales->name, (long long)p->expert,
                              (long long)(p->how->step * r + p->how->first), g);
            decode(block + g * BLOCK_BYTES, scale[g], value + g * BLOCK);
        }
        memcpy(to, value + skip, (size_t)n * sizeof *value);
    }
    free(block);
    free(value);
}

static void read_values(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    const place *p = bq_stored_place(w, t);
    if (!p->how) {
        bq_weights_safetensors.read(w, p->stored, from, to, bytes);
        return;
    }
    size_t size = (size_t)bq_dtype_bits(t->dtype) / 8;
    int64_t first = (int64_t)(from / size), end = (int64_t)((from + bytes) / size);
    BQ_CHECK(from % size == 0 && bytes % size == 0, "%s: bytes %zu + %zu of %s", t->name, from, bytes,
             t->dtype);
    if (!bytes) return;
    if (p->how->form == BLOCKS)
        read_blocks(w, p, first, end, to);
    else
        read_columns(w, p, size, first, end, to);
}

/* An expert's part of a stacked tensor. */
static void fetch(const bq_weights *w, const bq_tensor *t, int64_t expert) {
    size_t each = t->bytes / (size_t)t->shape[0];
    posix_fadvise(w->part[t->file].fd, (off_t)(t->offset + (size_t)expert * each), (off_t)each,
                  POSIX_FADV_WILLNEED);
}

static size_t held(const bq_weights *w, const bq_tensor *t) {
    const place *p = bq_stored_place(w, t);
    return p->scales ? t->bytes / 64 * (BLOCK_BYTES + 1) : t->bytes; /* a block is 64 bytes of BF16 */
}

static void prefetch(const bq_weights *w, const bq_tensor *t) {
    const place *p = bq_stored_place(w, t);
    if (!p->how) {
        bq_weights_safetensors.prefetch(w, p->stored);
        return;
    }
    fetch(w, p->stored, p->expert);
    if (p->scales) fetch(w, p->scales, p->expert);
}

const bq_weights_reader bq_weights_stacked = {
    .knows = knows,
    .open = open_stacked,
    .close = bq_stored_close,
    .read = read_values,
    .held = held,
    .prefetch = prefetch,
};
