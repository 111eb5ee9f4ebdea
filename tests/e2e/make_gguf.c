/* SPDX-License-Identifier: Apache-2.0 */
/* make_gguf MODEL_DIR OUT.gguf f32|mixed [TOKENIZER]: a Llama as a GGUF file, as llama.cpp's converter
 * writes it.  f32: the same values.  mixed: matrices are of F16, BF16 and Q8_0 in turn.  TOKENIZER: smollm,
 * with a token for each id; any other name: a tokenizer that is not known. */
#include "base/die.h"
#include "base/num.h"
#include "io/in/config.h"
#include "io/in/gguf_blocks.h"
#include "io/in/gguf_names.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32 };
static FILE *to;
static size_t at;

static void put(const void *data, size_t bytes) {
    BQ_CHECK(fwrite(data, 1, bytes, to) == bytes, "disk full");
    at += bytes;
}

static void put_u32(uint32_t x) { put(&x, 4); }
static void put_u64(uint64_t x) { put(&x, 8); }
static void put_text(const char *text) { put_u64(strlen(text)), put(text, strlen(text)); }

static int keys;
static void key(const char *name, uint32_t type) { put_text(name), put_u32(type), keys++; }
static void key_int(const char *name, int64_t x) { key(name, BQ_GGUF_U32), put_u32((uint32_t)x); }
static void key_text(const char *name, const char *x) { key(name, BQ_GGUF_TEXT), put_text(x); }
static void key_real(const char *name, double x) {
    float f = (float)x;
    key(name, BQ_GGUF_F32), put(&f, 4);
}

static void put_tokenizer(const char *pre, int64_t vocab) {
    char token[32];
    key_text("tokenizer.ggml.model", "gpt2");
    key_text("tokenizer.ggml.pre", pre);
    key_int("tokenizer.ggml.eos_token_id", 0);
    key("tokenizer.ggml.tokens", BQ_GGUF_LIST), put_u32(BQ_GGUF_TEXT), put_u64((uint64_t)vocab);
    for (int64_t i = 0; i < vocab; i++) snprintf(token, sizeof token, "t%lld", (long long)i), put_text(token);
    key("tokenizer.ggml.token_type", BQ_GGUF_LIST), put_u32(BQ_GGUF_I32), put_u64((uint64_t)vocab);
    for (int64_t i = 0; i < vocab; i++) put_u32(i ? 1 : 3);
    key("tokenizer.ggml.merges", BQ_GGUF_LIST), put_u32(BQ_GGUF_TEXT), put_u64(0);
}

static void put_keys(const bq_model *m, const char *tokenizer) {
    key_text("general.architecture", "llama");
    key_int("llama.block_count", m->blocks);
    key_int("llama.context_length", m->max_position);
    key_int("llama.embedding_length", m->hidden);
    key_int("llama.feed_forward_length", m->inter);
    key_int("llama.attention.head_count", m->heads);
    key_int("llama.attention.head_count_kv", m->kv_heads);
    key_int("llama.attention.key_length", m->head_dim);
    key_int("llama.attention.value_length", m->head_dim);
    key_real("llama.attention.layer_norm_rms_epsilon", m->eps);
    key_real("llama.rope.freq_base", m->rope.theta);
    if (tokenizer) put_tokenizer(tokenizer, m->vocab);
}

/* What becomes of tensor number i. */
static const char *type_of(const bq_tensor *t, int i, bool mixed) {
    static const char *const types[] = {"F16", "BF16", "Q8_0"};
    return t->dims == 2 && mixed ? types[i % 3] : "F32";
}

static void put_row(const float *x, int64_t n, const char *type) {
    for (int64_t i = 0; i < n && type[0] != 'Q'; i++) {
        uint16_t half = type[0] == 'B' ? bq_to_bf16(x[i]) : bq_to_f16(x[i]);
        put(strcmp(type, "F32") ? (const void *)&half : &x[i], strcmp(type, "F32") ? 2 : 4);
    }
    for (int64_t b = 0; b < n && type[0] == 'Q'; b += 32) {
        float most = 0;
        for (int64_t i = b; i < b + 32; i++) most = fmaxf(most, fabsf(x[i]));
        uint16_t scale = bq_to_f16(most / 127);
        put(&scale, 2);
        for (int64_t i = b; i < b + 32; i++) {
            int8_t q = (int8_t)(most > 0 ? rintf(x[i] / (most / 127)) : 0);
            put(&q, 1);
        }
    }
}

/* Row r of the file has the checkpoint's row whose place is r. */
static void put_tensor(const bq_weights *w, const bq_tensor *t, const bq_gguf_name *name, int64_t head_dim,
                       const char *type) {
    int64_t rows = t->dims == 2 ? t->shape[0] : 1, cols = t->shape[t->dims - 1];
    float *x = malloc((size_t)cols * sizeof *x);
    BQ_CHECK(x, "no memory");
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = r;
        while (name->change == BQ_GGUF_PAIRED && bq_gguf_paired(from, head_dim) != r)
            from = from + 1 < rows ? from + 1 : 0;
        bq_weights_read(w, t, from, 1, bq_mat_host(x, 1, cols, BQ_F32));
        put_row(x, cols, type);
    }
    while (at % ALIGNMENT) put("", 1);
    free(x);
}

static void put_info(const bq_tensor *t, const bq_gguf_name *name, const char *type, uint64_t *offset) {
    const bq_gguf_type *row = bq_gguf_type_named(type);
    put_text(name->name);
    put_u32((uint32_t)t->dims);
    for (int d = t->dims; d-- > 0;) put_u64((uint64_t)t->shape[d]);
    put_u32(row->number);
    put_u64(*offset);
    *offset += (uint64_t)(bq_tensor_count(t) / row->elements * row->bytes);
    *offset = (*offset + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

int main(int argc, char **argv) {
    bq_weights *w;
    bq_model m;
    bq_gguf_name name;
    BQ_CHECK(argc == 4 || argc == 5, "three arguments are needed: a model directory, a file, f32 or mixed");
    bool mixed = strcmp(argv[3], "mixed") == 0;
    if (bq_weights_open(&w, argv[1]) || bq_config_of(w, &m)) return BQ_DATA;
    to = fopen(argv[2], "wb");
    BQ_CHECK(to, "%s cannot be made", argv[2]);
    int arch = bq_gguf_arch_find("llama"), count = bq_weights_count(w);
    put("GGUF", 4), put_u32(3), put_u64((uint64_t)count), put_u64(0);
    put_keys(&m, argc == 5 ? argv[4] : NULL);
    uint64_t offset = 0, all = (uint64_t)keys;
    for (int i = 0; i < count; i++) {
        const bq_tensor *t = bq_weights_at(w, i);
        BQ_CHECK(bq_gguf_name_of(arch, t->name, &name), "'%s' has no name in GGUF", t->name);
        put_info(t, &name, type_of(t, i, mixed), &offset);
    }
    while (at % ALIGNMENT) put("", 1);
    for (int i = 0; i < count; i++) {
        const bq_tensor *t = bq_weights_at(w, i);
        bq_gguf_name_of(arch, t->name, &name);
        put_tensor(w, t, &name, m.head_dim, type_of(t, i, mixed));
    }
    BQ_CHECK(fseek(to, 16, SEEK_SET) == 0 && fwrite(&all, 8, 1, to) == 1 && fclose(to) == 0, "disk full");
    bq_weights_close(w);
    return 0;
}
