/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tokens.h"

#include "base/die.h"
#include "base/hash.h"
#include "io/bpe.h"
#include "io/files.h"
#include "io/state/h5.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char format[] = "blockq tokens";

enum { VERSION = 1 };
#define MAX_COUNT ((int64_t)INT32_MAX)

uint64_t bq_tokens_hash(const bq_tokens *t) {
    bq_hash *hash = bq_hash_open();
    int64_t numbers[3] = {t->count, t->vocab, t->bos};
    bq_hash_add(hash, numbers, sizeof numbers);
    bq_hash_add(hash, t->tokenizer, strlen(t->tokenizer) + 1);
    bq_hash_add(hash, t->text, strlen(t->text) + 1);
    bq_hash_add(hash, t->joiner, strlen(t->joiner) + 1);
    bq_hash_add(hash, t->ids, (size_t)t->count * sizeof *t->ids);
    return bq_hash_close(hash);
}

/* Index of the first id outside the vocabulary, or count. */
static int64_t first_bad(const bq_tokens *t) {
    int64_t i = 0;
    while (i < t->count && t->ids[i] >= 0 && t->ids[i] < t->vocab) i++;
    return i;
}

static bool read_file(bq_h5 *h, bq_tokens *t) {
    char kind[64];
    int64_t version, bos, offset;
    if (!bq_h5_get_text(h, "format", kind, sizeof kind)) return false;
    if (strcmp(kind, format)) return bq_h5_refuse(h, "its format is '%s', not '%s'", kind, format);
    if (!bq_h5_get_int(h, "version", VERSION, VERSION, &version) ||
        !bq_h5_get_int(h, "vocab", 1, INT32_MAX, &t->vocab) ||
        !bq_h5_get_int(h, "bos", -1, t->vocab - 1, &bos) ||
        !bq_h5_get_text(h, "tokenizer", t->tokenizer, sizeof t->tokenizer) ||
        !bq_h5_get_text(h, "text", t->text, sizeof t->text) ||
        !bq_h5_get_text(h, "joiner", t->joiner, sizeof t->joiner) ||
        !bq_h5_get_data(h, "tokens", BQ_I32, 1, &t->count, &offset))
        return false;
    if (t->count > MAX_COUNT) return bq_h5_refuse(h, "%" PRId64 " tokens are too many", t->count);
    t->bos = (int32_t)bos;
    bq_h5_detach(h);
    t->ids = malloc((size_t)t->count * sizeof *t->ids);
    BQ_CHECK(t->ids, "no memory for %ld tokens", (long)t->count);
    if (!bq_h5_read(h, offset, bq_mat_host(t->ids, 1, t->count, BQ_I32))) return false;
    int64_t bad = first_bad(t);
    if (bad < t->count)
        return bq_h5_refuse(h, "token %ld is %d, outside the vocabulary of %ld", (long)bad, (int)t->ids[bad],
                            (long)t->vocab);
    return true;
}

bool bq_tokens_is_text(const char *path) {
    const size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".txt") == 0;
}

int bq_tokens_read(const char *path, bq_tokens *t) {
    if (bq_tokens_is_text(path)) return bq_tokens_from_text(1, &path, t);
    bq_h5 h = {0};
    *t = (bq_tokens){0};
    bool good = bq_h5_open(&h, path, NULL) && read_file(&h, t);
    bq_h5_close(&h);
    if (good) {
        t->hash = bq_tokens_hash(t);
        return BQ_OK;
    }
    bq_tokens_close(t);
    if (h.absent)
        return bq_refuse(BQ_DATA, "tokens '%s': no such file; make it by `blockq tokens` or tools/prepare.py",
                         path);
    return bq_refuse(BQ_DATA, "tokens '%s': %s", path, h.why);
}

/* Append the bytes of one more text to t->ids. */
static int add_text(const char *path, bq_tokens *t, bq_hash *hash) {
    char *data;
    size_t bytes;
    int rc = bq_file_read(path, (size_t)(MAX_COUNT - t->count), &data, &bytes);
    if (rc) return bq_refuse(BQ_DATA, "text '%s': %s", path, bq_file_why(rc));
    if (bytes == 0) return free(data), bq_refuse(BQ_DATA, "text '%s' is empty", path);
    t->ids = realloc(t->ids, ((size_t)t->count + bytes) * sizeof *t->ids);
    BQ_CHECK(t->ids, "no memory for %zu more tokens", bytes);
    for (size_t i = 0; i < bytes; i++) t->ids[(size_t)t->count + i] = (unsigned char)data[i];
    t->count += (int64_t)bytes;
    bq_hash_add(hash, data, bytes);
    free(data);
    return BQ_OK;
}

