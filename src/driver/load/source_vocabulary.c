/* SPDX-License-Identifier: Apache-2.0 */
/* Do these ids belong to this model? */
#include "driver/load/source.h"

#include "base/die.h"
#include "base/hash.h"
#include "base/log.h"
#include "io/files.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

#define TOKENIZER_BYTES ((size_t)256 << 20)

static bool is_sha256(const char *text) {
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

/* The SHA-256 of the model's tokenizer.json, by which tools/prepare.py names it; "": there is none to be
 * read.  *dir: where tools/prepare.py finds it.  BQ_OK, or BQ_DATA after one message. */
static int name_tokenizer(const bq_source *src, char hex[65], const char **dir) {
    char path[BQ_PATH + 32], *text = NULL;
    size_t bytes;
    json_t *inside;
    hex[0] = 0;
    int code = bq_weights_beside(src->weights, true, &inside);
    *dir = inside ? "DIR, after 'blockq import MODEL.gguf DIR'" : src->dir;
    const json_t *made = json_object_get(inside, "tokenizer.json");
    bq_path_join(path, sizeof path, src->dir, "tokenizer.json");
    if (made)
        text = bq_json_text_of(made, &bytes);
    else if (!code && !inside && bq_file_read(path, TOKENIZER_BYTES, &text, &bytes))
        text = NULL;
    if (text) bq_sha256(text, bytes, hex);
    free(text);
    json_decref(inside);
    return code;
}

/* Models may have a few ids more or fewer than their tokenizer. */
static bool alike(int64_t vocab, int64_t model) {
    return vocab >= model - model / 10 && vocab <= model + model / 10;
}

static int check_tokenizer(const bq_source *src, const char *path, const bq_tokens *t) {
    const bq_model *m = &src->arch.model;
    char own[65];
    const char *dir;
    if (bq_weights_synthetic(src->weights)) return BQ_OK;
    int code = name_tokenizer(src, own, &dir);
    if (code) return code;
    if (strcmp(t->tokenizer, "bytes") == 0) {
        if (m->vocab <= 512) return BQ_OK;
        return bq_refuse(BQ_DATA,
                         "%s has the bytes of a text as tokens, 256 ids, the model's vocabulary has %ld: "
                         "make it by tools/prepare.py with --tokenizer %s",
                         path, (long)m->vocab, dir);
    }
    if (*own && is_sha256(t->tokenizer)) {
        if (strcmp(t->tokenizer, own) == 0) return BQ_OK;
        return bq_refuse(BQ_DATA,
                         "%s was made by a tokenizer.json with SHA-256 %.12s..., the model's has %.12s...: "
                         "make it again by tools/prepare.py with --tokenizer %s",
                         path, t->tokenizer, own, dir);
    }
    if (alike(t->vocab, m->vocab)) return BQ_OK;
    return bq_refuse(BQ_DATA,
                     "%s was made by a tokenizer of %ld ids (%.20s), the model's vocabulary has %ld: make it "
                     "by tools/prepare.py with the model's tokenizer",
                     path, (long)t->vocab, t->tokenizer, (long)m->vocab);
}

int bq_source_check_tokens(const bq_source *src, const char *path, const bq_tokens *t, int64_t offset,
                           int64_t need) {
    int code = bq_log_rank() == 0 ? check_tokenizer(src, path, t) : BQ_OK; /* reads a file: once is enough */
    if (code) return code;
    if (bq_tokens_is_text(path) && src->arch.model.vocab != 256)
        return bq_refuse(BQ_DATA,
                         "%s is a text, and only models whose tokens are bytes read texts; this one has a "
                         "vocabulary of %ld: make a tokens file by tools/prepare.py",
                         path, (long)src->arch.model.vocab);
    if (need > t->count || offset > t->count - need)
        return bq_refuse(
            BQ_DATA,
            "%s has %ld tokens, but %ld from number %ld on are needed: take fewer or shorter samples", path,
            (long)t->count, (long)need, (long)offset);
    for (int64_t i = offset; i < offset + need; i++)
        if (t->ids[i] < 0 || t->ids[i] >= src->arch.model.vocab)
            return bq_refuse(
                BQ_DATA, "%s: token %ld is %ld, the model's vocabulary has %ld: another tokenizer made it",
                path, (long)i, (long)t->ids[i], (long)src->arch.model.vocab);
    return BQ_OK;
}

int bq_source_same_tokenizer(const char *path, const bq_tokens *t, const char *other_path,
                             const bq_tokens *other) {
    if (strcmp(t->tokenizer, other->tokenizer) == 0) return BQ_OK;
    return bq_refuse(
        BQ_DATA, "%s was made by the tokenizer %.20s, %s by %.20s: calibrate and evaluate with one tokenizer",
        path, t->tokenizer, other_path, other->tokenizer);
}

void bq_source_check_length(const bq_source *src, const char *name, int64_t length) {
    if (length > src->arch.model.max_position)
        bq_log(BQ_WARN,
               "%s is %ld, the model's max_position_embeddings %ld: it was not trained on longer texts", name,
               (long)length, (long)src->arch.model.max_position);
}
