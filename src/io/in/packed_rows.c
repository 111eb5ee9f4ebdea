/* SPDX-License-Identifier: Apache-2.0 */
/* compressed-tensors: codes of a weight (N, K) in its own order, a format for each group of linears.
 *
 *   pack-quantized        X.weight_packed I32, integers of 2 to 8 bits, plus 2^(bits - 1);
 *                         X.weight_shape (2) I64
 *   int-quantized         X.weight (N, K) I8
 *   float-quantized       X.weight (N, K) F8_E4M3
 *   nvfp4-pack-quantized  X.weight_packed (N, K / 2) U8, E2M1; X.weight_scale (N, K / 16) F8_E4M3, which
 *                         are divided by X.weight_global_scale (1) F32
 *   mxfp4-pack-quantized  X.weight_packed U8, E2M1; X.weight_scale (N, K / 32) U8, 2^(s - 127)
 *   mxfp6-pack-quantized  the same with E2M3
 *   mxfp8-quantized       the same with X.weight F8_E4M3
 *   X.weight_scale        of the others: floats, one in all, one a row, (N, G) or one a block of config.json
 *   X.weight_zero_point   of integers, as I8 in the shape of the scales; or packed along the rows of these,
 *                         plus 2^(bits - 1)
 *   X.weight_g_idx (K)    the group of each column, if columns are not in order of their groups
 *
 * Fields of 3, 5, 6 and 7 bits: one stream of bits in a row; before version 0.18 there were 32 / bits fields
 * in a word.  The width of the tensor says which it is, and where it fits both, the version does. */
#include "io/in/packed.h"

#include "base/die.h"
#include "base/num.h"
#include "io/in/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT ".weight"
#define PACKED ".weight_packed"

typedef enum { FLOATS, E4M3, POWERS } scales;

struct bq_packed_form {
    const char *format, *code, *dtype; /* code: behind the module's name */
    scales scale;
    bool integer;
    int bits;      /* 0: as config.json says */
    int64_t group; /* columns that share a scale; 0: several forms */
};

static const bq_packed_form forms[] = {
    {"pack-quantized", PACKED, "I32", FLOATS, true, 0, 0},
    {"int-quantized", WEIGHT, "I8", FLOATS, true, 8, 0},
    {"float-quantized", WEIGHT, "F8_E4M3", FLOATS, false, 8, 0},
    {"nvfp4-pack-quantized", PACKED, "U8", E4M3, false, 4, 16},
    {"mxfp4-pack-quantized", PACKED, "U8", POWERS, false, 4, 32},
    {"mxfp6-pack-quantized", PACKED, "U8", POWERS, false, 6, 32},
    {"mxfp8-quantized", WEIGHT, "F8_E4M3", POWERS, false, 8, 32},
};
enum { FORMS = sizeof forms / sizeof *forms };

static const char *const parts[] = {".weight_scale",     ".weight_zero_point",   ".weight_shape",
                                    ".weight_g_idx",     ".weight_global_scale", ".input_scale",
                                    ".input_zero_point", ".input_global_scale",  NULL};

/* ---- what config.json says ---- */

static void take_tile(bq_packed_model *m, const json_t *structure) {
    json_int_t rows = json_integer_value(json_array_get(structure, 0)),
               cols = json_integer_value(json_array_get(structure, 1));
    if (rows < 1 || cols < 1 || rows > BQ_SIZE_MAX || cols > BQ_SIZE_MAX || m->tiles == BQ_PACKED_TILES)
        return;
    m->tile[m->tiles][0] = rows, m->tile[m->tiles++][1] = cols;
}

/* One of config_groups. */
static const char *take_group(bq_packed_model *m, const json_t *group, const char *common) {
    const json_t *weights = json_object_get(group, "weights");
    const char *own = bq_packed_text(group, "format"), *format = *own ? own : common;
    int i = 0;
    while (i < FORMS && strcmp(forms[i].format, format) != 0) i++;
    if (i == FORMS)
        return "format: pack-quantized, int-quantized, float-quantized, nvfp4-pack-quantized, "
               "mxfp4-pack-quantized, mxfp6-pack-quantized and mxfp8-quantized are read";
    m->forms |= 1u << i;
    if (!forms[i].bits && !bq_packed_add_bits(m, json_object_get(weights, "num_bits"), 0x1fcu))
        return "num_bits: 2 to 8 are read";
    take_tile(m, json_object_get(weights, "block_structure"));
    m->rounded |= json_is_object(json_object_get(group, "input_activations"));
    return NULL;
}

