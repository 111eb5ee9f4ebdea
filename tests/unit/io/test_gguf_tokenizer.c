/* tokenizer.json and tokenizer_config.json from the keys of a GGUF file. */
#include "gguf_file.h"

#include "io/in/gguf_tokenizer.h"

#define START   "'tokenizer.ggml.model' w8 'gpt2' 'tokenizer.ggml.pre' w8 "
#define TOKENS  "'tokenizer.ggml.tokens' w9 w8 q7 'a' 'b' 'ab' '<s>' '<t>' '[PAD5]' 'abb' "
#define TYPES   "'tokenizer.ggml.token_type' w9 w5 q7 w1 w1 w1 w3 w4 w5 w1 "
#define MERGES  "'tokenizer.ggml.merges' w9 w8 q2 'a b' 'ab b' "
#define MADE(t) START t TOKENS TYPES MERGES

static int make(const char *line, json_t **tokenizer, json_t **config) {
    bq_gguf *g;
    assert_int_equal(bq_gguf_open(&g, gguf_save("t.gguf", line)), BQ_OK);
    int rc = bq_gguf_tokenizer(g, tokenizer, config);
    bq_gguf_close(g);
    assert_true(!*tokenizer == !*config && (rc == BQ_OK || !*tokenizer));
    return rc;
}

static int refused(const char *line) {
    json_t *tokenizer, *config;
    int rc = make(line, &tokenizer, &config);
    json_decref(tokenizer);
    json_decref(config);
    return rc;
}

/* The value behind a path of keys and of numbers of items: "model/merges/0". */
static json_t *at(json_t *from, const char *path) {
    while (from && *path) {
        char key[64];
        size_t n = strcspn(path, "/");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        from =
            json_is_array(from) ? json_array_get(from, strtoul(key, NULL, 10)) : json_object_get(from, key);
        path += n + (path[n] == '/');
    }
    return from;
}

static void same(json_t *root, const char *path, const char *want) {
    json_t *v = json_loads(want, JSON_DECODE_ANY, NULL), *got = at(root, path);
    char *text = got ? json_dumps(got, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    assert_non_null(v);
    if (!got || !json_equal(got, v)) fail_msg("%s: got %s, wanted %s", path, text ? text : "nothing", want);
    free(text);
    json_decref(v);
}

#define FLAGS "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false"
#define TWO                                                                                                  \
    "{\"content\":\"<s>\"," FLAGS ",\"special\":true},\"4\":{\"content\":\"<t>\"," FLAGS ",\"special\":"     \
    "false}"

static void both_files(void **state) {
    (void)state;
    json_t *t, *c;
    assert_int_equal(
        make(HEAD(0, 11)
                 MADE("'smollm'") "'general.architecture' w8 'llama' "
                                  "'llama.context_length' w4 w512 'tokenizer.ggml.bos_token_id' w4 w3 "
                                  "'tokenizer.ggml.unknown_token_id' w4 w0 "
                                  "'tokenizer.ggml.add_bos_token' w7 b0 'tokenizer.chat_template' w8 '{{x}}'",
             &t, &c),
        BQ_OK);
    same(t, "model/vocab", "{\"a\":0,\"b\":1,\"ab\":2,\"<s>\":3,\"<t>\":4,\"abb\":6}");
    same(t, "model/merges", "[[\"a\",\"b\"],[\"ab\",\"b\"]]");
    same(t, "model/type", "\"BPE\"");
    same(t, "model/ignore_merges", "false");
    same(t, "added_tokens",
         "[{\"id\":3,\"content\":\"<s>\"," FLAGS ",\"special\":true},"
         "{\"id\":4,\"content\":\"<t>\"," FLAGS ",\"special\":false}]");
    same(t, "pre_tokenizer/pretokenizers/0", "{\"type\":\"Digits\",\"individual_digits\":true}");
    same(t, "pre_tokenizer/pretokenizers/1/use_regex", "true");
    same(t, "post_processor", "null");
    same(t, "decoder/add_prefix_space", "true");
    same(
        c, "",
        "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"add_prefix_space\":false,\"add_bos_token\":false,"
        "\"clean_up_tokenization_spaces\":false,\"model_max_length\":512,\"added_tokens_decoder\":{\"3\":" TWO
        "},\"bos_token\":\"<s>\",\"unk_token\":\"a\",\"chat_template\":\"{{x}}\"}");
    json_decref(t);
    json_decref(c);
}

/* The expressions of Llama 3 and Qwen 2 differ in how many digits stand together. */
static void cutting_rules(void **state) {
    (void)state;
    json_t *t, *c;
    assert_int_equal(make(HEAD(0, 6) MADE("'llama-bpe'") "'tokenizer.ggml.bos_token_id' w4 w3", &t, &c),
                     BQ_OK);
    same(t, "pre_tokenizer/pretokenizers/0/pattern/Regex",
         "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
         "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"");
    same(t, "pre_tokenizer/pretokenizers/1/use_regex", "false");
    same(t, "model/ignore_merges", "true");
    same(t, "normalizer", "null");
    same(t, "post_processor/processors/0/type", "\"ByteLevel\"");
    same(t, "post_processor/processors/1",
         "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
         "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_"
         "id\":0}},"
         "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":1}},"
         "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":["
         "3],"
         "\"tokens\":[\"<s>\"]}}}");
    same(c, "add_bos_token", "true");
    json_decref(t);
    json_decref(c);
    assert_int_equal(make(HEAD(0, 5) MADE("'qwen2'"), &t, &c), BQ_OK);
    assert_non_null(
        strstr(json_string_value(at(t, "pre_tokenizer/pretokenizers/0/pattern/Regex")), "|\\p{N}| ?"));
    same(t, "normalizer/type", "\"NFC\"");
    same(t, "post_processor/type", "\"ByteLevel\"");
    same(c, "add_bos_token", "false");
    json_decref(t);
    json_decref(c);
    assert_int_equal(make(HEAD(0, 7) MADE("'gpt-2'") "'tokenizer.ggml.bos_token_id' w4 w3 "
                                                     "'tokenizer.ggml.add_bos_token' w7 b1",
                          &t, &c),
                     BQ_OK);
    same(t, "pre_tokenizer/type", "\"ByteLevel\"");
    same(t, "post_processor/processors/1/special_tokens/<s>/ids", "[3]");
    json_decref(t);
    json_decref(c);
}

static void another_tokenizer(void **state) {
    (void)state;
    static const char *const lines[] = {
        HEAD(0, 0), HEAD(0, 2) "'tokenizer.ggml.model' w8 'llama' 'tokenizer.ggml.pre' w8 'default'",
        HEAD(0, 2) START "'chatglm-bpe'"};
    json_t *t, *c;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        assert_int_equal(make(lines[i], &t, &c), BQ_OK);
        assert_true(!t && !c);
    }
}