int bq_tokens_from_text(int n, const char *const *text_path, bq_tokens *t) {
    int rc = BQ_OK;
    bq_hash *hash = bq_hash_open();
    *t = (bq_tokens){.vocab = 256, .bos = -1, .tokenizer = "bytes", .joiner = "raw"};
    for (int i = 0; i < n && !rc; i++) rc = add_text(text_path[i], t, hash);
    snprintf(t->text, sizeof t->text, "xxh3:%016" PRIx64, bq_hash_close(hash));
    if (rc)
        bq_tokens_close(t);
    else
        t->hash = bq_tokens_hash(t);
    return rc;
}

/* All texts as one; free() it. */
static int join_texts(int n, const char *const *path, char **all, size_t *bytes) {
    *all = NULL, *bytes = 0;
    for (int i = 0; i < n; i++) {
        char *data;
        size_t more;
        int rc = bq_file_read(path[i], (size_t)MAX_COUNT - *bytes, &data, &more);
        if (rc) return bq_refuse(BQ_DATA, "text '%s': %s", path[i], bq_file_why(rc));
        *all = realloc(*all, *bytes + more + 1);
        BQ_CHECK(*all, "no memory for %zu bytes of text", *bytes + more);
        memcpy(*all + *bytes, data, more);
        *bytes += more;
        free(data);
    }
    return BQ_OK;
}

int bq_tokens_from_tokenizer(int n, const char *const *text_path, const char *tokenizer, bq_tokens *t) {
    char *text = NULL;
    size_t bytes = 0;
    bq_bpe *bpe = NULL;
    *t = (bq_tokens){.bos = -1, .joiner = "raw"};
    int rc = bq_bpe_open(&bpe, tokenizer);
    if (!rc) rc = join_texts(n, text_path, &text, &bytes);
    if (!rc) rc = bq_bpe_encode(bpe, n == 1 ? text_path[0] : "the text", text, bytes, &t->ids, &t->count);
    if (!rc && !t->count) rc = bq_refuse(BQ_DATA, "text '%s' gives no tokens", text_path[0]);
    if (!rc && (t->bos = bq_bpe_bos(bpe)) >= 0) {
        t->ids = realloc(t->ids, (size_t)(t->count + 1) * sizeof *t->ids);
        BQ_CHECK(t->ids, "no memory for %ld tokens", (long)t->count);
        memmove(t->ids + 1, t->ids, (size_t)t->count++ * sizeof *t->ids);
        t->ids[0] = t->bos;
    }
    if (!rc) {
        t->vocab = bq_bpe_vocab(bpe);
        snprintf(t->tokenizer, sizeof t->tokenizer, "%s", bq_bpe_sha256(bpe));
        bq_sha256(text, bytes, t->text);
        t->hash = bq_tokens_hash(t);
    }
    bq_bpe_close(bpe);
    free(text);
    if (rc) bq_tokens_close(t);
    return rc;
}

int bq_tokens_write(const char *path, const bq_tokens *t) {
    if (t->count < 1 || t->count > MAX_COUNT)
        return bq_refuse(BQ_DATA, "tokens '%s': %" PRId64 " of them cannot be written", path, t->count);
    if (t->vocab < 1 || t->vocab > INT32_MAX || t->bos < -1 || t->bos >= t->vocab)
        return bq_refuse(BQ_DATA, "tokens '%s': vocabulary of %ld with bos %d", path, (long)t->vocab,
                         (int)t->bos);
    int64_t bad = first_bad(t);
    if (bad < t->count)
        return bq_refuse(BQ_DATA, "tokens '%s': token %ld is %d, outside the vocabulary of %ld", path,
                         (long)bad, (int)t->ids[bad], (long)t->vocab);
    bq_h5 h;
    bq_h5_create(&h, path);
    bq_h5_put_text(&h, "format", format);
    bq_h5_put_int(&h, "version", BQ_I32, VERSION);
    bq_h5_put_int(&h, "vocab", BQ_I64, t->vocab);
    bq_h5_put_int(&h, "bos", BQ_I32, t->bos);
    bq_h5_put_text(&h, "tokenizer", t->tokenizer);
    bq_h5_put_text(&h, "text", t->text);
    bq_h5_put_text(&h, "joiner", t->joiner);
    int64_t offset = bq_h5_put_data(&h, "tokens", BQ_I32, 1, &t->count);
    bq_h5_fix(&h);
    bq_h5_write(&h, offset, bq_mat_host(t->ids, 1, t->count, BQ_I32));
    bq_h5_commit(&h);
    return BQ_OK;
}

void bq_tokens_close(bq_tokens *t) {
    free(t->ids);
    *t = (bq_tokens){0};
}
