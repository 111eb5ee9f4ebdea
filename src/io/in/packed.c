/* Checkpoints whose linears are codes and scales, in safetensors files.  Here each of them is its values,
 * F32: what engines multiply by.
 *
 * compressed-tensors, pack-quantized, of a weight (N, K) with G groups in a row:
 *   X.weight_packed (N, K bits / 32) I32      field i of word w is the code of column 32 / bits w + i, plus
 *                                             2^(bits - 1)
 *   X.weight_scale (N, G)                     X.weight_shape (2) I64
 *   X.weight_zero_point (N bits / 32, G) I32  packed along the rows, if there are zero points
 * GPTQ, version 1 or 2:
 *   X.qweight (K bits / 32, N) I32            the codes of a column as one stream of bits
 *   X.qzeros (G, N bits / 32) I32             zero points, of version 1 less 1; X.scales (G, N)
 *   X.g_idx (K) I32                           the group of each column; without it K / G columns each
 *
 * A value is (code - zero point) scale.  Models whose inputs are to be rounded, too, are refused: their
 * values alone are not what engines compute. */
#include "base/die.h"
#include "base/num.h"
#include "io/in/config.h"
#include "io/in/weights_reader.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG "quantization_config"

typedef struct {
    const bq_tensor *code, *scale, *zero, *group; /* group: g_idx, or NULL; code NULL: stored as it is */
    const bq_tensor *stored;
    int bits;
} place;

typedef struct {
    bq_tensor *at; /* as stored, with their names */
    const bq_tensor **by_name;
    place *of; /* in order of bq_weights.at */
    int count, room;
    bool gptq;
    int less;      /* GPTQ: what stored zero points lack */
    unsigned bits; /* bit b: some linears have b bits */
} model;

static void *need(void *memory) {
    BQ_CHECK(memory, "no memory to list a model's tensors");
    return memory;
}

/* ---- what config.json says ---- */

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool knows(const char *path, const json_t *config) {
    const char *method = text_of(json_object_get(config, CONFIG), "quant_method");
    return (strcmp(method, "compressed-tensors") == 0 || strcmp(method, "gptq") == 0) &&
           bq_weights_safetensors.knows(path, config);
}

static bool add_bits(model *m, const json_t *bits) {
    json_int_t n = json_integer_value(bits);
    if (n != 2 && n != 4 && n != 8) return false;
    m->bits |= 1u << n;
    return true;
}

/* What is wrong with a quantization_config, or NULL. */
static const char *wrong_config(model *m, const json_t *q) {
    const json_t *groups = json_object_get(q, "config_groups");
    const char *name, *format = text_of(q, "checkpoint_format");
    json_t *group;
    m->gptq = strcmp(text_of(q, "quant_method"), "gptq") == 0;
    m->less = strcmp(format, "gptq_v2") != 0;
    if (m->gptq) return add_bits(m, json_object_get(q, "bits")) ? NULL : "bits: 2, 4 and 8 are read";
    json_object_foreach((json_t *)(uintptr_t)groups, name, group) {
        const char *own = text_of(group, "format");
        if (strcmp(*own ? own : text_of(q, "format"), "pack-quantized") != 0)
            return "format: pack-quantized is read";
        if (json_is_object(json_object_get(group, "input_activations")))
            return "input_activations: inputs of linears that are rounded, too, are not computed here";
        if (!add_bits(m, json_object_get(json_object_get(group, "weights"), "num_bits")))
            return "num_bits: 2, 4 and 8 are read";
    }
    return m->bits ? NULL : "config_groups: there is none";
}

/* ---- opening ---- */

/* The tensor "<module of t>.<what>"; NULL: there is none.  cut: the length of what t has behind that. */
static const bq_tensor *beside(const model *m, const bq_tensor *t, size_t cut, const char *what) {
    size_t n = strlen(t->name) - cut, all = n + strlen(what) + 1;
    char *name = need(malloc(all));
    snprintf(name, all, "%.*s%s", (int)n, t->name, what);
    const bq_tensor *found = bq_tensors_find(m->by_name, m->count, name);
    free(name);
    return found;
}

static bool is(const bq_tensor *t, const char *dtype, int dims) {
    return t && strcmp(t->dtype, dtype) == 0 && t->dims == dims;
}

static int64_t words(int64_t n, int bits) { return n / (32 / bits) + (n % (32 / bits) != 0); }

