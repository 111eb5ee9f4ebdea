/* SPDX-License-Identifier: Apache-2.0 */
#include "io/bpe_parts.h"

#include "base/die.h"
#include "base/hash.h"
#include "io/files.h"
#include "io/json.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST = 1 << 26 /* bytes of the file */, IDS = 1 << 24, LONGEST = 1 << 12 /* bytes of a token */ };

static int refuse(const char *path, const char *what, const char *value) {
    return bq_refuse(BQ_DATA, "%s: %s %.100s: blockq does not know it; use tools/prepare.py", path, what,
                     value);
}

/* ---- tokens ---- */

/* Bytes stand in the file as characters that can be printed: themselves, or 256 and following ones. */
static void fill_alphabet(int32_t byte_of[512]) {
    int32_t next = 256;
    memset(byte_of, 0xff, 512 * sizeof *byte_of);
    for (int32_t b = 0; b < 256; b++) {
        const bool itself = (b >= 33 && b < 127) || (b >= 161 && b < 173) || b >= 174;
        byte_of[itself ? b : next++] = b;
    }
}

/* The bytes of a string of the file, to out (LONGEST); -1: it has another character, or is too long. */
static int64_t decode(const int32_t byte_of[512], const char *text, size_t bytes, char *out) {
    int64_t n = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        const int length = bq_utf8(text + at, bytes - at, &code);
        if (!length || code >= 512 || byte_of[code] < 0 || n == LONGEST) return -1;
        out[n++] = (char)byte_of[code];
        at += (size_t)length;
    }
    return n;
}

static char *copy(const char *text, size_t bytes) {
    char *own = malloc(bytes + 1);
    BQ_CHECK(own, "no memory for a token");
    memcpy(own, text, bytes);
    own[bytes] = 0;
    return own;
}

static size_t places_for(size_t count) {
    size_t places = 16;
    while (places < 2 * count + 2) places *= 2;
    return places;
}

static void add_token(bq_bpe_tokens *t, const char *text, size_t bytes, int32_t id) {
    size_t i = bq_hash_bytes(text, bytes);
    while (t->at[i & (t->places - 1)].text) i++;
    t->at[i & (t->places - 1)] = (bq_bpe_token){copy(text, bytes), bytes, id};
    t->count++;
}

static bool take_id(bq_bpe *b, const json_t *value, int32_t *id) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= IDS)
        return false;
    *id = (int32_t)json_integer_value(value);
    if (*id >= b->vocab) b->vocab = *id + 1;
    return true;
}

/* Those with other characters than the alphabet's are no bytes of a text: only their ids count. */
static int read_vocab(bq_bpe *b, const char *path, json_t *vocab, const int32_t byte_of[512]) {
    const char *key;
    json_t *value;
    char bytes[LONGEST];
    b->tokens.places = places_for(json_object_size(vocab));
    b->tokens.at = calloc(b->tokens.places, sizeof *b->tokens.at);
    BQ_CHECK(b->tokens.at, "no memory for %zu tokens", json_object_size(vocab));
    json_object_foreach(vocab, key, value) {
        int32_t id;
        const int64_t n = decode(byte_of, key, strlen(key), bytes);
        if (!take_id(b, value, &id))
            return bq_refuse(BQ_DATA, "%s: the id of token '%.100s' must be a number below %d", path, key,
                             IDS);
        if (n > 0) add_token(&b->tokens, bytes, (size_t)n, id);
    }
    for (int i = 0; i < 256; i++) {
        const char one = (char)i;
        b->byte[i] = bq_bpe_find(&b->tokens, &one, 1);
    }
    if (b->byte['a'] < 0)
        return bq_refuse(BQ_DATA, "%s: the letter a is no token: use tools/prepare.py", path);
    return BQ_OK;
}

/* "a b", or ["a", "b"]: the bytes of both, one behind the other; *left: those of the first.  -1: no merge. */
static int64_t read_pair(const json_t *merge, const int32_t byte_of[512], char bytes[2 * LONGEST],
                         int64_t *left) {
    const char *text = json_string_value(merge), *blank = text ? strchr(text, ' ') : NULL;
    const char *a = text ? text : json_string_value(json_array_get(merge, 0));
    const char *b = blank ? blank + 1 : json_string_value(json_array_get(merge, 1));
    if (!a || !b || (!text && json_array_size(merge) != 2)) return -1;
    *left = decode(byte_of, a, blank ? (size_t)(blank - text) : strlen(a), bytes);
    const int64_t right = *left > 0 ? decode(byte_of, b, strlen(b), bytes + *left) : -1;
    return right > 0 ? *left + right : -1;
}

