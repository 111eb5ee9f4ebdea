#include "io/in/gguf_tokenizer.h"

#include "base/die.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS   "tokenizer.ggml.tokens"
#define MERGES   "tokenizer.ggml.merges"
#define TEMPLATE "tokenizer.chat_template"

enum { ROOM = 65536 }; /* most bytes of a token or a merge, its closing 0 included */

enum { SPECIAL = 3, ADDED = 4, UNUSED = 5 }; /* of tokenizer.ggml.token_type */

typedef struct {
    bq_gguf_keys k;
    int64_t count;
    bq_text *token;
    int64_t *type;
    json_t *vocab;   /* from a token to its number */
    char word[ROOM]; /* of `string` */
    char model[64], pre[64];
} maker;

/* ---- the rules that cut a text ---- */

#define LEVEL(space, trim, regex)                                                                            \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":" space ",\"trim_offsets\":" trim ",\"use_regex\":" regex  \
    "}"
#define SPLIT(expression, trim)                                                                              \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" expression     \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}," LEVEL("false", trim, "false") "]}"
/* Words; numbers of `digits`; signs; ends of lines; blanks. */
#define WORDS(digits)                                                                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits                           \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static const struct {
    const char *pre;
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder; /* JSON, as in the models' own files */
    bool bos;           /* a text begins with BOS where the file does not say */
    bool ignore_merges; /* a word that is a token is taken as it is */
} rules[] = {
    {"gpt-2", "null", LEVEL("false", "true", "true"), LEVEL("true", "false", "true"),
     LEVEL("true", "true", "true"), false, false},
    {"smollm", "null",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}," LEVEL(
         "false", "true", "true") "]}",
     "null", LEVEL("true", "true", "true"), false, false},
    {"llama-bpe", "null", SPLIT(WORDS("\\\\p{N}{1,3}"), "true"), LEVEL("true", "false", "true"),
     LEVEL("true", "true", "true"), true, true},
    {"qwen2", "{\"type\":\"NFC\"}", SPLIT(WORDS("\\\\p{N}"), "false"), LEVEL("false", "false", "false"),
     LEVEL("false", "false", "false"), false, false},
};

static json_t *made(json_t *value) {
    BQ_CHECK(value, "no memory for a tokenizer");
    return value;
}

static void put(json_t *to, const char *key, json_t *value) {
    BQ_CHECK(json_object_set_new(to, key, made(value)) == 0, "no memory for a tokenizer");
}

static void append(json_t *to, json_t *value) {
    BQ_CHECK(json_array_append_new(to, made(value)) == 0, "no memory for a tokenizer");
}

static json_t *parsed(const char *text) { return made(json_loads(text, JSON_DECODE_ANY, NULL)); }

/* ---- tokens ---- */

/* The text as a string, until the next call; NULL, after a refusal, if it is too long or is not UTF-8. */
static const char *string(maker *m, const char *key, int64_t item, bq_text text) {
    json_t *value =
        text.bytes < ROOM && !memchr(text.at, 0, text.bytes) ? json_stringn(text.at, text.bytes) : NULL;
    if (!value)
        bq_gguf_refuse(&m->k, key, "item %lld (%zu bytes) is too long, has a zero byte or is not UTF-8",
                       (long long)item, text.bytes);
    json_decref(value);
    if (!value) return NULL;
    memcpy(m->word, text.at, text.bytes);
    m->word[text.bytes] = 0;
    return m->word;
}

/* Tokens without a use have a number and no meaning: they stay out. */
static void read_tokens(maker *m) {
    bq_gguf_need(&m->k, TOKENS);
    m->count = bq_gguf_length(&m->k, TOKENS);
    if (m->count < 1 || m->count > INT32_MAX)
        bq_gguf_refuse(&m->k, TOKENS, "is not a list of tokens: %lld items", (long long)m->count);
    if (m->k.status) return;
    m->token = calloc((size_t)m->count, sizeof *m->token);
    m->type = calloc((size_t)m->count, sizeof *m->type);
    BQ_CHECK(m->token && m->type, "no memory for %lld tokens", (long long)m->count);
    bq_gguf_texts(&m->k, TOKENS, m->count, m->token);
    bq_gguf_ints(&m->k, "tokenizer.ggml.token_type", 0, 6, m->count, m->type);
    for (int64_t i = 0; i < m->count && !m->k.status; i++) {
        const char *text = string(m, TOKENS, i, m->token[i]);
        if (text && json_object_get(m->vocab, text))
            bq_gguf_refuse(&m->k, TOKENS, "item %lld, '%.60s', is there twice", (long long)i, text);
        if (text && m->type[i] != UNUSED) put(m->vocab, text, json_integer(i));
    }
}

