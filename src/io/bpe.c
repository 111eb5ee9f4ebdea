/* SPDX-License-Identifier: Apache-2.0 */
#include "io/bpe_parts.h"

#include "base/die.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

int64_t bq_bpe_vocab(const bq_bpe *bpe) { return bpe->vocab; }
const char *bq_bpe_sha256(const bq_bpe *bpe) { return bpe->sha256; }
int32_t bq_bpe_bos(const bq_bpe *bpe) { return bpe->bos; }

int32_t bq_bpe_find(const bq_bpe_tokens *t, const char *text, size_t bytes) {
    for (size_t i = bq_hash_bytes(text, bytes);; i++) {
        const bq_bpe_token *one = &t->at[i & (t->places - 1)];
        if (!one->text) return -1;
        if (one->bytes == bytes && memcmp(one->text, text, bytes) == 0) return one->id;
    }
}

const bq_bpe_merge *bq_bpe_merge_of(const bq_bpe *bpe, int32_t left, int32_t right) {
    const uint64_t key = (uint64_t)(left + 1) << 32 | (uint32_t)right;
    for (size_t i = (size_t)(key * 0x9e3779b97f4a7c15u >> 32);; i++) {
        const bq_bpe_merge *one = &bpe->merge[i & (bpe->merges - 1)];
        if (one->key == key) return one;
        if (!one->key) return NULL;
    }
}

/* ---- one word ---- */

/* A token of the word: its neighbours, -1 at the ends; gone: it was merged into its left one. */
typedef struct {
    int32_t id, before, after;
} symbol;

/* A pair that may be merged, by rank, then by place; id: what it becomes. */
typedef struct {
    int32_t rank, at, id;
} pair;

typedef struct {
    const bq_bpe *bpe;
    const char *name; /* of the text */
    int32_t *ids;
    int64_t count, room;
    bq_char *chars; /* of the piece between added tokens */
    symbol *symbol;
    pair *heap;
    int64_t pairs, symbols; /* pairs in the heap; room for symbols */
    size_t chars_room;
} work;

static void *larger(void *old, size_t count, size_t size) {
    void *now = realloc(old, count * size);
    BQ_CHECK(now, "no memory for %zu tokens", count);
    return now;
}

static void put(work *w, int32_t id) {
    if (w->count == w->room)
        w->room = 2 * w->room + 1024, w->ids = larger(w->ids, (size_t)w->room, sizeof *w->ids);
    w->ids[w->count++] = id;
}

