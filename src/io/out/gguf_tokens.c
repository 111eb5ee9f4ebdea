/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer as GGUF's keys, from tokenizer.json: byte-level BPE, whose rule of words is one that the reader
 * of GGUF files has; or SentencePiece's BPE, which has scores instead of merges.  Another tokenizer is left
 * out, and the log says why: such a file is for readers that have the tokens already. */
#include "base/die.h"
#include "base/log.h"
#include "base/num.h"
#include "io/in/gguf_tokenizer.h"
#include "io/out/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE }; /* of tokenizer.ggml.token_type */

static const json_t *model_of(const bq_gguf_job *own) { return json_object_get(own->tokenizer, "model"); }

/* The token that tokenizer.json has first in a text of its own accord, NULL: none. */
static const char *first_token(const json_t *post) {
    const json_t *list = json_object_get(post, "processors");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *found = first_token(json_array_get(list, i));
        if (found) return found;
    }
    const json_t *begin = json_array_get(json_object_get(post, "single"), 0);
    return json_string_value(json_object_get(json_object_get(begin, "SpecialToken"), "id"));
}

/* The number of a token that `key` names in config.json, a list's first; -1: none. */
static int64_t id_of(const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    if (json_is_array(value)) value = json_array_get(value, 0);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

const char *bq_gguf_tokens_lack(const bq_gguf_job *own) {
    const json_t *model = model_of(own), *value, *added = json_object_get(own->tokenizer, "added_tokens");
    const char *type = json_string_value(json_object_get(model, "type")), *token;
    size_t i;
    if (!own->tokenizer) return NULL;
    bool prefix;
    if (!type || strcmp(type, "BPE") != 0 ||
        (!bq_gguf_tokenizer_pre(own->tokenizer) && !bq_gguf_tokenizer_pieces(own->tokenizer, &prefix)))
        return "it is not of a kind that blockq knows in GGUF";
    json_object_foreach((json_t *)(uintptr_t)json_object_get(model, "vocab"), token, value) {
        if (json_integer_value(value) < 0 || json_integer_value(value) >= own->model.vocab)
            return "it has tokens that the model has not";
    }
    json_array_foreach(added, i, value) {
        json_int_t id = json_integer_value(json_object_get(value, "id"));
        if (id < 0 || id >= own->model.vocab || !json_is_string(json_object_get(value, "content")))
            return "it has tokens that the model has not";
    }
    return NULL;
}

/* The token of what has no token; -1: none. */
static int64_t unknown_of(const bq_gguf_job *own) {
    const char *name = json_string_value(json_object_get(model_of(own), "unk_token"));
    const json_t *id = name ? json_object_get(json_object_get(model_of(own), "vocab"), name) : NULL;
    return id ? json_integer_value(id) : -1;
}

static bool is_byte(const char *token) {
    return strlen(token) == 6 && strncmp(token, "<0x", 3) == 0 && token[5] == '>';
}

/* pieces: SentencePiece's tokens, which have two types more. */
static void put_list_of_tokens(bq_gguf_put *p, const bq_gguf_job *own, bool pieces) {
    int64_t count = own->model.vocab;
    const char **text = calloc((size_t)count, sizeof *text), *token;
    uint8_t *type = calloc((size_t)count, 1);
    const json_t *value, *added = json_object_get(own->tokenizer, "added_tokens");
    char unused[32];
    size_t k;
    BQ_CHECK(text && type, "no memory for %lld tokens", (long long)count);
    json_object_foreach((json_t *)(uintptr_t)json_object_get(model_of(own), "vocab"), token, value) {
        text[json_integer_value(value)] = token;
        type[json_integer_value(value)] = pieces && is_byte(token) ? BYTE : NORMAL;
    }
    json_array_foreach(added, k, value) {
        json_int_t id = json_integer_value(json_object_get(value, "id"));
        text[id] = json_string_value(json_object_get(value, "content"));
        type[id] = json_is_true(json_object_get(value, "special")) ? CONTROL : USER;
    }
    int64_t unknown = pieces ? unknown_of(own) : -1;
    if (unknown >= 0) type[unknown] = UNKNOWN;
    bq_gguf_put_list(p, "tokenizer.ggml.tokens", BQ_GGUF_TEXT, count);
    for (int64_t i = 0; i < count; i++) {
        snprintf(unused, sizeof unused, "[PAD%lld]", (long long)i);
        bq_gguf_put_text(p, text[i] ? text[i] : unused);
    }
    bq_gguf_put_list(p, "tokenizer.ggml.token_type", BQ_GGUF_I32, count);
    for (int64_t i = 0; i < count; i++) bq_gguf_put_number(p, text[i] ? type[i] : UNUSED, 4);
    free(text);
    free(type);
}

/* A merge is "left right", or a list of both: with a blank between them, and the token that they make.  The
 * caller frees the texts. */
static void texts_of(const json_t *merge, char **both, char **made) {
    const char *text = json_string_value(merge), *blank = text ? strchr(text, ' ') : NULL;
    const char *left = text ? text : json_string_value(json_array_get(merge, 0));
    const char *right = blank ? blank + 1 : json_string_value(json_array_get(merge, 1));
    int n = blank ? (int)(blank - text) : left ? (int)strlen(left) : 0;
    int a = asprintf(both, "%.*s %s", n, left ? left : "", right ? right : "");
    int b = asprintf(made, "%.*s%s", n, left ? left : "", right ? right : "");
    BQ_CHECK(a >= 0 && b >= 0, "no memory for a merge");
}

/* The earlier a merge makes a token, the higher is its score.  What no merge makes needs none. */
static void put_scores(bq_gguf_put *p, const bq_gguf_job *own, const json_t *merges) {
    float *score = calloc((size_t)own->model.vocab, sizeof *score);
    const json_t *merge, *vocab = json_object_get(model_of(own), "vocab");
    size_t i;
    BQ_CHECK(score, "no memory for %lld tokens", (long long)own->model.vocab);
    json_array_foreach(merges, i, merge) {
        char *both, *made;
        texts_of(merge, &both, &made);
        const json_t *id = json_object_get(vocab, made);
        if (id && score[json_integer_value(id)] == 0) score[json_integer_value(id)] = -(float)(i + 1);
        free(both);
        free(made);
    }
    bq_gguf_put_list(p, "tokenizer.ggml.scores", BQ_GGUF_F32, own->model.vocab);
    for (int64_t k = 0; k < own->model.vocab; k++) bq_gguf_put_number(p, bq_bits(score[k]), 4);
    free(score);
}

static void put_merges(bq_gguf_put *p, const json_t *merges) {
    const json_t *merge;
    size_t i;
    bq_gguf_put_list(p, "tokenizer.ggml.merges", BQ_GGUF_TEXT, (int64_t)json_array_size(merges));
    json_array_foreach(merges, i, merge) {
        char *both, *made;
        texts_of(merge, &both, &made);
        bq_gguf_put_text(p, both);
        free(made);
        free(both);
    }
}

void bq_gguf_put_tokens(bq_gguf_put *p, const bq_gguf_job *own, const json_t *config) {
    static const char *const ids[][2] = {{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                         {"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                         {"pad_token_id", "tokenizer.ggml.padding_token_id"}};
    for (int i = 0; i < 3; i++) {
        int64_t id = id_of(config, ids[i][0]);
        if (id >= 0 && id < own->model.vocab) bq_gguf_put_int(p, ids[i][1], id);
    }
    const char *why = own->tokenizer ? bq_gguf_tokens_lack(own) : "there is none";
    if (why) {
        bq_log_all(BQ_WARN, "gguf: the tokenizer is left out: %s; llama.cpp needs one", why);
        return;
    }
    const char *chat = json_string_value(json_object_get(own->config, "chat_template"));
    bool prefix, pieces = bq_gguf_tokenizer_pieces(own->tokenizer, &prefix);
    const json_t *merges = json_object_get(model_of(own), "merges");
    bq_gguf_put_word(p, "tokenizer.ggml.model", pieces ? "llama" : "gpt2");
    bq_gguf_put_word(p, "tokenizer.ggml.pre", pieces ? "default" : bq_gguf_tokenizer_pre(own->tokenizer));
    put_list_of_tokens(p, own, pieces);
    if (!pieces) put_merges(p, merges);
    if (pieces) put_scores(p, own, merges), bq_gguf_put_bool(p, "tokenizer.ggml.add_space_prefix", prefix);
    if (pieces && unknown_of(own) >= 0)
        bq_gguf_put_int(p, "tokenizer.ggml.unknown_token_id", unknown_of(own));
    bq_gguf_put_bool(p, "tokenizer.ggml.add_bos_token",
                     first_token(json_object_get(own->tokenizer, "post_processor")) != NULL);
    if (chat) bq_gguf_put_word(p, "tokenizer.chat_template", chat);
}