/* The bits of codes whose n values are in so many words; 0: none that config.json has. */
static int bits_of(const model *m, int64_t n, int64_t in) {
    for (int bits = 2; bits <= 8; bits *= 2)
        if (m->bits >> bits & 1 && words(n, bits) == in) return bits;
    return 0;
}

/* Fill in p and the shape of a packed weight.  What is wrong with it, or NULL. */
static const char *packed(const bq_weights *w, const model *m, place *p, int64_t shape[2]) {
    const bq_tensor *t = p->stored;
    size_t cut = strlen("weight_packed");
    bq_type type;
    int64_t said[2];
    const bq_tensor *size = beside(m, t, cut, "weight_shape");
    p->scale = beside(m, t, cut, "weight_scale"), p->zero = beside(m, t, cut, "weight_zero_point");
    if (!is(t, "I32", 2)) return "it is not a matrix of I32";
    if (!is(size, "I64", 1) || size->shape[0] != 2) return "its weight_shape is not there, or not two of I64";
    bq_weights_pread(w, size->file, size->offset, said, sizeof said);
    if (said[0] != t->shape[0] || said[1] < 1 || said[1] > BQ_SIZE_MAX) return "its weight_shape is another";
    shape[0] = said[0], shape[1] = said[1];
    p->bits = bits_of(m, shape[1], t->shape[1]);
    if (!p->bits) return "it has not the words of its shape";
    if (!p->scale || p->scale->dims != 2 || !bq_dtype_float(p->scale->dtype, &type))
        return "its weight_scale is not there, or not a matrix of floats";
    int64_t groups = p->scale->shape[1];
    if (p->scale->shape[0] != shape[0] || groups < 1 || shape[1] % groups) return "its scales do not fit it";
    if (p->zero && (!is(p->zero, "I32", 2) || p->zero->shape[0] != words(shape[0], p->bits) ||
                    p->zero->shape[1] != groups))
        return "its zero points do not fit it";
    return beside(m, t, cut, "weight_g_idx") ? "its columns are in another order (weight_g_idx)" : NULL;
}

/* The same of GPTQ. */
static const char *gptq(const model *m, place *p, int64_t shape[2]) {
    const bq_tensor *t = p->stored;
    size_t cut = strlen("qweight");
    bq_type type;
    p->scale = beside(m, t, cut, "scales"), p->zero = beside(m, t, cut, "qzeros");
    p->group = beside(m, t, cut, "g_idx");
    for (p->bits = 2; !(m->bits >> p->bits & 1);) p->bits *= 2;
    if (!is(t, "I32", 2)) return "it is not a matrix of I32";
    if (t->shape[0] < 1 || t->shape[0] > BQ_SIZE_MAX / 16) return "its shape is out of range";
    shape[0] = t->shape[1], shape[1] = t->shape[0] * (32 / p->bits);
    if (!p->scale || p->scale->dims != 2 || !bq_dtype_float(p->scale->dtype, &type))
        return "its scales are not there, or not a matrix of floats";
    int64_t groups = p->scale->shape[0];
    if (p->scale->shape[1] != shape[0] || groups < 1 || (!p->group && shape[1] % groups))
        return "its scales do not fit it";
    if (!is(p->zero, "I32", 2) || p->zero->shape[0] != groups ||
        p->zero->shape[1] != words(shape[0], p->bits))
        return "its qzeros are not there, or do not fit it";
    return p->group && (!is(p->group, "I32", 1) || p->group->shape[0] != shape[1])
               ? "its g_idx does not fit it"
               : NULL;
}

static bool ends(const char *name, const char *with) {
    size_t n = strlen(name), k = strlen(with);
    return n > k && strcmp(name + n - k, with) == 0;
}

/* Is the tensor a part of a packed linear, beside its codes? */
static bool part_of(const model *m, const bq_tensor *t) {
    static const char *const parts[2][5] = {
        {".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx", NULL},
        {".scales", ".qzeros", ".g_idx", NULL}};
    const char *const *what = parts[m->gptq];
    for (int i = 0; what[i]; i++)
        if (ends(t->name, what[i]) && beside(m, t, strlen(what[i]), m->gptq ? ".qweight" : ".weight_packed"))
            return true;
    return false;
}