static bool before(pair a, pair b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static void push(work *w, int32_t at) {
    const symbol *s = &w->symbol[at];
    const bq_bpe_merge *m = s->after < 0 ? NULL : bq_bpe_merge_of(w->bpe, s->id, w->symbol[s->after].id);
    if (!m) return;
    const pair one = {m->rank, at, m->id};
    int64_t i = w->pairs++;
    for (; i && before(one, w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = one;
}

static pair pop(work *w) {
    const pair first = w->heap[0], last = w->heap[--w->pairs];
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < w->pairs; i = child) {
        if (child + 1 < w->pairs && before(w->heap[child + 1], w->heap[child])) child++;
        if (!before(w->heap[child], last)) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return first;
}

/* A merge makes at most two new pairs, and takes one: 3 n places are enough for n symbols. */
static void word(work *w, const char *text, size_t bytes) {
    const int32_t all = w->bpe->whole ? bq_bpe_find(&w->bpe->tokens, text, bytes) : -1;
    const int64_t n = (int64_t)bytes;
    if (all >= 0) return put(w, all);
    if (n > w->symbols) {
        w->symbols = 2 * n;
        w->symbol = larger(w->symbol, (size_t)w->symbols, sizeof *w->symbol);
        w->heap = larger(w->heap, 3 * (size_t)w->symbols, sizeof *w->heap);
    }
    int32_t kept = 0; /* bytes without a token are left out, as tokenizers does without an unknown token */
    for (int64_t i = 0; i < n; i++) {
        const int32_t id = w->bpe->byte[(unsigned char)text[i]];
        if (id >= 0) w->symbol[kept] = (symbol){id, kept - 1, kept + 1}, kept++;
    }
    if (!kept) return;
    w->symbol[kept - 1].after = -1;
    w->pairs = 0;
    for (int32_t i = 0; i + 1 < kept; i++) push(w, i);
    while (w->pairs) {
        const pair one = pop(w);
        symbol *s = &w->symbol[one.at];
        if (s->id < 0 || s->after < 0) continue;
        symbol *gone = &w->symbol[s->after];
        const bq_bpe_merge *m = bq_bpe_merge_of(w->bpe, s->id, gone->id);
        if (!m || m->id != one.id) continue; /* one of the two has changed */
        s->id = one.id;
        gone->id = -1;
        s->after = gone->after;
        if (s->after >= 0) w->symbol[s->after].before = one.at;
        push(w, one.at);
        if (s->before >= 0) push(w, s->before);
    }
    for (int32_t i = 0; i >= 0; i = w->symbol[i].after) put(w, w->symbol[i].id);
}

/* ---- a text ---- */

/* Text without added tokens. */
static int words(work *w, const char *text, size_t bytes) {
    int64_t count = 0;
    if (bytes + 1 > w->chars_room) w->chars = larger(w->chars, w->chars_room = bytes + 1, sizeof *w->chars);
    for (size_t at = 0; at < bytes; count++) {
        bq_char *c = &w->chars[count];
        const int length = bq_utf8(text + at, bytes - at, &c->code);
        c->class = bq_unicode_class(c->code), c->at = at;
        if (w->bpe->settled && c->class & BQ_UNSETTLED)
            return bq_refuse(
                BQ_DATA,
                "%s has the character U+%04X, which normal form C may change, as this tokenizer asks "
                "for: use tools/prepare.py",
                w->name, c->code);
        at += (size_t)length;
    }
    w->chars[count].at = bytes;
    for (int64_t i = 0, to; i < count; i = to) {
        to = bq_words_next(w->bpe->rule, w->bpe->digits, w->chars, i, count);
        word(w, text + w->chars[i].at, w->chars[to].at - w->chars[i].at);
    }
    return BQ_OK;
}

/* The longest added token at this place, of those that are matched before or after the text is normalized. */
static const bq_bpe_added *added_at(const bq_bpe *bpe, const char *text, size_t bytes, bool normalized) {
    const bq_bpe_added *best = NULL;
    for (int i = 0; i < bpe->nadded; i++) {
        const bq_bpe_added *a = &bpe->added[i];
        if (a->normalized == normalized && a->text[0] == text[0] && a->bytes <= bytes &&
            memcmp(a->text, text, a->bytes) == 0 && (!best || a->bytes > best->bytes))
            best = a;
    }
    return best;
}

static int pieces(work *w, const char *text, size_t bytes, bool normalized) {
    size_t from = 0;
    bool starts[256] = {0};
    for (int i = 0; i < w->bpe->nadded; i++)
        starts[(unsigned char)w->bpe->added[i].text[0]] |= w->bpe->added[i].normalized == normalized;
    for (size_t at = 0; at <= bytes; at++) {
        const bq_bpe_added *a = at < bytes && starts[(unsigned char)text[at]]
                                    ? added_at(w->bpe, text + at, bytes - at, normalized)
                                    : NULL;
        if (!a && at < bytes) continue;
        int code = at == from   ? BQ_OK
                   : normalized ? words(w, text + from, at - from)
                                : pieces(w, text + from, at - from, true);
        if (code || !a) return code;
        if (a->greedy)
            return bq_refuse(BQ_DATA,
                             "%s has the token %.100s, which takes blanks beside it or stands alone: use "
                             "tools/prepare.py",
                             w->name, a->text);
        put(w, a->id);
        from = at + a->bytes, at = from - 1;
    }
    return BQ_OK;
}

int bq_bpe_encode(const bq_bpe *bpe, const char *name, const char *text, size_t bytes, int32_t **ids,
                  int64_t *count) {
    work w = {.bpe = bpe, .name = name};
    int code = BQ_OK;
    uint32_t ignored;
    for (size_t at = 0, length; at < bytes && !code; at += length)
        if (!(length = (size_t)bq_utf8(text + at, bytes - at, &ignored)))
            code = bq_refuse(BQ_DATA, "%s: byte %zu (0x%02x) is not UTF-8: convert the file with iconv", name,
                             at, (unsigned char)text[at]);
    if (!code) code = pieces(&w, text, bytes, false);
    free(w.chars);
    free(w.symbol);
    free(w.heap);
    if (code) free(w.ids), w.ids = NULL, w.count = 0;
    *ids = w.ids, *count = w.count;
    return code;
}
