/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzzer does, for builds without clang: a good GGUF file with some bytes changed, the same ones
 * every time.  It is taken or refused, with one message for a refusal; sanitizers watch the rest. */
#include "gguf_file.h"

#include "base/rng.h"
#include "io/in/gguf_config.h"
#include "io/in/gguf_tokenizer.h"

#include <sys/mman.h>

enum { ROUNDS = 20000 };

/* One with tensors; two from which config.json and the tokenizer can be made. */
static const char *const good[] = {
    HEAD(3, 5) "'split.no' w2 h0 'name' w8 'a model' 'list' w9 w5 q3 w1 w2 w3 'tokens' w9 w8 q3 'x' 'yz' "
               "'' " ALIGN(8) TENSOR2("t", 32, 2, 8, 0) TENSOR1("u", 3, 0, 72)
                   TENSOR1("v", 256, 14, 88) "|8 +68 +4 +12 +4 +210",
    HEAD(3, 15) "'general.architecture' w8 'phi3' 'phi3.block_count' w4 w1 'phi3.context_length' w4 w64 "
                "'phi3.embedding_length' w4 w4 'phi3.feed_forward_length' w4 w8 'phi3.attention.head_count' "
                "w4 w1 "
                "'phi3.attention.layer_norm_rms_epsilon' w6 f1e-5 'tokenizer.ggml.model' w8 'gpt2' "
                "'phi3.rope.scaling.original_context_length' w4 w8 'tokenizer.ggml.pre' w8 'llama-bpe' "
                "'tokenizer.ggml.tokens' w9 w8 q4 'a' 'b' 'ab' '<s>' "
                "'tokenizer.ggml.token_type' w9 w5 q4 w1 w1 w1 w3 'tokenizer.ggml.merges' w9 w8 q1 'a b' "
                "'tokenizer.ggml.bos_token_id' w4 w3 " ALIGN(8) TENSOR2("token_embd.weight", 4, 2, 0, 0)
                    TENSOR1("rope_factors_long.weight", 2, 0, 32)
                        TENSOR1("rope_factors_short.weight", 2, 0, 40) "|8 +32 f1 f2 f3 f4",
    HEAD(1,
         15) "'general.architecture' w8 'llama' 'llama.block_count' w4 w1 'llama.context_length' w4 w64 "
             "'llama.embedding_length' w4 w4 'llama.feed_forward_length' w4 w8 "
             "'llama.attention.head_count' w4 w1 'llama.attention.layer_norm_rms_epsilon' w6 f1e-5 "
             "'tokenizer.ggml.model' w8 'llama' 'tokenizer.ggml.tokens' w9 w8 q6 'a' 'b' 'ab' 'abab' '<s>' "
             "'<0x0A>' 'tokenizer.ggml.token_type' w9 w5 q6 w1 w1 w1 w1 w3 w6 'tokenizer.ggml.scores' w9 w6 "
             "q6 f-2 f-3 f-1 f-4 f0 f0 'tokenizer.ggml.bos_token_id' w4 w4 "
             "'tokenizer.ggml.unknown_token_id' w4 w0 'tokenizer.ggml.add_space_prefix' w7 b0 " ALIGN(8)
                 TENSOR2("token_embd.weight", 4, 2, 0, 0) "|8 +32",
};
enum { GOOD = sizeof good / sizeof *good };

static void put(uint8_t *to, size_t bytes, size_t at, uint64_t value, size_t size) {
    if (at + size <= bytes) memcpy(to + at, &value, size);
}

/* One to four edits: a byte, a bit, a cut, a doubled piece, a number that is large or small. */
static size_t mutate(uint32_t round, uint8_t *to, size_t bytes) {
    static const uint64_t number[] = {0,       1,          8,         9,          13,        256,
                                      1 << 20, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ull << 63};
    uint32_t r[4];
    for (uint32_t k = 0; k <= round % 4 && bytes; k++) {
        bq_philox((bq_rng_key){.seed = round}, k, r);
        size_t at = r[0] % bytes, size = r[3] % 32 < bytes - at ? r[3] % 32 : bytes - at;
        switch (r[2] % 6) {
        case 0: to[at] = (uint8_t)r[1]; break;
        case 1: to[at] ^= (uint8_t)(1 << r[1] % 8); break;
        case 2: /* a cut */
            memmove(to + at, to + at + size, bytes - at - size);
            bytes -= size;
            break;
        case 3:
            memmove(to + at + size, to + at, bytes - at);
            bytes += size;
            break;
        default: put(to, bytes, at, number[r[1] % 11], r[2] % 6 == 4 ? 8 : 4);
        }
    }
    return bytes;
}

