/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json: the ids of the package tokenizers; what is not known is refused; hostile files. */
#include "refuse.h"

#include "io/bpe.h"
#include "io/files.h"
#include "io/json.h"
#include "io/words.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"gpt2", "digits", "llama3", "qwen2"};

static const char *vector(const char *name, const char *ending) {
    static char path[1024];
    snprintf(path, sizeof path, BQ_VECTORS "/peer_tokens_%s%s.json", name, ending);
    return path;
}

/* Those of the package; of Qwen2's kind texts that normal form C would change are refused. */
static void ids_of_the_package(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        bq_bpe *bpe;
        json_t *all, *one;
        size_t i;
        int refused = 0;
        assert_int_equal(bq_bpe_open(&bpe, vector(names[k], ".tokenizer")), BQ_OK);
        assert_int_equal(bq_json_read(vector(names[k], ""), 1 << 24, &all), BQ_OK);
        assert_int_equal(json_array_size(json_object_get(all, "cases")), 180);
        json_array_foreach(json_object_get(all, "cases"), i, one) {
            const json_t *text = json_object_get(one, "text"), *want = json_object_get(one, "ids");
            int32_t *ids;
            int64_t count;
            char said[512];
            int fd = captured_fd(0);
            int rc =
                bq_bpe_encode(bpe, "it", json_string_value(text), json_string_length(text), &ids, &count);
            captured_text(fd, said, sizeof said);
            if (rc == BQ_DATA) {
                refused++;
                assert_null(ids);
                continue;
            }
            assert_int_equal(count, json_array_size(want));
            for (int64_t n = 0; n < count; n++)
                assert_int_equal(ids[n], json_integer_value(json_array_get(want, (size_t)n)));
            free(ids);
        }
        assert_int_equal(refused, k == 3 ? 2 : 0);
        assert_int_equal(bq_bpe_bos(bpe), k == 2 ? 0 : -1);
        assert_int_equal(bq_bpe_vocab(bpe), k ? 700 : 702);
        json_decref(all);
        bq_bpe_close(bpe);
    }
}

/* A word as long as the text takes no time that grows with its square. */
static void long_words(void **state) {
    (void)state;
    bq_bpe *bpe;
    int32_t *ids;
    int64_t count;
    enum { N = 1 << 20 };
    char *text = malloc(N);
    memset(text, 'a', N);
    assert_int_equal(bq_bpe_open(&bpe, vector("gpt2", ".tokenizer")), BQ_OK);
    assert_int_equal(bq_bpe_encode(bpe, "it", text, N, &ids, &count), BQ_OK);
    assert_true(count > N / 16 && count <= N);
    free(ids);
    text[N / 2] = (char)0xff;
    assert_refused(bq_bpe_encode(bpe, "it", text, N, &ids, &count), "it: byte 524288 (0xff) is not UTF-8");
    bq_bpe_close(bpe);
    free(text);
}

