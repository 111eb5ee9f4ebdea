/* SPDX-License-Identifier: Apache-2.0 */
/* Codes of a weight (N, K) that are stored as its transpose, with G groups of columns:
 *
 * GPTQ, version 1 or 2:
 *   X.qweight (K bits / 32, N) I32            the codes of a column of this matrix as one stream of bits
 *   X.qzeros (G, N bits / 32) I32             zero points, of version 1 less 1; X.scales (G, N)
 *   X.g_idx (K) I32                           the group of each column; without it K / G columns each
 * AWQ, version gemm, 4 bits:
 *   X.qweight (K, N / 8) I32                  word c of a row has rows 8 c + 0, 2, 4, 6, 1, 3, 5, 7
 *   X.qzeros (G, N / 8) I32                   the same; X.scales (G, N) */
#include "io/in/packed.h"

#include "base/die.h"
#include "io/in/config.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CODES ".qweight"

static const char *const parts[] = {".scales", ".qzeros", ".g_idx", NULL};

/* ---- opening ---- */

/* The number of bits may differ for modules that `dynamic` names. */
static const char *config_gptq(bq_packed_model *m, const json_t *q) {
    const unsigned widths = 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8;
    const char *name, *format = bq_packed_text(q, "checkpoint_format");
    json_t *own;
    if (!*format) format = bq_packed_text(q, "format");
    m->less = strcmp(format, "gptq_v2") != 0;
    if (m->less && *format && strcmp(format, "gptq") != 0)
        return "checkpoint_format: gptq and gptq_v2 are read";
    if (!bq_packed_add_bits(m, json_object_get(q, "bits"), widths)) return "bits: 2, 3, 4 and 8 are read";
    json_object_foreach(json_object_get(q, "dynamic"), name, own) {
        const json_t *bits = json_object_get(own, "bits");
        if (bits && !bq_packed_add_bits(m, bits, widths)) return "dynamic: 2, 3, 4 and 8 bits are read";
    }
    return NULL;
}

static const char *config_awq(bq_packed_model *m, const json_t *q) {
    if (strcasecmp(bq_packed_text(q, "version"), "gemm") != 0) return "version: gemm is read";
    return bq_packed_add_bits(m, json_object_get(q, "bits"), 1u << 4) ? NULL : "bits: 4 is read";
}

static size_t codes(const bq_tensor *t) { return bq_packed_ends(t->name, CODES) ? strlen(CODES) : 0; }

static const char *find_parts(const bq_packed_model *m, bq_packed *p, size_t cut) {
    const bq_tensor *t = p->stored;
    bq_type type;
    p->scale = bq_stored_beside(&m->list, t, cut, ".scales");
    p->zero = bq_stored_beside(&m->list, t, cut, ".qzeros");
    if (!bq_packed_is(t, "I32", 2)) return "it is not a matrix of I32";
    for (int i = 0; i < 2; i++)
        if (t->shape[i] < 1 || t->shape[i] > BQ_SIZE_MAX) return "its shape is out of range";
    if (!p->scale || p->scale->dims != 2 || !bq_dtype_float(p->scale->dtype, &type))
        return "its scales are not there, or not a matrix of floats";
    p->groups = p->scale->shape[0], p->rows = p->scale->shape[1];
    if (p->groups < 1 || p->groups > BQ_SIZE_MAX) return "its scales do not fit it";
    return bq_packed_is(p->zero, "I32", 2) && p->zero->shape[0] == p->groups
               ? NULL
               : "its qzeros are not there, or do not fit it";
}

static int64_t words(int64_t n, int bits) { return (n * bits + 31) / 32; }

/* The bits of a code: both codes and zero points have the words of so many. */
static const char *find_gptq(const bq_weights *w, bq_packed *p, size_t cut) {
    const bq_packed_model *m = w->own;
    const bq_tensor *t = p->stored;
    const char *why = find_parts(m, p, cut);
    if (why) return why;
    p->group = bq_stored_beside(&m->list, t, cut, ".g_idx");
    if (p->rows != t->shape[1]) return "its scales do not fit it";
    if (p->group && !bq_packed_is(p->group, "I32", 1)) return "its g_idx does not fit it";
    int found = 0;
    for (int bits = 2; bits <= BQ_PACKED_BITS; bits++) {
        if (!(m->bits >> bits & 1) || 32 * t->shape[0] % bits) continue;
        if (p->zero->shape[1] != words(p->rows, bits)) continue;
        if (p->group && p->group->shape[0] != 32 * t->shape[0] / bits) continue;
        p->bits = bits, found++;
    }
    if (!found) return p->group ? "its g_idx or its qzeros do not fit it" : "its qzeros do not fit it";
    if (found > 1) return "its words fit more than one of the numbers of bits in config.json";
    p->cols = 32 * t->shape[0] / p->bits;
    if (p->cols > BQ_SIZE_MAX) return "its shape is out of range";
    if (!p->group && p->cols % p->groups) return "its scales do not fit it";
    p->tile[1] = p->cols / p->groups;
    return NULL;
}