static int take(bq_weights *w, model *m, const bq_tensor *t) {
    const char *code = m->gptq ? ".qweight" : ".weight_packed";
    place p = {.stored = t};
    bq_tensor one = *t;
    char *name = NULL;
    if (part_of(m, t)) return BQ_OK;
    if (ends(t->name, code)) {
        size_t n = strlen(t->name) - strlen(code), all = n + sizeof ".weight";
        const char *why = m->gptq ? gptq(m, &p, one.shape) : packed(w, m, &p, one.shape);
        if (!why && one.shape[0] > INT64_MAX / 4 / one.shape[1]) why = "it is too large";
        if (why) return bq_refuse(BQ_DATA, "%s: tensor '%.200s': %s", w->dir, t->name, why);
        name = need(malloc(all));
        snprintf(name, all, "%.*s.weight", (int)n, t->name);
        p.code = t, one.name = name, one.dtype = bq_dtype_name("F32");
        one.bytes = (size_t)(one.shape[0] * one.shape[1]) * sizeof(float);
    }
    if (w->count == m->room) {
        m->room = m->room ? 2 * m->room : 256;
        m->of = need(realloc(m->of, (size_t)m->room * sizeof *m->of));
    }
    m->of[w->count] = p;
    bq_weights_add(w, &one);
    free(name);
    return BQ_OK;
}

static int open_packed(bq_weights *w, const char *path) {
    model *m = w->own = need(calloc(1, sizeof *m));
    const char *why = wrong_config(m, json_object_get(w->config, CONFIG));
    if (why) return bq_refuse(BQ_DATA, "%s: " CONFIG ": %s", w->config_path, why);
    int rc = bq_weights_safetensors.open(w, path);
    if (rc) return rc;
    m->at = w->at, m->by_name = w->by_name, m->count = w->count;
    w->at = NULL, w->by_name = NULL, w->count = w->room = 0;
    json_object_del(w->config, CONFIG); /* here nothing is quantized */
    for (int i = 0; i < m->count && !rc; i++) rc = take(w, m, &m->at[i]);
    return rc ? rc : bq_weights_listed(w);
}

static void close_packed(void *own) {
    model *m = own;
    for (int i = 0; i < m->count; i++) free((char *)(uintptr_t)m->at[i].name);
    free(m->at);
    free(m->by_name);
    free(m->of);
    free(m);
}

/* ---- reading ---- */

static const place *place_of(const bq_weights *w, const bq_tensor *t) {
    const model *m = w->own;
    return &m->of[bq_weights_find(w, t->name) - w->at]; /* t may be a view */
}

static int field(const uint32_t *word, int64_t i, int bits) {
    int in = 32 / bits;
    return (int)(word[i / in] >> (bits * (int)(i % in)) & ((1u << bits) - 1));
}

/* n values of a matrix of floats from number `at` on. */
static void read_floats(const bq_weights *w, const bq_tensor *t, int64_t at, int64_t n, float *to) {
    bq_type type;
    size_t size = (size_t)bq_dtype_bits(t->dtype) / 8;
    bq_dtype_float(t->dtype, &type);
    bq_weights_pread(w, t->file, t->offset + (size_t)at * size, to, (size_t)n * size);
    for (int64_t i = n;
         i-- > 0 && type != BQ_F32;) { /* from the back: each value has more room than before */
        uint16_t half;
        memcpy(&half, (char *)to + 2 * i, sizeof half);
        to[i] = type == BQ_F16 ? bq_from_f16(half) : bq_from_bf16(half);
    }
}

/* Row r, of `cols` values.  word: room for its codes. */
static void read_packed(const bq_weights *w, const place *p, int64_t r, int64_t cols, uint32_t *word,
                        float *to) {
    int64_t groups = p->scale->shape[1], in = p->code->shape[1], zeros = 32 / p->bits;
    int offset = 1 << (p->bits - 1);
    float *scale = need(malloc((size_t)groups * sizeof *scale));
    uint32_t *zero = need(calloc((size_t)groups, sizeof *zero));
    bq_weights_pread(w, p->code->file, p->code->offset + (size_t)(r * in) * 4, word, (size_t)in * 4);
    read_floats(w, p->scale, r * groups, groups, scale);
    if (p->zero)
        bq_weights_pread(w, p->zero->file, p->zero->offset + (size_t)(r / zeros * groups) * 4, zero,
                         (size_t)groups * 4);
    for (int64_t c = 0; c < cols; c++) {
        int64_t g = c / (cols / groups);
        int z = p->zero ? field(zero + g, r % zeros, p->bits) : offset;
        to[c] = (float)(field(word, c, p->bits) - z) * scale[g];
    }
    free(scale);
    free(zero);
}

