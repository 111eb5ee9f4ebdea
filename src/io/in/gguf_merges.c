/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/gguf_merges.h"

#include "base/die.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#define SCORES "tokenizer.ggml.scores"

enum { NORMAL = 1 }; /* of tokenizer.ggml.token_type */

typedef struct {
    const int64_t *type;
    const json_t *vocab;
    bq_gguf_merge *at;
    int64_t count, room;
} merges;

static int32_t normal(const merges *m, const char *text) {
    const json_t *id = json_object_get(m->vocab, text);
    int32_t i = id ? (int32_t)json_integer_value(id) : -1;
    return i >= 0 && m->type[i] == NORMAL ? i : -1;
}

static void add(merges *m, bq_gguf_merge merge) {
    if (m->count == m->room) {
        m->room = m->room ? 2 * m->room : 1024;
        m->at = realloc(m->at, (size_t)m->room * sizeof *m->at);
        BQ_CHECK(m->at, "no memory for %lld merges", (long long)m->room);
    }
    m->at[m->count++] = merge;
}

/* All pairs that make this token: UTF-8 is cut before each character but the first. */
static void add_pairs(merges *m, int32_t token, bq_text text, double score) {
    char word[BQ_GGUF_MERGE_BYTES + 1];
    memcpy(word, text.at, text.bytes);
    word[text.bytes] = 0;
    for (size_t i = 1; i < text.bytes; i++) {
        char first = word[i];
        if ((first & 0xC0) == 0x80) continue; /* inside a character */
        int32_t right = normal(m, word + i);
        word[i] = 0;
        int32_t left = right < 0 ? -1 : normal(m, word);
        word[i] = first;
        if (left >= 0) add(m, (bq_gguf_merge){score, token, left, right});
    }
}

static int before(const void *a, const void *b) {
    const bq_gguf_merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->token != y->token) return x->token < y->token ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

bq_gguf_merge *bq_gguf_merges(bq_gguf_keys *k, int64_t tokens, const bq_text *token, const int64_t *type,
                              const json_t *vocab, int64_t *count) {
    merges m = {.type = type, .vocab = vocab};
    double *score = malloc((size_t)tokens * sizeof *score);
    BQ_CHECK(score, "no memory for %lld scores", (long long)tokens);
    bq_gguf_reals(k, SCORES, -FLT_MAX, FLT_MAX, tokens, score);
    for (int64_t i = 0; i < tokens && !k->status; i++) {
        if (type[i] != NORMAL) continue;
        if (token[i].bytes > BQ_GGUF_MERGE_BYTES)
            bq_gguf_refuse(k, "tokenizer.ggml.tokens", "item %lld has %zu bytes, more than %d", (long long)i,
                           token[i].bytes, BQ_GGUF_MERGE_BYTES);
        else
            add_pairs(&m, (int32_t)i, token[i], score[i]);
        if (m.count > BQ_GGUF_MERGES)
            bq_gguf_refuse(k, SCORES, "the tokens have more than %d merges", BQ_GGUF_MERGES);
    }
    free(score);
    if (m.count) qsort(m.at, (size_t)m.count, sizeof *m.at, before);
    *count = m.count;
    return m.at;
}
