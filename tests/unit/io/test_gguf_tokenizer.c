/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json and tokenizer_config.json from the keys of a GGUF file. */
#include "gguf_file.h"

#include "io/in/gguf_merges.h"
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

/* ---- SentencePiece ---- */

#define BLANK "\342\226\201" /* U+2581 */
/* 'abb' has the best score and two pairs; 'bb' and 'ab' have one score, so the smaller number is first.  The
 * end of a line and '</s>' are no normal tokens, so no merge has them; '<b>' has no use. */
#define PIECES                                                                                               \
    "'tokenizer.ggml.model' w8 'llama' 'tokenizer.ggml.tokens' w9 w8 q14 '<unk>' '<s>' '<0x0A>' '\n' 'a' "   \
    "'b' '" BLANK "' '" BLANK "a' 'bb' 'ab' 'abb' '\303\251' '\303\251b' '<b>' "                             \
    "'tokenizer.ggml.token_type' w9 w5 q14 w2 w3 w6 w4 w1 w1 w1 w1 w1 w1 w1 w1 w1 w5 "
#define SCORES "'tokenizer.ggml.scores' w9 w6 q14 f0 f0 f0 f-1000 f-8 f-9 f-10 f-3 f-2 f-2 f-1 f-11 f-4.5 f0 "
#define BOS1   "'tokenizer.ggml.bos_token_id' w4 w1 "

/* What tokenizer.json is, with ' for ".  %s: does the token '\n' take the blanks behind it; the normalizer;
 * the end of the decoders. */
static const char *const pieces_json =
    "{'version':'1.0','truncation':null,'padding':null,'added_tokens':["
    "{'id':0,'content':'<unk>','single_word':false,'lstrip':false,'rstrip':false,'normalized':false,"
    "'special':true},"
    "{'id':1,'content':'<s>','single_word':false,'lstrip':false,'rstrip':false,'normalized':false,"
    "'special':true},"
    "{'id':3,'content':'\\n','single_word':false,'lstrip':false,'rstrip':%s,'normalized':false,"
    "'special':false}],"
    "'normalizer':%s,'pre_tokenizer':null,'post_processor':{'type':'Sequence','processors':[{"
    "'type':'TemplateProcessing',"
    "'single':[{'SpecialToken':{'id':'<s>','type_id':0}},{'Sequence':{'id':'A','type_id':0}}],"
    "'pair':[{'SpecialToken':{'id':'<s>','type_id':0}},{'Sequence':{'id':'A','type_id':0}},"
    "{'SpecialToken':{'id':'<s>','type_id':1}},{'Sequence':{'id':'B','type_id':1}}],"
    "'special_tokens':{'<s>':{'id':'<s>','ids':[1],'tokens':['<s>']}}}]},"
    "'decoder':{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'" BLANK "'},"
    "'content':' '},{'type':'ByteFallback'},{'type':'Fuse'}%s]},"
    "'model':{'type':'BPE','dropout':null,'unk_token':'<unk>','continuing_subword_prefix':null,"
    "'end_of_word_suffix':null,'fuse_unk':true,'byte_fallback':true,'ignore_merges':false,'vocab':"
    "{'<unk>':0,'<s>':1,'<0x0A>':2,'\\n':3,'a':4,'b':5,'" BLANK "':6,'" BLANK "a':7,'bb':8,'ab':9,"
    "'abb':10,'\303\251':11,'\303\251b':12},'merges':[['a','bb'],['ab','b'],['b','b'],['a','b'],"
    "['" BLANK "','a'],['\303\251','b']]}}";
#define REPLACED "{'type':'Replace','pattern':{'String':' '},'content':'" BLANK "'}"
#define PREFIXED "{'type':'Sequence','normalizers':[{'type':'Prepend','prepend':'" BLANK "'}," REPLACED "]}"
#define STRIPPED ",{'type':'Strip','content':' ','start':1,'stop':0}"

static void same_pieces(const char *line, const char *rstrip, const char *normalizer, const char *strip) {
    char want[4096];
    json_t *t, *c;
    assert_int_equal(make(line, &t, &c), BQ_OK);
    snprintf(want, sizeof want, pieces_json, rstrip, normalizer, strip);
    for (char *at = want; (at = strchr(at, '\'')) != NULL;) *at = '"';
    same(t, "", want);
    same(c, "add_prefix_space", *strip ? "true" : "false");
    same(c, "add_bos_token", "true");
    json_decref(t);
    json_decref(c);
}