static const char *find_awq(const bq_weights *w, bq_packed *p, size_t cut) {
    const bq_tensor *t = p->stored;
    const char *why = find_parts(w->own, p, cut);
    if (why) return why;
    p->cols = t->shape[0], p->bits = 4;
    if (p->rows != 8 * t->shape[1] || p->cols % p->groups) return "its scales do not fit it";
    if (p->zero->shape[1] != t->shape[1]) return "its qzeros do not fit it";
    p->tile[1] = p->cols / p->groups;
    return NULL;
}

/* ---- reading ---- */

/* Scales and zero points of n rows: row r of group g at [g n + r].  Codes of AWQ have no g_idx. */
typedef struct {
    int64_t first, n;
    float *scale, *zero;
    int32_t *group;
    int64_t word0, words; /* the words of a stored row that have these rows, where it is packed along them */
} slice;

static bool is_awq(const bq_weights *w) {
    const bq_packed_model *m = w->own;
    return m->kind == &bq_packed_awq;
}

/* Where row i is in a stored row that is packed along the rows: the bit. */
static int64_t bit_of(bool awq, int bits, int64_t i) {
    static const int place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return awq ? i / 8 * 32 + 4 * place[i % 8] : i * bits;
}

static slice open_slice(const bq_weights *w, const bq_packed *p, int64_t first, int64_t n) {
    const bq_packed_model *m = w->own;
    bool awq = is_awq(w);
    slice s = {.first = first, .n = n, .word0 = first * p->bits / 32, .group = bq_packed_groups(w, p)};
    BQ_CHECK(s.group, "%s: g_idx has changed since it was checked", p->stored->name);
    s.words = ((first + n) * p->bits - 1) / 32 + 1 - s.word0;
    s.scale = bq_packed_room(p->groups * n, sizeof *s.scale);
    s.zero = bq_packed_room(p->groups * n, sizeof *s.zero);
    uint32_t *word = bq_packed_room(s.words, sizeof *word);
    for (int64_t g = 0; g < p->groups; g++) {
        bq_packed_floats(w, p->scale, g * p->rows + first, n, s.scale + g * n);
        bq_weights_pread(w, p->zero->file,
                         p->zero->offset + (size_t)(g * p->zero->shape[1] + s.word0) * sizeof *word, word,
                         (size_t)s.words * sizeof *word);
        /* a zero point of 0 wraps around where version 1 takes 1 from it */
        for (int64_t r = 0; r < n; r++) {
            int64_t bit = bit_of(awq, p->bits, first + r) - 32 * s.word0;
            int field = bq_packed_field(word, 1, bit, p->bits) + m->less;
            s.zero[g * n + r] = (float)(field & ((1 << p->bits) - 1));
        }
    }
    free(word);
    return s;
}

static void close_slice(slice *s) {
    free(s->scale);
    free(s->zero);
    free(s->group);
}

static float value(const slice *s, int64_t r, int64_t c, int code) {
    int64_t at = s->group[c] * s->n + r;
    return ((float)code - s->zero[at]) * s->scale[at];
}

/* 32 columns are `bits` words of each row. */
static void read_gptq(const bq_weights *w, const bq_packed *p, int64_t first, int64_t n, float *to) {
    slice s = open_slice(w, p, first, n);
    const bq_tensor *t = p->stored;
    uint32_t *word = bq_packed_room(p->bits * n, sizeof *word);
    for (int64_t at = 0, m; at < t->shape[0]; at += m) {
        m = t->shape[0] - at < p->bits ? t->shape[0] - at : p->bits;
        for (int64_t i = 0; i < m; i++)
            bq_weights_pread(w, t->file, t->offset + (size_t)((at + i) * p->rows + first) * sizeof *word,
                             word + i * n, (size_t)n * sizeof *word);
        int64_t c0 = 32 * at / p->bits;
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = c0; c < c0 + 32 * m / p->bits; c++)
                to[r * p->cols + c] =
                    value(&s, r, c, bq_packed_field(word + r, n, (c - c0) * p->bits, p->bits));
    }
    free(word);
    close_slice(&s);
}

static void read_awq(const bq_weights *w, const bq_packed *p, int64_t first, int64_t n, float *to) {
    slice s = open_slice(w, p, first, n);
    const bq_tensor *t = p->stored;
    uint32_t *word = bq_packed_room(s.words, sizeof *word);
    for (int64_t c = 0; c < p->cols; c++) {
        bq_weights_pread(w, t->file, t->offset + (size_t)(c * t->shape[1] + s.word0) * sizeof *word, word,
                         (size_t)s.words * sizeof *word);
        for (int64_t r = 0; r < n; r++) {
            int64_t bit = bit_of(true, p->bits, first + r) - 32 * s.word0;
            to[r * p->cols + c] = value(&s, r, c, bq_packed_field(word, 1, bit, p->bits));
        }
    }
    free(word);
    close_slice(&s);
}

const bq_packed_kind bq_packed_gptq = {
    .method = "gptq",
    .parts = parts,
    .config = config_gptq,
    .codes = codes,
    .find = find_gptq,
    .read = read_gptq,
};

const bq_packed_kind bq_packed_awq = {
    .method = "awq",
    .parts = parts,
    .config = config_awq,
    .codes = codes,
    .find = find_awq,
    .read = read_awq,
};