static int messages(const char *text) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, "bq: error: ")); at++) n++;
    return n;
}

static int open_model(bq_gguf **g, const char *path) { return bq_gguf_open(g, path); }

/* The value of every list of texts, the last row of every tensor, and the files beside the weights. */
static int use(bq_gguf **g, const char *path) {
    (void)path;
    float row[256];
    json_t *config = NULL, *tokenizer = NULL, *more = NULL;
    bq_gguf_keys k = bq_gguf_keys_of(*g);
    for (int i = 0; i < bq_gguf_count(*g); i++) {
        const bq_tensor *t = bq_gguf_at(*g, i);
        int64_t cols = bq_gguf_cols(t);
        if (cols <= 256) bq_gguf_read(*g, t, bq_gguf_rows(t) - 1, 1, bq_mat_host(row, 1, cols, BQ_F32));
    }
    for (int i = 0; i < k.header->values; i++) {
        bq_text text[16];
        int64_t n = bq_gguf_length(&k, k.header->value[i].key);
        if (n >= 0 && n <= 16 && k.header->value[i].type == BQ_GGUF_TEXT)
            bq_gguf_texts(&k, k.header->value[i].key, n, text);
    }
    assert_int_equal(k.status, BQ_OK);
    int rc = bq_gguf_config(*g, &config);
    if (!rc) rc = bq_gguf_tokenizer(*g, &tokenizer, &more);
    json_decref(config);
    json_decref(tokenizer);
    json_decref(more);
    return rc;
}

/* What it returns; its messages are counted: one for a refusal, which names the file, and none otherwise. */
static int counted(int (*what)(bq_gguf **g, const char *path), bq_gguf **g, const char *path,
                   uint32_t round) {
    char *said = NULL;
    size_t size;
    FILE *saved = stderr;
    stderr = open_memstream(&said, &size);
    int rc = what(g, path);
    fclose(stderr);
    stderr = saved;
    if (rc != BQ_OK && rc != BQ_DATA) fail_msg("round %u returned %d", round, rc);
    if (messages(said) != (rc == BQ_DATA) || (rc == BQ_DATA && !strstr(said, path)))
        fail_msg("round %u: %d, said: %s", round, rc, said);
    free(said);
    return rc;
}

static void memory_save(int fd, const uint8_t *bytes, size_t n) {
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, bytes, n, 0), n);
}

static void changed(void **state) {
    (void)state;
    static uint8_t bytes[GGUF_ROOM];
    char path[64];
    int taken[GOOD + 1] = {0},
                     fd = memfd_create("model", 0); /* a file on a disk would take ten times as long */
    bq_gguf *g;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (int i = 1; i < GOOD; i++) {
        memory_save(fd, bytes, gguf_bytes(good[i], bytes));
        assert_int_equal(bq_gguf_open(&g, path), BQ_OK);
        assert_int_equal(use(&g, path), BQ_OK);
        bq_gguf_close(g);
    }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        memory_save(fd, bytes, mutate(round, bytes, gguf_bytes(good[round / 8 % GOOD], bytes)));
        if (counted(open_model, &g, path, round)) continue;
        taken[round / 8 % GOOD]++;
        taken[GOOD] += counted(use, &g, path, round) == BQ_OK;
        bq_gguf_close(g);
    }
    close(fd);
    printf("taken: %d, %d, %d, with all that can be made: %d\n", taken[0], taken[1], taken[2], taken[3]);
    for (int i = 0; i <= GOOD; i++) /* else the edits are too harsh, or too mild */
        assert_true(taken[i] > ROUNDS / 200 && taken[i] < ROUNDS / 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(changed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
