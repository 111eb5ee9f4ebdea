/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints whose linears are codes and scales, in safetensors files.  Here each of them is its values,
 * F32: what engines multiply by.  packed_rows.c and packed_columns.c say what the files look like.
 *
 * Where engines round the inputs of linears, too, the weights alone are read, with a warning. */
#include "io/in/packed.h"

#include "base/die.h"
#include "base/log.h"
#include "base/num.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG "quantization_config"

static const bq_packed_kind *const kinds[] = {&bq_packed_compressed_tensors, &bq_packed_gptq, &bq_packed_awq};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to read a quantized model");
    return memory;
}

void *bq_packed_room(int64_t count, size_t size) { return need(calloc((size_t)count + 1, size)); }

/* ---- opening ---- */

const char *bq_packed_text(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

bool bq_packed_is(const bq_tensor *t, const char *dtype, int dims) {
    return t && strcmp(t->dtype, dtype) == 0 && t->dims == dims;
}

bool bq_packed_ends(const char *name, const char *with) {
    size_t n = strlen(name), k = strlen(with);
    return n > k && strcmp(name + n - k, with) == 0;
}

bool bq_packed_add_bits(bq_packed_model *m, const json_t *bits, unsigned allowed) {
    json_int_t n = json_integer_value(bits);
    if (n < 1 || n > BQ_PACKED_BITS || !(allowed >> n & 1)) return false;
    m->bits |= 1u << n;
    return true;
}

static const bq_packed_kind *kind_of(const json_t *config) {
    const char *method = bq_packed_text(json_object_get(config, CONFIG), "quant_method");
    for (int i = 0; i < KINDS; i++)
        if (strcmp(method, kinds[i]->method) == 0) return kinds[i];
    return NULL;
}

static bool knows(const char *path, const json_t *config) {
    return kind_of(config) && bq_weights_safetensors.knows(path, config);
}

/* Is the tensor a part of a packed linear, beside its codes? */
static bool part_of(const bq_packed_model *m, const bq_tensor *t) {
    static const char *const codes[] = {".weight_packed", ".weight", ".qweight"};
    for (const char *const *part = m->kind->parts; *part; part++)
        for (size_t i = 0; i < sizeof codes / sizeof *codes && bq_packed_ends(t->name, *part); i++) {
            const bq_tensor *code = bq_stored_beside(&m->list, t, strlen(*part), codes[i]);
            if (code && m->kind->codes(code)) return true;
        }
    return false;
}

/* What is wrong with the codes p->stored, or NULL. */
static const char *find(const bq_weights *w, const bq_packed_model *m, bq_packed *p, size_t cut) {
    const char *why = m->kind->find(w, p, cut);
    if (why) return why;
    if (p->rows > INT64_MAX / 4 / p->cols) return "it is too large";
    int32_t *group = bq_packed_groups(w, p);
    free(group);
    return group ? NULL : "its g_idx has a group without scales";
}

static int take(bq_weights *w, const bq_packed_model *m, const bq_tensor *t) {
    bq_packed p = {.stored = t, .unit = 1};
    bq_tensor one = *t;
    size_t cut = m->kind->codes(t), all = strlen(t->name) - cut + sizeof ".weight";
    if (part_of(m, t)) return BQ_OK;
    char *name = need(malloc(all));
    if (cut) {
        const char *why = find(w, m, &p, cut);
        snprintf(name, all, "%.*s.weight", (int)(strlen(t->name) - cut), t->name);
        if (why) {
            free(name);
            return bq_refuse(BQ_DATA, "%s: tensor '%.200s': %s", w->dir, t->name, why);
        }
        one.name = name, one.dtype = bq_dtype_name("F32");
        one.dims = 2, one.shape[0] = p.rows, one.shape[1] = p.cols;
        one.bytes = (size_t)(p.rows * p.cols) * sizeof(float);
    }
    bq_stored_add(w, &one, &p);
    free(name);
    return BQ_OK;
}

static int open_packed(bq_weights *w, const char *path) {
    bq_packed_model *m = w->own = need(calloc(1, sizeof *m));
    m->kind = kind_of(w->config);
    const char *why = m->kind->config(m, json_object_get(w->config, CONFIG));
    if (why) return bq_refuse(BQ_DATA, "%s: " CONFIG ": %s", w->config_path, why);
    int rc = bq_stored_open(w, path, sizeof(bq_packed));
    for (int i = 0; i < m->list.count && !rc; i++) rc = take(w, m, &m->list.at[i]);
    if (rc) return rc;
    json_object_del(w->config, CONFIG); /* here nothing is quantized */
    if (m->rounded)
        bq_log(BQ_WARN,
               "%s: engines round the inputs of its linears, too (input_activations); here they are "
               "not rounded",
               w->dir);
    return bq_weights_listed(w);
}

/* ---- reading ---- */

void bq_packed_floats(const bq_weights *w, const bq_tensor *t, int64_t at, int64_t n, float *to) {
    bq_type type = BQ_F32;
    bool real = bq_dtype_float(t->dtype, &type), e4m3 = strcmp(t->dtype, "F8_E4M3") == 0;
    size_t size = (size_t)bq_dtype_bits(t->dtype) / 8;
    bq_weights_pread(w, t->file, t->offset + (size_t)at * size, to, (size_t)n * size);
    if (real && type == BQ_F32) return;
    for (int64_t i = n; i-- > 0;) { /* from the back: each value has more room than before */
        uint16_t half;
        const uint8_t byte = ((const uint8_t *)to)[i];
        memcpy(&half, (char *)to + (real ? 2 * i : 0), sizeof half);
        to[i] = real          ? type == BQ_F16 ? bq_from_f16(half) : bq_from_bf16(half)
                         : e4m3 ? bq_from_e4m3(byte)
                : byte == 255 ? bq_float(0x7fc00000u)
                              : bq_float(byte ? (uint32_t)byte << 23 : 0x00400000u); /* 2^(byte - 127) */
    }
}

int32_t *bq_packed_groups(const bq_weights *w, const bq_packed *p) {
    int32_t *group = bq_packed_room(p->cols, sizeof *group);
    if (p->group) bq_weights_pread(w, p->group->file, p->group->offset, group, (size_t)p->cols * 4);
    for (int64_t c = 0; c < p->cols; c++) {
        if (!p->group) group[c] = (int32_t)(c / p->tile[1]);
        if (group[c] >= 0 && group[c] < p->groups) continue;
        free(group);
        return NULL;
    }
    return group;
}

/* Rows to decode at a time. */
static int64_t rows_at_once(int64_t cols) {
    int64_t n = ((int64_t)1 << 20) / cols;
    return n < 8 ? 8 : n > 256 ? 256 : n;
}

static void read_values(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    const bq_packed *p = bq_stored_place(w, t);
    const bq_packed_model *m = w->own;
    if (!p->bits) {
        bq_weights_safetensors.read(w, p->stored, from, to, bytes);
        return;
    }
    size_t row = (size_t)p->cols * sizeof(float);
    int64_t most = rows_at_once(p->cols);
    float *value = NULL;
    for (size_t done = 0, n; done < bytes; done += n) {
        int64_t r = (int64_t)((from + done) / row), end = (int64_t)((from + bytes - 1) / row) + 1;
        int64_t rows = end - r < most ? end - r : most;
        size_t skip = (from + done) % row;
        char *at = (char *)to + done;
        n = (size_t)rows * row - skip < bytes - done ? (size_t)rows * row - skip : bytes - done;
        bool whole = !skip && n == (size_t)rows * row && (uintptr_t)at % sizeof(float) == 0;
        if (!whole && !value) value = bq_packed_room(most * p->cols, sizeof *value);
        m->kind->read(w, p, r, rows, whole ? (void *)at : value);
        if (!whole) memcpy(at, (char *)value + skip, n);
    }
    free(value);
}

static size_t held(const bq_weights *w, const bq_tensor *t) {
    const bq_packed *p = bq_stored_place(w, t);
    const bq_tensor *const beside[] = {p->scale, p->zero, p->group, p->outer};
    size_t bytes = p->stored->bytes;
    for (int i = 0; i < 4; i++) bytes += beside[i] ? beside[i]->bytes : 0;
    return bytes;
}

static void prefetch(const bq_weights *w, const bq_tensor *t) {
    const bq_packed *p = bq_stored_place(w, t);
    bq_weights_safetensors.prefetch(w, p->stored);
}

const bq_weights_reader bq_weights_packed = {
    .knows = knows,
    .open = open_packed,
    .close = bq_stored_close,
    .read = read_values,
    .held = held,
    .prefetch = prefetch,
};
