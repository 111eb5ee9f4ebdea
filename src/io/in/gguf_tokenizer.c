/* SPDX-License-Identifier: Apache-2.0 */
#include "io/in/gguf_tokenizer.h"

#include "base/die.h"
#include "io/in/gguf_merges.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS   "tokenizer.ggml.tokens"
#define MERGES   "tokenizer.ggml.merges"
#define UNK      "tokenizer.ggml.unknown_token_id"
#define TEMPLATE "tokenizer.chat_template"

enum { ROOM = 65536 }; /* most bytes of a token or a merge, its closing 0 included */

enum { UNKNOWN = 2, SPECIAL = 3, ADDED = 4, UNUSED = 5 }; /* of tokenizer.ggml.token_type */

typedef struct {
    bq_gguf_keys k;
    int64_t count;
    bq_text *token;
    int64_t *type;
    json_t *vocab;   /* from a token to its number */
    char word[ROOM]; /* of `string` */
    char arch[64];
    const struct rule *rule;
    int64_t unk; /* SentencePiece: the token of what has no token; -1 of other kinds */
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

/* SentencePiece writes a blank as U+2581. */
#define BLANK "\xE2\x96\x81"
#define REPLACE(from, to)                                                                                    \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" from "\"},\"content\":\"" to "\"}"
#define SEQUENCE(list, what) "{\"type\":\"Sequence\",\"" list "\":[" what "]}"
#define PREFIX               "{\"type\":\"Prepend\",\"prepend\":\"" BLANK "\"},"
#define PIECES(strip)                                                                                        \
    SEQUENCE("decoders", REPLACE(BLANK, " ") ",{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}" strip)
#define STRIP ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"

static const struct rule {
    const char *pre;
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder; /* JSON, as in the models' own files */
    bool bos;           /* a text begins with BOS where the file does not say */
    bool ignore_merges; /* a word that is a token is taken as it is */
    bool pieces;        /* SentencePiece: the tokens have scores, and bytes stand for what has no token */
} rules[] = {
    {"gpt-2", "null", LEVEL("false", "true", "true"), LEVEL("true", "false", "true"),
     LEVEL("true", "true", "true"), false, false, false},
    {"smollm", "null",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}," LEVEL(
         "false", "true", "true") "]}",
     "null", LEVEL("true", "true", "true"), false, false, false},
    {"llama-bpe", "null", SPLIT(WORDS("\\\\p{N}{1,3}"), "true"), LEVEL("true", "false", "true"),
     LEVEL("true", "true", "true"), true, true, false},
    {"qwen2", "{\"type\":\"NFC\"}", SPLIT(WORDS("\\\\p{N}"), "false"), LEVEL("false", "false", "false"),
     LEVEL("false", "false", "false"), false, false, false},
};
/* Without and with a blank before each text. */
static const struct rule piece_rules[] = {
    {"", REPLACE(" ", BLANK), "null", "null", PIECES(""), true, false, true},
    {"", SEQUENCE("normalizers", PREFIX REPLACE(" ", BLANK)), "null", "null", PIECES(STRIP), true, false,
     true},
};

/* NULL: another kind of tokenizer. */
static const struct rule *find_rule(maker *m) {
    char model[64] = "", pre[64] = "";
    bool prefix = true;
    bq_gguf_word(&m->k, "tokenizer.ggml.model", model);
    if (strcmp(model, "llama") == 0) {
        bq_gguf_bool(&m->k, "tokenizer.ggml.add_space_prefix", &prefix);
        return &piece_rules[prefix];
    }
    bq_gguf_word(&m->k, "tokenizer.ggml.pre", pre);
    for (size_t i = 0; i < sizeof rules / sizeof *rules && strcmp(model, "gpt2") == 0; i++)
        if (strcmp(rules[i].pre, pre) == 0) return &rules[i];
    return NULL;
}

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

static bool same(const json_t *tokenizer, const char *key, const char *text) {
    json_t *want = parsed(text), *none = json_null(), *have = json_object_get(tokenizer, key);
    bool equal = json_equal(have ? have : none, want);
    json_decref(want);
    return equal;
}

const char *bq_gguf_tokenizer_pre(const json_t *tokenizer) {
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (same(tokenizer, "pre_tokenizer", rules[i].pre_tokenizer) &&
            same(tokenizer, "normalizer", rules[i].normalizer))
            return rules[i].pre;
    return NULL;
}

bool bq_gguf_tokenizer_pieces(const json_t *tokenizer, bool *prefix) {
    for (int i = 0; i < 2; i++) {
        *prefix = i;
        if (same(tokenizer, "normalizer", piece_rules[i].normalizer) &&
            same(tokenizer, "pre_tokenizer", piece_rules[i].pre_tokenizer))
            return json_is_true(json_object_get(json_object_get(tokenizer, "model"), "byte_fallback"));
    }
    return false;
}

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

/* Phi-3's tokens of chats take the blanks behind them.  The file does not say so; llama.cpp has the same
 * rule. */
static bool strips(const maker *m, bq_text text) {
    static const char *const whole[] = {"<unk>", "<s>", "<|endoftext|>"};
    bool does = strcmp(m->arch, "phi3") == 0 && m->rule->pieces;
    for (int i = 0; i < 3; i++)
        if (strlen(whole[i]) == text.bytes && memcmp(whole[i], text.at, text.bytes) == 0) does = false;
    return does;
}

