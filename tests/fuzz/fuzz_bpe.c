/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer.json of any bytes is refused, or tokenizes any text into ids below its vocabulary; without
 * added tokens and bytes that have no token the ids stand for the text's bytes.  What follows the first
 * zero byte is the text; with nothing before it the tokenizer is a good one.  Run with -close_fd_mask=2. */
#include "base/die.h"
#include "io/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Every byte a token, and two merges, one of which needs the other. */
static const char *good(void) {
    static char text[8192];
    size_t n = (size_t)snprintf(text, sizeof text, "{\"model\": {\"type\": \"BPE\", \"vocab\": {");
    for (int b = 0, next = 256; b < 256; b++) {
        const int itself = (b >= 33 && b < 127) || (b >= 161 && b < 173) || b >= 174;
        n += (size_t)snprintf(text + n, sizeof text - n, "\"\\u%04x\": %d, ", itself ? b : next, b);
        next += !itself;
    }
    snprintf(text + n, sizeof text - n,
             "\"ab\": 256, \"abc\": 257}, \"merges\": [\"ab c\", [\"a\", \"b\"]]}, \"added_tokens\": "
             "[{\"id\": 258, "
             "\"content\": \"<a>\"}, {\"id\": 259, \"content\": \"<a>b\"}], \"pre_tokenizer\": {\"type\": "
             "\"ByteLevel\"}}");
    return text;
}

static size_t length_of(int32_t id) { return id < 256 ? 1 : id == 256 ? 2 : id == 258 || id == 257 ? 3 : 4; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *text = bytes ? memchr(data, 0, bytes) : NULL;
    const size_t json = text ? (size_t)(text - (const char *)data) : bytes;
    bq_bpe *bpe;
    int rc = json ? bq_bpe_parse(&bpe, "/none/fuzz.json", (const char *)data, json)
                  : bq_bpe_parse(&bpe, "/none/fuzz.json", good(), strlen(good()));
    if (rc != BQ_OK && (rc != BQ_DATA || !json)) abort();
    if (rc) return 0;
    int32_t *ids = NULL;
    int64_t count = 0;
    const size_t n = text ? bytes - json - 1 : 0;
    size_t length = 0;
    rc = bq_bpe_encode(bpe, "it", text ? text + 1 : "", n, &ids, &count);
    if (rc != BQ_OK && rc != BQ_DATA) abort();
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= bq_bpe_vocab(bpe)) abort();
        if (!json) length += length_of(ids[i]);
    }
    if (!json && rc == BQ_OK && length != n) abort();
    free(ids);
    bq_bpe_close(bpe);
    return 0;
}