/* As Gemma has it; as Llama 2, where BOS, the first blank and <unk> follow without keys; as Phi-3. */
static void pieces(void **state) {
    (void)state;
    same_pieces(HEAD(0, 7) PIECES SCORES BOS1 "'tokenizer.ggml.add_space_prefix' w7 b0 "
                                              "'tokenizer.ggml.unknown_token_id' w4 w0",
                "false", REPLACED, "");
    same_pieces(HEAD(0, 6) PIECES SCORES BOS1 "'tokenizer.ggml.add_eos_token' w7 b0", "false", PREFIXED,
                STRIPPED);
    same_pieces(HEAD(0, 6) PIECES SCORES BOS1 "'general.architecture' w8 'phi3'", "true", PREFIXED, STRIPPED);
}

/* All texts of a and b of up to 18 characters, each pair of which is a merge: 8388612. */
static void many_merges(void **state) {
    (void)state;
    enum { MOST = 18, COUNT = (2 << MOST) - 2 };
    static char text[COUNT][MOST + 1];
    static bq_text token[COUNT];
    static int64_t type[COUNT];
    static uint8_t zero[COUNT * 4];
    bq_gguf_value score = {"tokenizer.ggml.scores", true, BQ_GGUF_F32, COUNT, zero};
    bq_gguf_header header = {.value = &score, .values = 1};
    bq_gguf_keys k = {.header = &header, .file = "many"};
    int64_t n = 0, count;
    json_t *vocab = json_object();
    for (int length = 1; length <= MOST; length++)
        for (int bits = 0; bits < 1 << length; bits++, n++) {
            for (int i = 0; i < length; i++) text[n][i] = (char)('a' + (bits >> i) % 2);
            token[n] = (bq_text){text[n], (size_t)length}, type[n] = 1;
            json_object_set_new_nocheck(vocab, text[n], json_integer(n));
        }
    bq_gguf_merge *merge = bq_gguf_merges(&k, COUNT, token, type, vocab, &count);
    assert_true(k.status == BQ_DATA && count < BQ_GGUF_MERGES + MOST);
    free(merge);
    json_decref(vocab);
}

static void another_tokenizer(void **state) {
    (void)state;
    static const char *const lines[] = {
        HEAD(0, 0), HEAD(0, 2) "'tokenizer.ggml.model' w8 't5' 'tokenizer.ggml.pre' w8 'default'",
        HEAD(0, 2) START "'chatglm-bpe'"};
    json_t *t, *c;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        assert_int_equal(make(lines[i], &t, &c), BQ_OK);
        assert_true(!t && !c);
    }
}

#define LONG16 "0123456789abcdef"
#define LONG64 LONG16 LONG16 LONG16 LONG16
#define LONG   LONG64 LONG64 LONG64 LONG64 "+"

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
        {HEAD(0, 7) MADE("'llama-bpe'") "'tokenizer.ggml.bos_token_id' w4 w3 "
                                        "'tokenizer.ggml.add_eos_token' w7 b1",
         "add_eos_token: blockq has no texts that end with EOS"},
        {HEAD(0, 4) PIECES BOS1, "tokenizer.ggml.scores: is missing"},
        {HEAD(0, 4) PIECES SCORES, "tokenizer.ggml.bos_token_id: is missing"},
        {HEAD(0, 5) PIECES BOS1 "'tokenizer.ggml.scores' w9 w6 q1 f0", "scores: is not a list of 14 items"},
        {HEAD(0, 5) PIECES BOS1 "'tokenizer.ggml.scores' w9 w6 q14 fnan +52", "scores: nan is not within"},
        {HEAD(0, 6) PIECES SCORES BOS1 "'tokenizer.ggml.unknown_token_id' w4 w14",
         "14 is not within 0 .. 13"},
        {HEAD(0, 6) PIECES SCORES BOS1 "'tokenizer.ggml.add_space_prefix' w7 b2",
         "is neither true nor false"},
        {HEAD(0, 5) "'tokenizer.ggml.model' w8 'llama' 'tokenizer.ggml.tokens' w9 w8 q2 '<unk>' "
                    "'" LONG "' 'tokenizer.ggml.token_type' w9 w5 q2 w2 w1 "
                    "'tokenizer.ggml.scores' w9 w6 q2 f0 f0 'tokenizer.ggml.bos_token_id' w4 w0",
         "tokens: item 1 has 257 bytes, more than 256"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(refused(cases[i].line), cases[i].needle);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_files),  cmocka_unit_test(cutting_rules),     cmocka_unit_test(pieces),
        cmocka_unit_test(many_merges), cmocka_unit_test(another_tokenizer), cmocka_unit_test(bad),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
