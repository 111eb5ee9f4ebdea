/* SPDX-License-Identifier: Apache-2.0 */
/* packed.h - linears that are stored as codes and scales: what the reader (packed.c) knows of one, and the
 * kinds of checkpoints (packed_rows.c, packed_columns.c).  Only these files include it.
 *
 * A weight (rows, cols) is (code - zero point) scale, in F32; a code stands for an integer or a small float.
 * Codes, packed zero points: fields of `bits` bits in 32-bit words, the first field in the lowest bits. */
#ifndef BQ_PACKED_H
#define BQ_PACKED_H

#include "io/in/stored.h"

/* What config.json calls a form of codes and scales, and the form's own numbers. */
typedef struct bq_packed_form bq_packed_form;

/* The place of a tensor. */
typedef struct {
    const bq_tensor *stored;                       /* its codes, or the tensor itself */
    const bq_tensor *scale, *zero, *group, *outer; /* all but scale may be NULL; group: that of each column */
    const bq_packed_form *form;                    /* of packed_rows.c */
    int bits;                                      /* of a code; 0: the tensor is stored as it is */
    int fill;                   /* fields of a word, whose other bits are not used; 0: all are */
    int64_t rows, cols, groups; /* groups: scales along a row */
    int64_t tile[2];            /* rows and columns that share a scale, without `group` */
    float unit;                 /* what scales are divided by */
} bq_packed;

enum { BQ_PACKED_BITS = 8, BQ_PACKED_TILES = 8 };

typedef struct bq_packed_kind bq_packed_kind;

typedef struct {
    bq_stored list;
    const bq_packed_kind *kind;
    unsigned bits;  /* bit b: some linears have codes of b bits */
    unsigned forms; /* bit i: some have form i */
    int less;       /* what stored zero points lack */
    int layout;     /* of words that do not hold whole fields: 1 as fill says, 0 without gaps, -1 unknown */
    int tiles;
    int64_t tile[BQ_PACKED_TILES][2]; /* that some linears have */
    bool rounded;                     /* engines round inputs of some linears */
} bq_packed_model;

struct bq_packed_kind {
    const char *method;       /* quant_method of config.json */
    const char *const *parts; /* names behind a module's, of what is no weight beside codes */
    /* Take what quantization_config says.  What is wrong with it, or NULL. */
    const char *(*config)(bq_packed_model *m, const json_t *q);
    /* Are these codes?  The length of what is behind the module's name; 0: no. */
    size_t (*codes)(const bq_tensor *t);
    /* Fill in p, of which `stored` is set.  cut: as codes() says.  What is wrong with it, or NULL. */
    const char *(*find)(const bq_weights *w, bq_packed *p, size_t cut);
    /* Rows [first, first + n) of the weight, as (n, cols) f32. */
    void (*read)(const bq_weights *w, const bq_packed *p, int64_t first, int64_t n, float *to);
};
extern const bq_packed_kind bq_packed_compressed_tensors, bq_packed_gptq, bq_packed_awq;

/* For the kinds.  A text of an object, "" where there is none; a type and number of dimensions. */
const char *bq_packed_text(const json_t *object, const char *key);
bool bq_packed_is(const bq_tensor *t, const char *dtype, int dims);
bool bq_packed_ends(const char *name, const char *with);
/* Add a number of bits, if it is one of those in `allowed` (bit b: b bits). */
bool bq_packed_add_bits(bq_packed_model *m, const json_t *bits, unsigned allowed);

/* n values of a tensor of floats, E4M3 or powers of two (U8, E8M0) from number `at` on. */
void bq_packed_floats(const bq_weights *w, const bq_tensor *t, int64_t at, int64_t n, float *to);
/* The group of each column, which the caller frees; NULL: one is not below p->groups. */
int32_t *bq_packed_groups(const bq_weights *w, const bq_packed *p);
/* Memory, or the end of the job. */
void *bq_packed_room(int64_t count, size_t size);

/* The field at a bit of words that are `stride` apart. */
static inline int bq_packed_field(const uint32_t *word, int64_t stride, int64_t bit, int bits) {
    int shift = (int)(bit % 32);
    uint32_t u = word[bit / 32 * stride] >> shift;
    if (shift + bits > 32) u |= word[(bit / 32 + 1) * stride] << (32 - shift);
    return (int)(u & ((1u << bits) - 1));
}

#endif