static json_t *added_token(bq_text text, bool special) {
    json_t *t = made(json_object());
    put(t, "content", json_stringn(text.at, text.bytes));
    put(t, "single_word", json_false());
    put(t, "lstrip", json_false());
    put(t, "rstrip", json_false());
    put(t, "normalized", json_false());
    put(t, "special", json_boolean(special));
    return t;
}

/* As the list of tokenizer.json, which has the id in front, or as the object of tokenizer_config.json. */
static json_t *added_tokens(const maker *m, bool list) {
    json_t *all = made(list ? json_array() : json_object());
    for (int64_t i = 0; i < m->count; i++) {
        if (m->type[i] != SPECIAL && m->type[i] != ADDED) continue;
        json_t *t = added_token(m->token[i], m->type[i] == SPECIAL);
        if (list) {
            json_t *with_id = made(json_object());
            put(with_id, "id", json_integer(i));
            BQ_CHECK(json_object_update(with_id, t) == 0, "no memory for a tokenizer");
            append(all, with_id);
            json_decref(t);
        } else {
            char id[24];
            snprintf(id, sizeof id, "%lld", (long long)i);
            put(all, id, t);
        }
    }
    return all;
}

/* A merge is "left right": both are tokens, and so is what they make. */
static json_t *read_merges(maker *m) {
    json_t *all = made(json_array());
    int64_t count = bq_gguf_length(&m->k, MERGES);
    bq_text *merge = calloc((size_t)(count > 0 ? count : 1), sizeof *merge);
    BQ_CHECK(merge, "no memory for %lld merges", (long long)count);
    bq_gguf_texts(&m->k, MERGES, count, merge);
    for (int64_t i = 0; i < count && !m->k.status; i++) {
        const char *left = string(m, MERGES, i, merge[i]);
        if (!left) break;
        char *blank = strchr(m->word, ' '), *right = blank ? blank + 1 : m->word;
        json_t *pair = made(json_array());
        if (blank) *blank = 0;
        bool fits = blank && json_object_get(m->vocab, left) && json_object_get(m->vocab, right);
        append(pair, json_string(left));
        append(pair, json_string(right));
        append(all, pair);
        if (blank) memmove(blank, right, strlen(right) + 1);
        if (!fits || !json_object_get(m->vocab, m->word))
            bq_gguf_refuse(&m->k, MERGES, "item %lld, '%.*s', is no pair of tokens that makes a token",
                           (long long)i, merge[i].bytes < 60 ? (int)merge[i].bytes : 60, merge[i].at);
    }
    free(merge);
    return all;
}

/* ---- the files ---- */

/* Puts BOS before a text, as tokenizers has it. */
static json_t *bos_template(const maker *m, int64_t id) {
    json_t *bos = made(json_stringn(m->token[id].at, m->token[id].bytes)), *special = made(json_object()),
           *all = made(json_object()), *list[2] = {made(json_array()), made(json_array())};
    put(special, json_string_value(bos),
        json_pack("{s:O,s:[I],s:[O]}", "id", bos, "ids", (json_int_t)id, "tokens", bos));
    for (int i = 0; i < 3; i++) { /* one text: BOS A; two texts: BOS A BOS B */
        json_t *to = list[i > 0];
        append(to, json_pack("{s:{s:O,s:i}}", "SpecialToken", "id", bos, "type_id", i / 2));
        append(to, json_pack("{s:{s:s,s:i}}", "Sequence", "id", i < 2 ? "A" : "B", "type_id", i / 2));
    }
    put(all, "type", json_string("TemplateProcessing"));
    put(all, "single", list[0]);
    put(all, "pair", list[1]);
    put(all, "special_tokens", special);
    json_decref(bos);
    return all;
}

static json_t *post_processor(const maker *m, const char *text, int64_t bos) {
    json_t *own = parsed(text);
    if (bos < 0) return own;
    json_t *all = made(json_array()), *t = made(json_object());
    if (json_is_object(own)) append(all, json_incref(own));
    json_decref(own);
    append(all, bos_template(m, bos));
    put(t, "type", json_string("Sequence"));
    put(t, "processors", all);
    return t;
}