static void bad(void **state) {
    (void)state;
    static const struct {
        const char *line, *needle;
    } cases[] = {
        {HEAD(0, 1) "'tokenizer.ggml.model' w4 w1", "tokenizer.ggml.model: "},
        {HEAD(0, 2) START "'smollm'", "tokenizer.ggml.tokens: is missing"},
        {HEAD(0, 3) START "'smollm' 'tokenizer.ggml.tokens' w9 w8 q0", "is not a list of tokens: 0 items"},
        {HEAD(0, 3) START "'smollm' 'tokenizer.ggml.tokens' w9 w4 q1 w7", "is not a list of texts"},
        {HEAD(0, 3) START "'smollm' " TOKENS, "tokenizer.ggml.token_type: is missing"},
        {HEAD(0, 4) START "'smollm' " TOKENS TYPES, "tokenizer.ggml.merges: is missing"},
        {HEAD(0, 4) START "'smollm' " TOKENS "'tokenizer.ggml.token_type' w9 w5 q1 w1",
         "token_type: is not a list of 7 items: there are 1"},
        {HEAD(0, 4) START "'smollm' " TOKENS "'tokenizer.ggml.token_type' w9 w5 q7 w1 w1 w1 w3 w4 w7 w1",
         "token_type: 7 is not within 0 .. 6"},
        {HEAD(0, 4) START "'smollm' 'tokenizer.ggml.tokens' w9 w8 q2 'x' 'x' "
                          "'tokenizer.ggml.token_type' w9 w5 q2 w1 w1",
         "tokens: item 1, 'x', is there twice"},
        {HEAD(0, 4) START "'smollm' 'tokenizer.ggml.tokens' w9 w8 q1 q2 b255 b255 "
                          "'tokenizer.ggml.token_type' w9 w5 q1 w5",
         "tokens: item 0 (2 bytes) is too long, has a zero byte or is not UTF-8"},
        {HEAD(0, 4) START "'smollm' 'tokenizer.ggml.tokens' w9 w8 q1 q2 !x b0 "
                          "'tokenizer.ggml.token_type' w9 w5 q1 w1",
         "has a zero byte"},
        {HEAD(0, 5) START "'smollm' " TOKENS TYPES "'tokenizer.ggml.merges' w9 w8 q1 'ab'",
         "merges: item 0, 'ab', is no pair of tokens"},
        {HEAD(0, 5) START "'smollm' " TOKENS TYPES "'tokenizer.ggml.merges' w9 w8 q2 'a b' 'b a'",
         "merges: item 1, 'b a', is no pair"},
        {HEAD(0, 5) START "'smollm' " TOKENS TYPES "'tokenizer.ggml.merges' w9 w8 q1 'a b b'",
         "merges: item 0, 'a b b', is no pair"},
        {HEAD(0, 5) START "'smollm' " TOKENS TYPES "'tokenizer.ggml.merges' w9 w8 q1 ' '", "' ', is no pair"},
        {HEAD(0, 5) START "'smollm' " TOKENS TYPES "'tokenizer.ggml.merges' w9 w8 q1 'x y'",
         "'x y', is no pair"},
        {HEAD(0, 5) MADE("'llama-bpe'"), "tokenizer.ggml.bos_token_id: is missing"},
        {HEAD(0, 6) MADE("'llama-bpe'") "'tokenizer.ggml.bos_token_id' w4 w7", "7 is not within 0 .. 6"},
        {HEAD(0, 6) MADE("'smollm'") "'tokenizer.ggml.eos_token_id' w4 w99", "99 is not within 0 .. 6"},
        {HEAD(0, 6) MADE("'smollm'") "'tokenizer.chat_template' w8 q1 b255", "its 1 bytes are not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(refused(cases[i].line), cases[i].needle);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_files),
        cmocka_unit_test(cutting_rules),
        cmocka_unit_test(another_tokenizer),
        cmocka_unit_test(bad),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