static int read_merges(bq_bpe *b, const char *path, const json_t *list, const int32_t byte_of[512]) {
    char bytes[2 * LONGEST];
    const size_t count = json_array_size(list);
    b->merges = places_for(count);
    b->merge = calloc(b->merges, sizeof *b->merge);
    BQ_CHECK(b->merge, "no memory for %zu merges", count);
    for (size_t rank = 0; rank < count; rank++) {
        int64_t left = 0;
        const int64_t n = read_pair(json_array_get(list, rank), byte_of, bytes, &left);
        const int32_t one = n < 0 ? -1 : bq_bpe_find(&b->tokens, bytes, (size_t)left),
                      two = n < 0 ? -1 : bq_bpe_find(&b->tokens, bytes + left, (size_t)(n - left)),
                      id = n < 0 ? -1 : bq_bpe_find(&b->tokens, bytes, (size_t)n);
        if (one < 0 || two < 0 || id < 0)
            return bq_refuse(BQ_DATA, "%s: model.merges.%zu does not join two tokens to a third", path, rank);
        const uint64_t key = (uint64_t)(one + 1) << 32 | (uint32_t)two;
        size_t i = (size_t)(key * 0x9e3779b97f4a7c15u >> 32);
        while (b->merge[i & (b->merges - 1)].key && b->merge[i & (b->merges - 1)].key != key) i++;
        b->merge[i & (b->merges - 1)] = (bq_bpe_merge){key, (int32_t)rank, id}; /* of two the later one */
    }
    return BQ_OK;
}

static int read_model(bq_bpe *b, const char *path, json_t *model) {
    static const char *const empty[] = {"dropout", "unk_token", "continuing_subword_prefix",
                                        "end_of_word_suffix"};
    const char *type = json_string_value(json_object_get(model, "type"));
    int32_t byte_of[512];
    if (!type || strcmp(type, "BPE")) return refuse(path, "model.type", type ? type : "(none)");
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        const json_t *value = json_object_get(model, empty[i]);
        const char *text = json_string_value(value);
        if (!value || json_is_null(value) || (text && !*text)) continue;
        return refuse(path, "model has", empty[i]);
    }
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return refuse(path, "model has", "byte_fallback");
    b->whole = json_is_true(json_object_get(model, "ignore_merges"));
    json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    if (!json_is_object(vocab) || !json_is_array(merges))
        return bq_refuse(BQ_DATA, "%s: model.vocab or model.merges is missing", path);
    fill_alphabet(byte_of);
    int code = read_vocab(b, path, vocab, byte_of);
    return code ? code : read_merges(b, path, merges, byte_of);
}

static bool is_true(const json_t *of, const char *key) { return json_is_true(json_object_get(of, key)); }

static int read_added(bq_bpe *b, const char *path, const json_t *list) {
    const size_t count = json_array_size(list);
    b->added = calloc(count + 1, sizeof *b->added);
    BQ_CHECK(b->added, "no memory for %zu tokens", count);
    for (size_t i = 0; i < count && i < INT_MAX; i++) {
        const json_t *one = json_array_get(list, i), *content = json_object_get(one, "content");
        bq_bpe_added *a = &b->added[b->nadded];
        if (!json_is_string(content) || !json_string_length(content) ||
            !take_id(b, json_object_get(one, "id"), &a->id))
            return bq_refuse(BQ_DATA, "%s: added_tokens.%zu has no content or no id", path, i);
        a->text = copy(json_string_value(content), a->bytes = json_string_length(content));
        a->normalized = is_true(one, "normalized");
        a->greedy = is_true(one, "lstrip") || is_true(one, "rstrip") || is_true(one, "single_word");
        b->nadded++;
    }
    return BQ_OK;
}

/* ---- the way from text to words ---- */

/* ByteLevel cuts words by GPT-2's rule (use_regex) or leaves those that Split has cut. */
static int read_cutter(bq_bpe *b, const char *path, const json_t *one, bool *cut) {
    const char *type = json_string_value(json_object_get(one, "type"));
    if (!type) return refuse(path, "pre_tokenizer", "without a type");
    if (strcmp(type, "Digits") == 0 && is_true(one, "individual_digits") && !*cut)
        return b->digits = true, BQ_OK;
    if (strcmp(type, "ByteLevel") == 0) {
        const json_t *regex = json_object_get(one, "use_regex");
        if (is_true(one, "add_prefix_space")) return refuse(path, "pre_tokenizer has", "add_prefix_space");
        if (json_is_false(regex)) return BQ_OK;
        if (*cut) return refuse(path, "pre_tokenizer", "Split, and ByteLevel with use_regex");
        return b->rule = BQ_WORDS_GPT2, *cut = true, BQ_OK;
    }
    const char *pattern = json_string_value(json_object_get(json_object_get(one, "pattern"), "Regex")),
               *behavior = json_string_value(json_object_get(one, "behavior"));
    if (strcmp(type, "Split") || *cut) return refuse(path, "pre_tokenizer.type", type);
    if (!pattern || !bq_words_find(pattern, &b->rule))
        return refuse(path, "the pattern", pattern ? pattern : "(none)");
    if (is_true(one, "invert") || !behavior || strcmp(behavior, "Isolated"))
        return refuse(path, "pre_tokenizer", "that does not isolate words");
    return *cut = true, BQ_OK;
}