/* bos: the token that begins every text, or -1. */
static json_t *make_tokenizer(maker *m, size_t rule, int64_t bos) {
    json_t *t = made(json_object()), *model = made(json_object());
    put(t, "version", json_string("1.0"));
    put(t, "truncation", json_null());
    put(t, "padding", json_null());
    put(t, "added_tokens", added_tokens(m, true));
    put(t, "normalizer", parsed(rules[rule].normalizer));
    put(t, "pre_tokenizer", parsed(rules[rule].pre_tokenizer));
    put(t, "post_processor", post_processor(m, rules[rule].post_processor, bos));
    put(t, "decoder", parsed(rules[rule].decoder));
    put(model, "type", json_string("BPE"));
    put(model, "dropout", json_null());
    put(model, "unk_token", json_null());
    put(model, "continuing_subword_prefix", json_null());
    put(model, "end_of_word_suffix", json_null());
    put(model, "fuse_unk", json_false());
    put(model, "byte_fallback", json_false());
    put(model, "ignore_merges", json_boolean(rules[rule].ignore_merges));
    put(model, "vocab", json_incref(m->vocab));
    put(model, "merges", read_merges(m));
    put(t, "model", model);
    return t;
}

static json_t *make_config(maker *m, bool add_bos) {
    static const char *const token[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                           {"eos_token", "tokenizer.ggml.eos_token_id"},
                                           {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                           {"pad_token", "tokenizer.ggml.padding_token_id"}};
    json_t *t = made(json_object());
    char arch[64] = "", key[128];
    int64_t length = -1;
    bq_text chat = {NULL, 0};
    bq_gguf_word(&m->k, "general.architecture", arch);
    snprintf(key, sizeof key, "%s.context_length", arch);
    bq_gguf_int(&m->k, key, 1, (int64_t)1 << 40, &length);
    put(t, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    put(t, "add_prefix_space", json_false());
    put(t, "add_bos_token", json_boolean(add_bos));
    put(t, "clean_up_tokenization_spaces", json_false());
    if (length > 0) put(t, "model_max_length", json_integer(length));
    put(t, "added_tokens_decoder", added_tokens(m, false));
    for (int i = 0; i < 4; i++) {
        int64_t id = -1;
        bq_gguf_int(&m->k, token[i][1], 0, m->count - 1, &id);
        if (id >= 0) put(t, token[i][0], json_stringn(m->token[id].at, m->token[id].bytes));
    }
    bq_gguf_text(&m->k, TEMPLATE, &chat);
    json_t *text = chat.at ? json_stringn(chat.at, chat.bytes) : NULL;
    if (chat.at && !text) bq_gguf_refuse(&m->k, TEMPLATE, "its %zu bytes are not UTF-8", chat.bytes);
    if (text) put(t, "chat_template", text);
    return t;
}

static void make(maker *m, json_t **tokenizer, json_t **config) {
    size_t rule = 0, n = sizeof rules / sizeof *rules;
    bq_gguf_word(&m->k, "tokenizer.ggml.model", m->model);
    bq_gguf_word(&m->k, "tokenizer.ggml.pre", m->pre);
    while (rule < n && strcmp(rules[rule].pre, m->pre) != 0) rule++;
    if (strcmp(m->model, "gpt2") != 0 || rule == n) return;
    read_tokens(m);
    if (m->k.status) return;
    bool add_bos = rules[rule].bos;
    int64_t bos = -1;
    bq_gguf_bool(&m->k, "tokenizer.ggml.add_bos_token", &add_bos);
    if (add_bos) bq_gguf_need(&m->k, "tokenizer.ggml.bos_token_id");
    bq_gguf_int(&m->k, "tokenizer.ggml.bos_token_id", 0, m->count - 1, &bos);
    if (m->k.status) return;
    *tokenizer = make_tokenizer(m, rule, add_bos ? bos : -1);
    *config = make_config(m, add_bos);
}

int bq_gguf_tokenizer(const bq_gguf *g, json_t **tokenizer, json_t **config) {
    maker *m = calloc(1, sizeof *m);
    BQ_CHECK(m, "no memory for a tokenizer");
    m->k = bq_gguf_keys_of(g), m->vocab = made(json_object());
    *tokenizer = *config = NULL;
    make(m, tokenizer, config);
    int rc = m->k.status;
    if (rc) {
        json_decref(*tokenizer);
        json_decref(*config);
        *tokenizer = *config = NULL;
    }
    json_decref(m->vocab);
    free(m->token);
    free(m->type);
    free(m);
    return rc;
}
