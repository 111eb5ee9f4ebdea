/* SPDX-License-Identifier: Apache-2.0 */
/* gguf.h - what the files of the format gguf share (gguf.c).  Local to io/out. */
#ifndef BQ_OUT_GGUF_H
#define BQ_OUT_GGUF_H

#include "base/model.h"
#include "io/in/gguf_blocks.h"
#include "io/in/gguf_header.h"
#include "io/out/format.h"

/* What the keys of an output say: numbers of types (gguf_blocks.h), BQ_GGUF_SOURCE: none. */
typedef struct {
    int dense, embedding, output;
    bool imatrix;
} bq_gguf_options;

#define BQ_GGUF_SOURCE (-1)

/* Squares of errors and of values. */
typedef struct {
    double error, power;
} bq_gguf_loss;

/* Of a job. */
typedef struct {
    bq_model model;
    int arch;                   /* bq_gguf_arch_at */
    json_t *tokenizer, *config; /* tokenizer.json and tokenizer_config.json, NULL: there is none */
    int64_t blocks, rounded;    /* with a minimum; whose minimum was rounded */
    float worst;                /* the largest error of a minimum, in steps */
    int64_t again;              /* rows whose values were quantized again */
    bq_gguf_loss loss;          /* of these */
} bq_gguf_job;

/* What a tensor that the model does not have is made of: rotary factors. */
typedef enum { BQ_GGUF_TENSOR, BQ_GGUF_FREQS, BQ_GGUF_LONG, BQ_GGUF_SHORT } bq_gguf_part;

/* In gguf_head.c: the header of a file.  ctx: a bq_export_file. */
char *bq_gguf_head(const void *ctx, const bq_tensor *at, int count, size_t *bytes);

#define BQ_GGUF_ALIGN 32

/* Keys, in the order in which they are put.  close: the bytes up to the tensors' data, which the caller
 * frees. */
typedef struct {
    FILE *to;
    char *text;
    size_t bytes;
    uint64_t keys;
} bq_gguf_put;

void bq_gguf_put_open(bq_gguf_put *p);
char *bq_gguf_put_close(bq_gguf_put *p, const bq_tensor *at, int count, size_t *bytes);

void bq_gguf_put_key(bq_gguf_put *p, const char *key, uint32_t type); /* its value follows */
void bq_gguf_put_list(bq_gguf_put *p, const char *key, uint32_t type, int64_t count);
void bq_gguf_put_number(bq_gguf_put *p, uint64_t value, size_t bytes); /* a value or an item */
void bq_gguf_put_text(bq_gguf_put *p, const char *text);
void bq_gguf_put_int(bq_gguf_put *p, const char *key, int64_t value); /* u32 */
void bq_gguf_put_real(bq_gguf_put *p, const char *key, double value); /* f32 */
void bq_gguf_put_word(bq_gguf_put *p, const char *key, const char *text);
void bq_gguf_put_bool(bq_gguf_put *p, const char *key, bool value);

/* In gguf_tokens.c.  Why the tokenizer cannot be written, NULL: it can, or there is none.  Its keys. */
const char *bq_gguf_tokens_lack(const bq_gguf_job *own);
void bq_gguf_put_tokens(bq_gguf_put *p, const bq_gguf_job *own, const json_t *config);

/* In gguf_encode.c.  Quantize `count` values, whole blocks, by the rule of F32, F16, BF16, Q4_0, Q4_1, Q5_0,
 * Q5_1, Q8_0 or Q6_K, and add to the loss.  Put an F16, returns what is behind it.  Put unsigned codes: in
 * byte j the low nibble is of code j, the high one of code j + 16; fifth: the fifth bits stand before. */
void bq_gguf_encode(const bq_gguf_type *type, const float *x, int64_t count, uint8_t *to, bq_gguf_loss *loss);
uint8_t *bq_gguf_put_half(uint8_t *to, uint16_t x);
void bq_gguf_put_nibbles(uint8_t *to, const uint8_t field[32], bool fifth);

/* In gguf_types.c.  The keys.  The type of an item whose tensor has this name, NULL after one message; asked,
 * unless NULL: the type that a key gives it, NULL: none does. */
extern const bq_key bq_gguf_out_keys[];
const bq_gguf_type *bq_gguf_type_of_item(const bq_export_job *job, const bq_export_item *item,
                                         const char *name, const bq_gguf_type **asked);

/* Most values of a row, or of the rows of a head where these are reordered: half of the buffer is for values,
 * the rest for blocks. */
#define BQ_GGUF_ROOM ((int64_t)(BQ_EXPORT_BUFFER / 8))

/* In gguf_write.c.  bq_format.write.  The item of another expert of a stacked tensor; NULL: there is none. */
void bq_gguf_write(bq_export_job *job, const bq_export_out *out, const bq_qtensor *q, bq_writer *w);
const bq_export_item *bq_gguf_expert(const bq_export_job *job, const char *stacked, int64_t e);

/* In imatrix.c.  bq_format.finish: write imatrix.gguf, if the output asks for it. */
void bq_gguf_imatrix(bq_export_job *job);

/* In gguf_pack.c.  The type that a result gets, NULL: it is refused; why, for a message. */
const bq_gguf_type *bq_gguf_type_for(const bq_qtensor *q, const char **why);
/* Row r as blocks of that type. */
void bq_gguf_pack(bq_gguf_job *own, const bq_qtensor *q, const bq_gguf_type *type, int64_t r, uint8_t *to);

#endif