static json_t *added_token(const maker *m, int64_t i) {
    bool special = m->type[i] != ADDED, strip = strips(m, m->token[i]);
    json_t *t = made(json_object());
    put(t, "content", json_stringn(m->token[i].at, m->token[i].bytes));
    put(t, "single_word", json_false());
    put(t, "lstrip", json_false());
    put(t, "rstrip", json_boolean(strip));
    put(t, "normalized", json_false());
    put(t, "special", json_boolean(special));
    return t;
}

/* As the list of tokenizer.json, which has the id in front, or as the object of tokenizer_config.json. */
static json_t *added_tokens(const maker *m, bool list) {
    json_t *all = made(list ? json_array() : json_object());
    for (int64_t i = 0; i < m->count; i++) {
        if (m->type[i] < UNKNOWN || m->type[i] > ADDED) continue;
        json_t *t = added_token(m, i);
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

/* From the scores of the tokens. */
static json_t *make_merges(maker *m) {
    json_t *all = made(json_array());
    int64_t count = 0;
    bq_gguf_merge *merge = bq_gguf_merges(&m->k, m->count, m->token, m->type, m->vocab, &count);
    for (int64_t i = 0; i < count && !m->k.status; i++) {
        const bq_text *left = &m->token[merge[i].left], *right = &m->token[merge[i].right];
        json_t *pair = made(json_array());
        append(pair, json_stringn(left->at, left->bytes));
        append(pair, json_stringn(right->at, right->bytes));
        append(all, pair);
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
static json_t *make_tokenizer(maker *m, int64_t bos) {
    const struct rule *rule = m->rule;
    json_t *t = made(json_object()), *model = made(json_object());
    json_t *unk = m->unk < 0 ? json_null() : json_stringn(m->token[m->unk].at, m->token[m->unk].bytes);
    put(t, "version", json_string("1.0"));
    put(t, "truncation", json_null());
    put(t, "padding", json_null());
    put(t, "added_tokens", added_tokens(m, true));
    put(t, "normalizer", parsed(rule->normalizer));
    put(t, "pre_tokenizer", parsed(rule->pre_tokenizer));
    put(t, "post_processor", post_processor(m, rule->post_processor, bos));
    put(t, "decoder", parsed(rule->decoder));
    put(model, "type", json_string("BPE"));
    put(model, "dropout", json_null());
    put(model, "unk_token", unk);
    put(model, "continuing_subword_prefix", json_null());
    put(model, "end_of_word_suffix", json_null());
    put(model, "fuse_unk", json_boolean(rule->pieces));
    put(model, "byte_fallback", json_boolean(rule->pieces));
    put(model, "ignore_merges", json_boolean(rule->ignore_merges));
    put(model, "vocab", json_incref(m->vocab));
    put(model, "merges", rule->pieces ? make_merges(m) : read_merges(m));
    put(t, "model", model);
    return t;
}

static json_t *make_config(maker *m, bool add_bos) {
    static const char *const token[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                           {"eos_token", "tokenizer.ggml.eos_token_id"},
                                           {"unk_token", UNK},
                                           {"pad_token", "tokenizer.ggml.padding_token_id"}};
    json_t *t = made(json_object());
    char key[128];
    int64_t length = -1;
    bq_text chat = {NULL, 0};
    snprintf(key, sizeof key, "%s.context_length", m->arch);
    bq_gguf_int(&m->k, key, 1, (int64_t)1 << 40, &length);
    put(t, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    put(t, "add_prefix_space", json_boolean(m->rule == &piece_rules[1]));
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
    m->rule = find_rule(m);
    if (!m->rule || m->k.status) return;
    bq_gguf_word(&m->k, "general.architecture", m->arch);
    read_tokens(m);
    if (m->k.status) return;
    bool add_bos = m->rule->bos, add_eos = false;
    int64_t bos = -1;
    if (m->rule->pieces) m->unk = 0, bq_gguf_int(&m->k, UNK, 0, m->count - 1, &m->unk);
    bq_gguf_bool(&m->k, "tokenizer.ggml.add_eos_token", &add_eos);
    if (add_eos)
        bq_gguf_refuse(&m->k, "tokenizer.ggml.add_eos_token", "blockq has no texts that end with EOS");
    bq_gguf_bool(&m->k, "tokenizer.ggml.add_bos_token", &add_bos);
    if (add_bos) bq_gguf_need(&m->k, "tokenizer.ggml.bos_token_id");
    bq_gguf_int(&m->k, "tokenizer.ggml.bos_token_id", 0, m->count - 1, &bos);
    if (m->k.status) return;
    *tokenizer = make_tokenizer(m, add_bos ? bos : -1);
    *config = make_config(m, add_bos);
}

int bq_gguf_tokenizer(const bq_gguf *g, json_t **tokenizer, json_t **config) {
    maker *m = calloc(1, sizeof *m);
    BQ_CHECK(m, "no memory for a tokenizer");
    m->k = bq_gguf_keys_of(g), m->vocab = made(json_object()), m->unk = -1;
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