static int read_way(bq_bpe *b, const char *path, const json_t *all) {
    const json_t *normal = json_object_get(all, "normalizer"), *pre = json_object_get(all, "pre_tokenizer"),
                 *list = json_object_get(pre, "pretokenizers");
    const char *type = json_string_value(json_object_get(normal, "type"));
    bool cut = false;
    int code = BQ_OK;
    if (type && strcmp(type, "NFC") == 0)
        b->settled = true;
    else if (normal && !json_is_null(normal))
        return refuse(path, "normalizer", type ? type : "of another form");
    if (!list) code = read_cutter(b, path, pre, &cut);
    for (size_t i = 0; i < json_array_size(list) && !code; i++)
        code = read_cutter(b, path, json_array_get(list, i), &cut);
    return !code && !cut ? refuse(path, "pre_tokenizer", "that cuts no words") : code;
}

/* ---- BOS ---- */

/* What a TemplateProcessing puts in front of a text; -1: nothing; of a Sequence its first one. */
static int32_t own_bos(const json_t *post) {
    const json_t *list = json_object_get(post, "processors");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const int32_t id = own_bos(json_array_get(list, i));
        if (id >= 0) return id;
    }
    const json_t *single = json_object_get(post, "single");
    const json_t *first = json_object_get(json_array_get(single, 0), "SpecialToken");
    const char *name = json_string_value(json_object_get(first, "id"));
    if (!name || !json_object_get(json_array_get(single, 1), "Sequence")) return -1;
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(post, "special_tokens"), name), "ids");
    const json_t *id = json_array_size(ids) == 1 ? json_array_get(ids, 0) : NULL;
    return json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < IDS
               ? (int32_t)json_integer_value(id)
               : -1;
}

static int32_t id_of(const bq_bpe *b, const char *name) {
    for (int i = 0; name && i < b->nadded; i++)
        if (strcmp(b->added[i].text, name) == 0) return b->added[i].id;
    return -1;
}

/* As tools/prepare.py decides with --bos auto: tokenizer_config.json's add_bos_token, else what the tokenizer
 * does by itself; the token is the one that the file names, else its own. */
static int read_bos(bq_bpe *b, const char *path, const json_t *all) {
    char beside[BQ_PATH];
    const char *slash = strrchr(path, '/');
    json_t *config = NULL;
    const int32_t own = own_bos(json_object_get(all, "post_processor"));
    snprintf(beside, sizeof beside, "%.*stokenizer_config.json", slash ? (int)(slash - path) + 1 : 0, path);
    if (bq_file_exists(beside) && bq_json_read(beside, MOST, &config)) return BQ_DATA;
    const json_t *token = json_object_get(config, "bos_token"),
                 *wanted = json_object_get(config, "add_bos_token");
    const char *name = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
    const bool puts = json_is_boolean(wanted) ? json_is_true(wanted) : own >= 0;
    const int32_t named = id_of(b, name);
    b->bos = !puts ? -1 : named >= 0 ? named : own;
    json_decref(config);
    if (puts && b->bos < 0)
        return bq_refuse(BQ_DATA, "%s: add_bos_token is true, and no BOS token is named", beside);
    if (b->bos >= b->vocab)
        return bq_refuse(BQ_DATA, "%s: the BOS token is %d, beyond its %ld ids", path, b->bos,
                         (long)b->vocab);
    return BQ_OK;
}

/* ---- the whole ---- */

int bq_bpe_parse(bq_bpe **out, const char *path, const char *text, size_t bytes) {
    json_t *all = NULL;
    bq_bpe *b = calloc(1, sizeof *b);
    BQ_CHECK(b, "no memory for a tokenizer");
    *out = NULL;
    bq_sha256(text, bytes, b->sha256);
    int code = bq_json_parse(path, text, bytes, &all);
    if (!code) code = read_model(b, path, json_object_get(all, "model"));
    if (!code) code = read_added(b, path, json_object_get(all, "added_tokens"));
    if (!code) code = read_way(b, path, all);
    if (!code) code = read_bos(b, path, all);
    json_decref(all);
    if (code) return bq_bpe_close(b), code;
    *out = b;
    return BQ_OK;
}

int bq_bpe_open(bq_bpe **out, const char *given) {
    char path[BQ_PATH], *text;
    size_t bytes;
    struct stat st;
    bq_path_join(path, sizeof path, "", given);
    if (stat(given, &st) == 0 && S_ISDIR(st.st_mode))
        bq_path_join(path, sizeof path, given, "tokenizer.json");
    *out = NULL;
    int error = bq_file_read(path, MOST, &text, &bytes);
    if (error)
        return bq_refuse(BQ_DATA,
                         "%s: %s: --tokenizer takes a model's folder with tokenizer.json, or that file", path,
                         bq_file_why(error));
    int code = bq_bpe_parse(out, path, text, bytes);
    free(text);
    return code;
}

void bq_bpe_close(bq_bpe *b) {
    if (!b) return;
    for (size_t i = 0; b->tokens.at && i < b->tokens.places; i++) free(b->tokens.at[i].text);
    for (int i = 0; i < b->nadded; i++) free(b->added[i].text);
    free(b->tokens.at);
    free(b->merge);
    free(b->added);
    free(b);
}