/* The file of a tokenizer with one text replaced by another. */
static int changed(const char *name, const char *from, const char *to, bq_bpe **bpe) {
    char *text, *all, *at;
    size_t bytes;
    assert_int_equal(bq_file_read(vector(name, ".tokenizer"), 1 << 20, &text, &bytes), 0);
    assert_non_null(at = strstr(text, from));
    assert_true(asprintf(&all, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    int rc = bq_bpe_parse(bpe, "t.json", all, strlen(all));
    free(all);
    free(text);
    return rc;
}

static void what_is_not_known(void **state) {
    (void)state;
    static const char *const cases[][4] = {
        {"gpt2", "\"type\":\"BPE\"", "\"type\":\"Unigram\"", "t.json: model.type Unigram"},
        {"gpt2", "\"dropout\":null", "\"dropout\":0.1", "t.json: model has dropout"},
        {"gpt2", "\"unk_token\":null", "\"unk_token\":\"x\"", "t.json: model has unk_token"},
        {"gpt2", "\"byte_fallback\":false", "\"byte_fallback\":true", "model has byte_fallback"},
        {"gpt2", "\"normalizer\":null", "\"normalizer\":{\"type\":\"NFKC\"}", "normalizer NFKC"},
        {"gpt2", "\"add_prefix_space\":false", "\"add_prefix_space\":true",
         "pre_tokenizer has add_prefix_space"},
        {"gpt2", "\"pre_tokenizer\":{\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\"type\":\"Metaspace\"",
         "pre_tokenizer.type Metaspace"},
        {"gpt2", "\"use_regex\":true", "\"use_regex\":false", "pre_tokenizer that cuts no words"},
        {"llama3", "{1,3}", "{1,4}", "the pattern (?i:"},
        {"llama3", "\"Isolated\"", "\"Removed\"", "pre_tokenizer that does not isolate words"},
        {"llama3", "\"use_regex\":false", "\"use_regex\":true", "Split, and ByteLevel with use_regex"},
        {"gpt2", "\"merges\":[\"", "\"merges\":[\"qqq q\",\"", "model.merges.0 does not join two tokens"},
        {"qwen2", "\"merges\":[[", "\"merges\":[[\"a\"],[", "model.merges.0 does not join two tokens"},
        {"gpt2", "\"merges\":[", "\"merges\":3,\"x\":[", "model.vocab or model.merges is missing"},
        {"gpt2", "\"a\":", "\"\u0101\":", "not valid JSON"},
        {"gpt2", "\"<|end|>\":1,", "\"<|end|>\":-1,", "must be a number below"},
        {"gpt2", "\"id\":0,", "\"id\":99999999,", "added_tokens.0 has no content or no id"},
        {"llama3", "\"ids\":[0]", "\"ids\":[700]", "the BOS token is 700, beyond its 700 ids"},
    };
    bq_bpe *bpe = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_refused(changed(cases[i][0], cases[i][1], cases[i][2], &bpe), cases[i][3]);
        assert_null(bpe);
    }
    int32_t *ids;
    int64_t count;
    assert_int_equal(changed("gpt2", "\"rstrip\":false", "\"rstrip\":true", &bpe), BQ_OK);
    assert_refused(bq_bpe_encode(bpe, "it", "a<|bos|>", 8, &ids, &count),
                   "it has the token <|bos|>, which takes");
    assert_int_equal(bq_bpe_encode(bpe, "it", "a<|end|>", 8, &ids, &count), BQ_OK);
    assert_int_equal(ids[count - 1], 1);
    free(ids);
    bq_bpe_close(bpe);
    assert_refused(bq_bpe_open(&bpe, temp_path("none")), "--tokenizer takes a model's folder");
}

/* tokenizer_config.json beside the file decides on BOS. */
static void bos(void **state) {
    (void)state;
    static const struct {
        const char *name, *config;
        int32_t bos;
    } cases[] = {{"llama3", "{\"add_bos_token\": false}", -1},
                 {"llama3", "{\"bos_token\": \"<|end|>\"}", 1},
                 {"gpt2", "{\"bos_token\": \"<|end|>\"}", -1},
                 {"gpt2", "{\"bos_token\": {\"content\": \"<|bos|>\"}, \"add_bos_token\": true}", 0}};
    char *text;
    size_t bytes;
    bq_bpe *bpe;
    assert_int_equal(bq_dir_make(temp_path("m")), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(bq_file_read(vector(cases[i].name, ".tokenizer"), 1 << 20, &text, &bytes), 0);
        file_save(temp_path("m/tokenizer.json"), text, bytes);
        text_save(temp_path("m/tokenizer_config.json"), cases[i].config);
        assert_int_equal(bq_bpe_open(&bpe, temp_path("m")), BQ_OK);
        assert_int_equal(bq_bpe_bos(bpe), cases[i].bos);
        bq_bpe_close(bpe);
        free(text);
    }
    text_save(temp_path("m/tokenizer_config.json"), "{\"add_bos_token\": true}");
    assert_refused(bq_bpe_open(&bpe, temp_path("m")), "add_bos_token is true, and no BOS token is named");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ids_of_the_package), cmocka_unit_test(long_words),
                                       cmocka_unit_test(what_is_not_known), cmocka_unit_test(bos)};
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