static const char *config(bq_packed_model *m, const json_t *q) {
    const char *name, *why = NULL;
    json_t *group;
    int major, minor;
    m->layout = -1;
    if (sscanf(bq_packed_text(q, "version"), "%4d.%4d", &major, &minor) == 2)
        m->layout = major == 0 && minor < 18;
    if (json_object_size(json_object_get(json_object_get(q, "transform_config"), "config_groups")))
        return "transform_config: rotations while the model runs are not computed here";
    json_object_foreach(json_object_get(q, "config_groups"), name, group) {
        if (!why) why = take_group(m, group, bq_packed_text(q, "format"));
    }
    return why || m->forms ? why : "config_groups: there is none";
}

/* ---- opening ---- */

static size_t codes(const bq_tensor *t) {
    if (bq_packed_ends(t->name, PACKED)) return strlen(PACKED);
    bool coded = strcmp(t->dtype, "I8") == 0 || strcmp(t->dtype, "F8_E4M3") == 0;
    return coded && bq_packed_ends(t->name, WEIGHT) ? strlen(WEIGHT) : 0;
}

static int64_t words(int64_t n, int bits, int fill) {
    return fill ? n / fill + (n % fill != 0) : (n * bits + 31) / 32;
}

/* The form of codes with these scales, of those in config.json; NULL: none. */
static const bq_packed_form *form_of(const bq_packed_model *m, const bq_tensor *t, const bq_tensor *scale) {
    bq_type type;
    const bq_packed_form *found = NULL;
    for (int i = 0; i < FORMS; i++) {
        const bq_packed_form *f = &forms[i];
        if (!(m->forms >> i & 1) || !bq_packed_ends(t->name, f->code) || strcmp(t->dtype, f->dtype) != 0)
            continue;
        bool fits = f->scale == FLOATS ? bq_dtype_float(scale->dtype, &type)
                    : f->scale == E4M3
                        ? strcmp(scale->dtype, "F8_E4M3") == 0
                        : strcmp(scale->dtype, "U8") == 0 || strcmp(scale->dtype, "F8_E8M0") == 0;
        if (!fits) continue;
        /* E2M1 and E2M3 differ in their width alone */
        if (!found || (scale->dims == 2 && scale->shape[1] <= BQ_SIZE_MAX &&
                       8 * t->shape[1] == scale->shape[1] * f->group * f->bits))
            found = f;
    }
    return found;
}

/* The number of bits and the layout of words that fit the width of packed integers. */
static const char *find_bits(const bq_packed_model *m, bq_packed *p) {
    int found = 0;
    for (int bits = 2; bits <= BQ_PACKED_BITS; bits++) {
        int fill = 32 / bits, before = found;
        bool gaps = 32 % bits && p->cols > fill; /* else both layouts are the same */
        if (!(m->bits >> bits & 1)) continue;
        for (int layout = 0; layout <= gaps; layout++) {
            if (words(p->cols, bits, layout ? fill : 0) != p->stored->shape[1]) continue;
            if (found > before && m->layout == 0) continue;
            if (found == before || m->layout < 0) found++;
            p->bits = bits, p->fill = layout ? fill : 0;
        }
    }
    if (!found) return "it has not the words of its shape";
    return found > 1 ? "its words fit more than one of the forms that config.json allows" : NULL;
}

/* Blocks of rows and columns that share a scale. */
static const char *find_tile(const bq_packed_model *m, bq_packed *p) {
    const bq_tensor *s = p->scale;
    int64_t rows = s->dims ? s->shape[0] : 1, cols = s->dims == 2 ? s->shape[1] : 1;
    int found = 0;
    if (s->dims > 2 || rows < 1 || cols < 1 || cols > BQ_SIZE_MAX) return "its scales do not fit it";
    p->groups = cols;
    for (int i = -2; i < m->tiles; i++) {
        int64_t tile[2] = {p->rows, p->cols}; /* one scale in all */
        if (i == -1) tile[0] = 1, tile[1] = p->cols / cols;
        if (i == -1 && p->cols % cols) continue;
        for (int k = 0; k < 2 && i >= 0; k++) tile[k] = m->tile[i][k] < tile[k] ? m->tile[i][k] : tile[k];
        if ((p->rows - 1) / tile[0] + 1 != rows || (p->cols - 1) / tile[1] + 1 != cols) continue;
        found += !found || tile[0] != p->tile[0] || tile[1] != p->tile[1];
        memcpy(p->tile, tile, sizeof tile);
    }
    if (!found) return "its scales do not fit it";
    if (p->form->group && (p->tile[0] > 1 || p->tile[1] != p->form->group))
        return "its groups have another size";
    return found > 1 ? "its scales fit more than one of the block structures in config.json" : NULL;
}