/* The group of column c of GPTQ. */
static int64_t group_of(const bq_weights *w, const place *p, const int32_t *group, int64_t cols, int64_t c) {
    int64_t groups = p->scale->shape[0], g = group ? group[c] : c / (cols / groups);
    if (g < 0 || g >= groups)
        bq_refuse_job(BQ_DATA, "%s: tensor '%.200s' has group %lld of %lld at column %lld",
                      w->part[p->group->file].name, p->group->name, (long long)g, (long long)groups,
                      (long long)c);
    return g;
}

/* n rows of GPTQ from row `first` on, which are columns of the stored codes. */
static void read_gptq(const bq_weights *w, const place *p, int64_t first, int64_t n, int64_t cols,
                      float *to) {
    const model *m = w->own;
    int64_t rows = p->code->shape[1], groups = p->scale->shape[0], in = 32 / p->bits,
            zeros = p->zero->shape[1], word0 = first / in, zero_words = (first + n - 1) / in + 1 - word0;
    float *scale = need(malloc((size_t)(groups * n) * sizeof *scale));
    uint32_t *zero = need(malloc((size_t)(groups * zero_words) * 4)), *word = need(malloc((size_t)n * 4));
    int32_t *group = p->group ? need(malloc((size_t)cols * sizeof *group)) : NULL;
    if (group) bq_weights_pread(w, p->group->file, p->group->offset, group, (size_t)cols * 4);
    for (int64_t g = 0; g < groups; g++) {
        read_floats(w, p->scale, g * rows + first, n, scale + g * n);
        bq_weights_pread(w, p->zero->file, p->zero->offset + (size_t)(g * zeros + word0) * 4,
                         zero + g * zero_words, (size_t)zero_words * 4);
    }
    for (int64_t c = 0; c < cols; c++) {
        int64_t g = group_of(w, p, group, cols, c);
        if (c % in == 0)
            bq_weights_pread(w, p->code->file, p->code->offset + (size_t)(c / in * rows + first) * 4, word,
                             (size_t)n * 4);
        for (int64_t r = 0; r < n; r++) {
            int z = field(zero + g * zero_words, first + r - word0 * in, p->bits) + m->less;
            to[r * cols + c] = (float)(field(&word[r], c % in, p->bits) - z) * scale[g * n + r];
        }
    }
    free(scale);
    free(zero);
    free(word);
    free(group);
}

enum { AT_ONCE = 64 }; /* rows */

static void read_values(const bq_weights *w, const bq_tensor *t, size_t from, void *to, size_t bytes) {
    const place *p = place_of(w, t);
    const model *m = w->own;
    if (!p->code) {
        bq_weights_safetensors.read(w, p->stored, from, to, bytes);
        return;
    }
    int64_t cols = bq_weights_find(w, t->name)->shape[1];
    size_t row = (size_t)cols * sizeof(float);
    float *value = need(malloc(AT_ONCE * row));
    uint32_t *word = need(malloc((size_t)(cols + 16) * sizeof *word));
    for (size_t done = 0, n; done < bytes; done += n) {
        int64_t r = (int64_t)((from + done) / row), end = (int64_t)((from + bytes - 1) / row) + 1;
        int64_t rows = end - r < AT_ONCE ? end - r : AT_ONCE;
        size_t skip = (from + done) % row;
        n = (size_t)rows * row - skip < bytes - done ? (size_t)rows * row - skip : bytes - done;
        if (m->gptq) read_gptq(w, p, r, rows, cols, value);
        for (int64_t i = 0; i < rows && !m->gptq; i++) read_packed(w, p, r + i, cols, word, value + i * cols);
        memcpy((char *)to + done, (char *)value + skip, n);
    }
    free(value);
    free(word);
}

static void prefetch(const bq_weights *w, const bq_tensor *t) {
    const place *p = place_of(w, t);
    bq_weights_safetensors.prefetch(w, p->stored);
}

const bq_weights_reader bq_weights_packed = {
    .knows = knows,
    .open = open_packed,
    .close = close_packed,
    .read = read_values,
    .prefetch = prefetch,
};