static const char *find_zeros(bq_packed *p) {
    const bq_tensor *z = p->zero, *s = p->scale;
    if (!z) return NULL;
    if (!p->form->integer) return "its codes are floats, which have no zero points";
    if (bq_packed_is(z, "I8", s->dims) && memcmp(z->shape, s->shape, (size_t)s->dims * sizeof *s->shape) == 0)
        return NULL;
    return bq_packed_is(z, "I32", 2) && p->tile[0] == 1 && z->shape[0] == words(p->rows, p->bits, p->fill) &&
                   z->shape[1] == p->groups
               ? NULL
               : "its zero points do not fit it";
}

/* The weight's shape. */
static const char *find_shape(const bq_weights *w, bq_packed *p, size_t cut) {
    const bq_packed_model *m = w->own;
    const bq_tensor *t = p->stored, *size = bq_stored_beside(&m->list, t, cut, ".weight_shape");
    int64_t said[2] = {t->shape[0], t->shape[1]};
    if (!p->form->bits) {
        if (!bq_packed_is(size, "I64", 1) || size->shape[0] != 2)
            return "its weight_shape is not there, or not two of I64";
        bq_weights_pread(w, size->file, size->offset, said, sizeof said);
        if (said[0] != t->shape[0]) return "its weight_shape is another";
    } else if (said[1] <= BQ_SIZE_MAX) {
        if (8 * said[1] % p->form->bits) return "it has no whole codes in a row";
        said[1] = 8 * said[1] / p->form->bits;
    }
    for (int i = 0; i < 2; i++)
        if (said[i] < 1 || said[i] > BQ_SIZE_MAX) return "its shape is out of range";
    p->rows = said[0], p->cols = said[1], p->bits = p->form->bits;
    return p->bits ? NULL : find_bits(m, p);
}

static const char *find_unit(const bq_weights *w, bq_packed *p, size_t cut) {
    const bq_packed_model *m = w->own;
    const bq_tensor *t = bq_stored_beside(&m->list, p->stored, cut, ".weight_global_scale");
    if (p->form->scale != E4M3) return NULL;
    if (!t || strcmp(t->dtype, "F32") != 0 || bq_tensor_count(t) != 1)
        return "its weight_global_scale is not there";
    p->outer = t;
    bq_weights_pread(w, t->file, t->offset, &p->unit, sizeof p->unit);
    return isfinite(p->unit) && p->unit > 0 ? NULL : "its weight_global_scale is not above 0, or not finite";
}

static const char *find(const bq_weights *w, bq_packed *p, size_t cut) {
    const bq_packed_model *m = w->own;
    const bq_tensor *t = p->stored;
    p->scale = bq_stored_beside(&m->list, t, cut, ".weight_scale");
    p->zero = bq_stored_beside(&m->list, t, cut, ".weight_zero_point");
    p->group = bq_stored_beside(&m->list, t, cut, ".weight_g_idx");
    if (t->dims != 2) return "it is not a matrix";
    if (!p->scale) return "its weight_scale is not there";
    p->form = form_of(m, t, p->scale);
    if (!p->form) return "no format of config.json has codes and scales of these types";
    const char *why = find_shape(w, p, cut);
    if (!why) why = find_tile(m, p);
    if (!why) why = find_zeros(p);
    if (!why) why = find_unit(w, p, cut);
    if (why || !p->group) return why;
    return bq_packed_is(p->group, "I32", 1) && p->group->shape[0] == p->cols && p->tile[0] == 1
               ? NULL
               : "its weight_g_idx does not fit it";
}

/* ---- reading ---- */

/* What each code stands for. */
static void fill_values(const bq_packed *p, float value[1 << BQ_PACKED_BITS]) {
    const bool bytes = strcmp(p->stored->dtype, "I8") == 0; /* these have a sign of their own */
    for (int u = 0; u < 1 << p->bits; u++) {
        int sign = u >> (p->bits - 1), rest = u & ((1 << (p->bits - 1)) - 1);
        /* E2M1 and E2M3: two bits of exponent with bias 1, subnormals below 1 */
        float e2 = p->bits == 4
                       ? (rest >> 1 ? bq_float((uint32_t)(rest + 252) << 22) : 0.5f * (float)rest)
                       : (rest >> 3 ? bq_float((uint32_t)(rest + 1008) << 20) : 0.125f * (float)rest);
        value[u] = p->form->integer ? (float)(bytes ? (int8_t)u : u - (1 << (p->bits - 1)))
                   : p->bits == 8   ? bq_from_e4m3((uint8_t)u)
                                    : (sign ? -e2 : e2);
    }
}

/* The first bit of field i. */
static int64_t bit_of(const bq_packed *p, int64_t i) {
    return p->fill ? i / p->fill * 32 + i % p->fill * p->bits : i * p->bits;
}

/* Zero points of rows [first, first + n), (n, groups) f32, which the caller frees; NULL: there are none. */
static float *read_zeros(const bq_weights *w, const bq_packed *p, int64_t first, int64_t n) {
    const bq_tensor *t = p->zero;
    if (!t) return NULL;
    const bool plain = strcmp(t->dtype, "I8") == 0;
    const int64_t groups = p->groups, r0 = first / p->tile[0], rows = (first + n - 1) / p->tile[0] + 1 - r0;
    const int64_t word0 = bit_of(p, first) / 32, last = (bit_of(p, first + n - 1) + p->bits - 1) / 32;
    const size_t from = (size_t)((plain ? r0 : 4 * word0) * groups);
    const size_t bytes = (size_t)((plain ? rows : 4 * (last + 1 - word0)) * groups);
    float *zero = bq_packed_room(n * groups, sizeof *zero);
    uint32_t *word = bq_packed_room((int64_t)bytes / 4, sizeof *word);
    bq_weights_pread(w, t->file, t->offset + from, word, bytes);
    for (int64_t r = 0; r < n; r++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t bit = bit_of(p, first + r) - 32 * word0;
            zero[r * groups + g] =
                (float)(plain ? ((const int8_t *)word)[((first + r) / p->tile[0] - r0) * groups + g]
                              : bq_packed_field(word + g, groups, bit, p->bits) - (1 << (p->bits - 1)));
        }
    free(word);
    return zero;
}

static void read_rows(const bq_weights *w, const bq_packed *p, int64_t first, int64_t n, float *to) {
    const bq_tensor *t = p->stored;
    const size_t width = (size_t)t->bytes / (size_t)p->rows;
    const int64_t r0 = first / p->tile[0], rows = (first + n - 1) / p->tile[0] + 1 - r0;
    float value[1 << BQ_PACKED_BITS], *scale = bq_packed_room(rows * p->groups, sizeof *scale);
    float *zero = read_zeros(w, p, first, n);
    int32_t *group = bq_packed_groups(w, p);
    uint32_t *word = bq_packed_room((int64_t)width / 4 + 1, sizeof *word);
    BQ_CHECK(group, "%s: g_idx has changed since it was checked", t->name);
    fill_values(p, value);
    bq_packed_floats(w, p->scale, r0 * p->groups, rows * p->groups, scale);
    for (int64_t i = 0; i < rows * p->groups && p->unit != 1; i++) scale[i] /= p->unit;
    for (int64_t r = 0; r < n; r++) {
        const float *s = scale + ((first + r) / p->tile[0] - r0) * p->groups;
        bq_weights_pread(w, t->file, t->offset + (size_t)(first + r) * width, word, width);
        for (int64_t c = 0; c < p->cols; c++) {
            float x = value[bq_packed_field(word, 1, bit_of(p, c), p->bits)];
            to[r * p->cols + c] = (zero ? x - zero[r * p->groups + group[c]] : x) * s[group[c]];
        }
    }
    free(scale);
    free(zero);
    free(group);
    free(word);
}

const bq_packed_kind bq_packed_compressed_tensors = {
    .method = "compressed-tensors",
    .parts = parts,
    .config = config,
    .codes = codes,
    .find = find,
    .read = read_rows,
};
